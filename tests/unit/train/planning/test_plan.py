import io
import json

import pytest
from rich.console import Console

from mixreorg.errors import MixreorgError
from mixreorg.recipes import recipe
from mixreorg.train.config import TrainConfig
from mixreorg.train.planning.calibration import StepTime
from mixreorg.train.planning.flops import flops_per_pair
from mixreorg.train.planning.hardware import Peak
from mixreorg.train.planning.memory import estimate_memory
from mixreorg.train.planning.plan import (
    ASSUMED_MFU_HALF,
    USABLE_MEMORY,
    DataFacts,
    Machine,
    Plan,
    known_machine,
    make_plan,
    share_of,
)
from mixreorg.train.planning.report import duration, in_words, print_plan, size

FACTS = DataFacts(pairs=12_000_000, bytes_per_pair=50_000.0, pictures_per_core=500.0, text_length=40)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return recipe("mixreorg_vits_cc12m")


def machine(gib: float | None, devices: int = 1) -> Machine:
    memory = None if gib is None else int(gib * 2**30)
    return Machine("a card", "cuda", devices, memory, Peak(100e12, "data sheet", is_half=True))


def words(plan: Plan) -> str:
    return " ".join(in_words(plan))


def test_time_follows_operations_and_peak(config: TrainConfig) -> None:
    plan = make_plan(config, machine(80, devices=8), FACTS)
    flops = flops_per_pair(config, 4096, devices=8, text_length=40)
    assert plan.step.likely == pytest.approx(512 * flops.total_train / (100e12 * ASSUMED_MFU_HALF))
    assert plan.step.low * 2 == pytest.approx(plan.step.likely)
    assert plan.total.likely == pytest.approx(plan.step.likely * config.steps)
    assert plan.epochs == pytest.approx(config.steps * 4096 / 12e6)


def test_a_given_mfu_is_that_of_the_log(config: TrainConfig) -> None:
    plan = make_plan(config, machine(80, devices=8), FACTS, mfu=0.2)
    rate = 4096 / plan.step.likely / 8
    assert rate * plan.flops.model_train / 100e12 == pytest.approx(0.2)


def test_measured_steps_take_the_place_of_the_assumption(config: TrainConfig) -> None:
    plan = make_plan(config, machine(80, devices=8), FACTS, step_time=StepTime(0.5, 0.01, (8, 16)))
    assert plan.step.likely == pytest.approx(0.5 + 512 * 0.01)
    assert plan.mfu is None
    assert "real steps" in words(plan)


@pytest.mark.parametrize(("gib", "devices"), [(24, 1), (4, 64)])
def test_a_recipe_that_does_not_fit_gets_settings_that_do(config: TrainConfig, gib: int, devices: int) -> None:
    plan = make_plan(config, machine(gib, devices), FACTS)
    assert plan.fits is False
    assert plan.choice is not None
    assert plan.choice.settings in words(plan)
    chosen = config.with_overrides(plan.choice.settings.replace("--set ", "").split())
    memory = estimate_memory(chosen, "cuda", 4096 // devices, devices=devices, text_length=40)
    assert memory.total == pytest.approx(plan.choice.memory)
    assert memory.total <= USABLE_MEMORY * gib * 2**30
    again = make_plan(chosen, machine(gib, devices), FACTS)
    assert again.fits
    # The time that was told is that of the settings that were told.
    assert again.step.likely == pytest.approx(plan.step.likely)


def test_nothing_fits_into_a_gibibyte(config: TrainConfig) -> None:
    plan = make_plan(config, machine(1), FACTS)
    assert plan.choice is None
    assert plan.largest == (0, 0)
    assert "does not fit" in words(plan)


def test_unknown_memory_is_said(config: TrainConfig) -> None:
    plan = make_plan(config, machine(None), FACTS)
    assert plan.fits is None
    assert "does not tell" in words(plan)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_largest_batch_just_fits(config: TrainConfig, checkpointing: bool) -> None:
    plan = make_plan(config, machine(40, devices=4), FACTS)
    engine = config.engine.updated(activation_checkpointing=checkpointing)
    largest = plan.largest[checkpointing]
    totals = [
        estimate_memory(config.updated(engine=engine), "cuda", share, devices=4, text_length=40).total
        for share in (largest, largest + 4)
    ]
    assert totals[0] <= USABLE_MEMORY * 40 * 2**30 < totals[1]


def test_slow_reading_bounds_the_step_and_is_said(config: TrainConfig) -> None:
    slow = DataFacts(pairs=None, bytes_per_pair=50_000.0, pictures_per_core=10.0, text_length=40)
    plan = make_plan(config, machine(80, devices=8), slow)
    assert plan.step.likely == pytest.approx(512 / 10 / config.data.num_workers)
    assert "reading is the bottleneck" in words(plan)
    assert "reading is the bottleneck" not in words(make_plan(config, machine(80, devices=8), FACTS))


def test_reading_in_the_training_process_adds_up() -> None:
    config = recipe("scenes_mixreorg")
    plan = make_plan(config, machine(8), FACTS, step_time=StepTime(0.0, 0.01, (8, 64)))
    assert plan.step.likely == pytest.approx(64 * 0.01 + 64 / 500)


def test_batches_that_cannot_be_shared(config: TrainConfig) -> None:
    assert share_of(config, 8) == 512
    with pytest.raises(MixreorgError, match="--devices 3: the batch of 4096 cannot be shared"):
        make_plan(config, machine(80, devices=3), FACTS)
    with pytest.raises(MixreorgError, match="multiple of 4"):
        share_of(config.updated(batch_size=24), 4)


def test_the_numbers_and_the_page_agree(config: TrainConfig) -> None:
    plan = make_plan(config, known_machine(config, "a100-80", 8), FACTS)
    values = json.loads(json.dumps(plan.to_dict()))
    assert values["machine"]["title"] == "A100 80 GB"
    assert values["data"]["bytes_per_epoch"] == 12_000_000 * 50_000
    assert values["parameters"]["total"] == plan.parameters.total
    assert sum(values["flops_per_pair"]["forward"].values()) == pytest.approx(plan.flops.forward_total)
    console = Console(file=io.StringIO(), width=200)
    print_plan(plan, console)
    page = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{plan.parameters.total / 1e6:.2f}" in page
    assert f"fits: {plan.memory.total / 2**30:.1f} of 79.2 GiB" in page
    assert duration(plan.total.likely) in page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12.3 ms"), (40, "40 s"), (89, "89 s"), (120, "2 minutes"), (5400, "1.5 hours"), (864000, "10 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(6432, "6.43 kB"), (2.5e6, "2.5 MB"), (66e10, "660 GB"), (2e13, "20 TB")])
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text
