"""Alarms on synthetic traces: each fires once where it should, and healthy runs are left in peace."""

import math
import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from mixreorg.train.alarm_config import AlarmConfig
from mixreorg.train.alarms import Alarm, Alarms
from mixreorg.train.config import TrainConfig

Change = Callable[[int, dict[str, float]], dict[str, float]]

FULL = TrainConfig()
SCENES = TrainConfig().with_overrides(
    [
        "batch_size=64",
        "steps=3200",
        "optim.warmup_steps=60",
        "optim.clip_norm=1.0",
        "objective.num_contextual_blocks=0",
        "objective.combine=none",
        "model.image.centre_keys=true",
        "model.image.assignment_logits=cosine",
        "model.image.group_token_std=1.0",
    ]
)


def healthy(run: TrainConfig, seed: int = 0) -> Iterable[tuple[int, dict[str, float]]]:
    """Log records shaped like those of true runs: noisy, falling losses, slowly rising accuracy, a slow start."""
    random = np.random.default_rng(seed)
    chance = math.log(run.batch_size)
    for step in range(run.log_every, run.steps + 1, run.log_every):
        left = math.exp(-5 * step / run.steps)
        noise = 1 + 0.12 * random.standard_normal(4)
        contrastive = chance * (0.15 + 0.9 * left * abs(noise[0]))
        mixed = chance * (0.65 + 0.35 * left) * (1 + 0.03 * random.standard_normal())
        yield (
            step,
            {
                "loss": contrastive + mixed,
                "contrastive": contrastive,
                "mixed": mixed,
                "mixed_mask_accuracy": 0.26 + 0.25 * (1 - left) + 0.02 * random.standard_normal(),
                "segments_in_use": 5 + random.standard_normal(),
                "logit_scale": 14.3 - 0.5 * min(step / run.steps, 0.1) * 10 + 2 * step / run.steps,
                "gradient_norm": 8 * abs(noise[1]) * (1 + left),
                "learning_rate": 1e-3,
                "pairs_per_second": 380 * abs(noise[2]),
                "data_wait_share": 0.1 * abs(noise[3]),
                "eta_seconds": 1.0,
            },
        )


def raised(
    run: TrainConfig, change: Change | None = None, config: AlarmConfig | None = None
) -> list[tuple[int, Alarm]]:
    """The alarms of a healthy trace that was changed record by record."""
    alarms = Alarms(config or AlarmConfig(), run)
    return [
        (step, alarm)
        for step, metrics in healthy(run)
        for alarm in alarms.observe(step, change(step, metrics) if change else metrics)
    ]


def only(found: list[tuple[int, Alarm]], kind: str) -> tuple[int, Alarm]:
    assert [alarm.kind for _, alarm in found] == [kind]
    return found[0]


def after(start: int, **changes: float) -> Change:
    """From a step on, these values instead of the healthy ones."""
    return lambda step, metrics: {**metrics, **changes} if step > start else metrics


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("run", [SCENES, FULL.updated(log_every=200)], ids=["scenes", "full"])
def test_healthy_runs_raise_nothing(run: TrainConfig, seed: int):
    alarms = Alarms(AlarmConfig(), run)
    found = [alarm for step, metrics in healthy(run, seed) for alarm in alarms.observe(step, metrics)]
    assert not found


def test_a_warm_up_may_look_like_a_failure():
    def at_chance(step: int, metrics: dict[str, float]) -> dict[str, float]:
        if step > FULL.optim.warmup_steps:
            return metrics
        return {**metrics, "contrastive": 8.4, "mixed_mask_accuracy": 0.25, "segments_in_use": 1.0}

    assert not raised(FULL, at_chance)


@pytest.mark.parametrize(("name", "word"), [("loss", "loss"), ("gradient_norm", "gradient")])
def test_not_a_number_is_raised_at_once_with_the_numbers_before(name: str, word: str):
    step, alarm = only(raised(SCENES, after(1000, **{name: math.nan})), "not_finite")
    assert step == 1050
    assert alarm.message.startswith(f"the {word} is not a finite number at step 1,050 (at step 1,000: loss ")
    assert "precision=fp32" in alarm.message


def test_gradients_that_overflow_under_a_loss_scale_are_normal():
    assert not raised(SCENES.updated(precision="fp16"), after(1000, gradient_norm=math.inf))


def test_an_exploding_gradient_is_raised_at_its_first_record_and_again_only_after_calm():
    def spikes(step: int, metrics: dict[str, float]) -> dict[str, float]:
        return {**metrics, "gradient_norm": 5e3} if step in (1000, 1100, 1200, 2500) else metrics

    found = raised(SCENES, spikes)
    assert [(step, alarm.kind) for step, alarm in found] == [(1000, "exploding_gradient"), (2500, "exploding_gradient")]
    assert "the gradient norm is 5e+03" in found[0][1].message
    assert "clipped to 1" in found[0][1].message


def test_a_gradient_that_vanished_has_no_usual_norm():
    assert not raised(SCENES, after(0, gradient_norm=0.0))


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("low_logit_scale", {"logit_scale": 0.9}, "fallen to 0.9"),
        ("saturated_logit_scale", {"logit_scale": 100.0}, "limit of 100 after"),
        ("contrastive_at_chance", {"contrastive": 4.15}, "still 4.15, and guessing gives log(64) = 4.16"),
        ("one_segment", {"segments_in_use": 1.05}, "uses 1.1 of its 8 segments"),
        ("mixed_at_chance", {"mixed_mask_accuracy": 0.25}, "among 4 images gives 0.25"),
    ],
)
def test_failures_to_learn_are_raised_once_after_they_have_lasted(kind: str, changes: dict[str, float], said: str):
    step, alarm = only(raised(SCENES, after(100, **changes)), kind)
    # Five records until the median has turned, ten of patience.
    assert 600 <= step <= 800
    assert said in alarm.message


def test_short_lapses_are_forgiven():
    def lapse(step: int, metrics: dict[str, float]) -> dict[str, float]:
        return {**metrics, "segments_in_use": 1.0, "mixed_mask_accuracy": 0.2} if step % 1000 < 400 else metrics

    assert not raised(SCENES, lapse)


def test_an_alarm_returns_after_the_condition_has_been_gone_for_long():
    def twice(step: int, metrics: dict[str, float]) -> dict[str, float]:
        return metrics if 1000 < step <= 2000 else {**metrics, "segments_in_use": 1.0}

    assert [alarm.kind for _, alarm in raised(SCENES, twice)] == ["one_segment", "one_segment"]


def test_patience_grows_with_the_run():
    step, _ = only(raised(FULL, after(20_000, segments_in_use=1.0)), "one_segment")
    assert 24_000 < step < 25_000


def test_a_saturated_logit_scale_is_normal_late_in_a_run():
    assert not raised(SCENES, after(SCENES.steps // 2, logit_scale=100.0))


def test_a_collapsed_grouping_names_only_remedies_that_are_not_in_use():
    _, scenes = only(raised(SCENES, after(0, segments_in_use=1.0)), "one_segment")
    _, full = only(raised(FULL, after(0, segments_in_use=1.0)), "one_segment")
    assert "centre_keys" not in scenes.message
    assert "model.image.centre_keys=true" in full.message


def test_nearly_solved_mixed_masks_are_suspect_only_where_patches_meet_their_whole_image():
    solved = after(0, mixed_mask_accuracy=0.97, mixed=0.2)
    _, alarm = only(raised(FULL, solved), "mixed_leak")
    assert "accuracy 0.97, loss 0.2" in alarm.message
    assert not raised(SCENES, solved)
    windowed = FULL.with_overrides(["model.image.num_local_blocks=1", "objective.combine=none"])
    assert not raised(windowed, solved)


def test_strengthening_with_whole_images_counts_as_meeting_them():
    strengthened = FULL.with_overrides(["objective.num_contextual_blocks=0", "objective.combine=sum"])
    only(raised(strengthened, after(0, mixed_mask_accuracy=0.97)), "mixed_leak")


def test_mixed_masks_are_not_judged_before_their_loss_has_its_whole_weight():
    late = SCENES.with_overrides(["objective.mixed.start_step=1500", "objective.mixed.ramp_steps=500"])
    step, _ = only(raised(late, after(0, mixed_mask_accuracy=0.25)), "mixed_at_chance")
    assert step > 2400


def test_the_baseline_has_no_mixed_alarms():
    baseline = SCENES.with_overrides(["objective.kind=groupvit"])
    assert not raised(baseline, after(0, mixed_mask_accuracy=0.25))


@pytest.mark.parametrize(("workers", "said"), [(0, "data.num_workers=4"), (6, "data.num_workers=12 (now 6")])
def test_waiting_for_data_names_the_setting(workers: int, said: str):
    run = SCENES.with_overrides([f"data.num_workers={workers}"])
    _, alarm = only(raised(run, after(1000, data_wait_share=0.6)), "waiting_for_data")
    assert "60% of the time" in alarm.message
    assert said in alarm.message


def test_a_rising_loss_names_the_term_and_its_best_step():
    def rise(step: int, metrics: dict[str, float]) -> dict[str, float]:
        return {**metrics, "contrastive": 1.0 + 2.0 * max(0, step - 1500) / 1500 + 0.5 * max(0, 1500 - step) / 1500}

    step, alarm = only(raised(SCENES, rise), "rising_loss")
    assert 1700 < step < 2700
    found = re.search(r"the contrastive loss has been rising: (\S+), and it was 1\.\S+ at step (\S+)\.", alarm.message)
    assert found is not None
    assert 1450 <= int(found[2].replace(",", "")) <= 1650


def test_a_total_that_grows_with_the_weight_of_a_term_is_not_a_rise():
    def ramp(step: int, metrics: dict[str, float]) -> dict[str, float]:
        weight = min(step / 2000, 1.0)
        return {**metrics, "loss": metrics["contrastive"] + 3 * weight * metrics["mixed"]}

    assert not raised(SCENES, ramp)


def test_half_the_throughput_is_raised_but_not_when_another_branch_joins():
    _, alarm = only(raised(SCENES, after(1600, pairs_per_second=120.0)), "slow")
    assert "slowed down to 120 pairs/s" in alarm.message

    def joined(step: int, metrics: dict[str, float]) -> dict[str, float]:
        if step > 1600:
            return {**metrics, "pairs_per_second": 120.0}
        return {name: value for name, value in metrics.items() if not name.startswith("mixed")}

    assert not raised(SCENES, joined)


def test_switched_off_alarms_are_silent_but_still_say_what_stopped_a_run():
    off = AlarmConfig(enabled=False)
    assert not raised(SCENES, after(0, loss=math.nan, segments_in_use=1.0), off)
    assert "not a finite number at step 7" in Alarms(off, SCENES).not_finite(7, "loss").message


def test_every_suggested_setting_exists():
    """Whatever ``--set`` an alarm proposes must be accepted."""
    everything = {
        "gradient_norm": 1e6,
        "logit_scale": 0.5,
        "contrastive": 9.0,
        "segments_in_use": 1.0,
        "mixed_mask_accuracy": 0.25,
        "data_wait_share": 0.9,
        "pairs_per_second": 1.0,
    }
    found = [
        *raised(FULL, after(20_000, **everything)),
        *raised(FULL, after(0, logit_scale=100.0, loss=math.nan, mixed_mask_accuracy=0.99)),
    ]
    kinds = {alarm.kind for _, alarm in found}
    assert len(kinds) == 11
    for _, alarm in found:
        suggested = re.findall(r"--set (\S+?=[^\s,;)]+)", alarm.message)
        assert suggested or alarm.kind == "slow", alarm.kind
        for assignment in suggested:
            FULL.with_overrides([assignment])


@pytest.mark.parametrize(
    ("changes", "accuracy", "said", "unsaid"),
    [
        (["objective.group_size=2"], 0.5, "objective.block=4", "group_size"),
        (
            ["objective.group_size=3", "objective.mixed_per_group=3", "objective.restored.weight=0"],
            0.33,
            "per_group=2",
            "leak",
        ),
        (["objective.block=8"], 0.25, "objective.group_size=2", "objective.block"),
        (["objective.block=8", "objective.group_size=2"], 0.5, "start_step=5000", "easier"),
        (["objective.mixed_group_tokens=mean", "objective.num_contextual_blocks=2"], 0.99, "=learned", "easier"),
    ],
)
def test_suggested_settings_change_something_and_fit_together(
    changes: list[str], accuracy: float, said: str, unsaid: str
):
    run = FULL.with_overrides(changes)
    found = raised(run, after(0, mixed_mask_accuracy=accuracy, mixed=0.2))
    (message,) = [alarm.message for _, alarm in found if alarm.kind.startswith("mixed")]
    assert said in message
    assert unsaid not in message
    suggested = re.findall(r"--set (\S+?=[^\s,;)]+)", message)
    assert run.with_overrides(suggested) != run
