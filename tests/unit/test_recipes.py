import ast
from pathlib import Path

import pytest
from pydantic import BaseModel

from mixreorg.errors import MixreorgError
from mixreorg.interop.initialise import initialise
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.recipes import RECIPES, configure, recipe
from mixreorg.train.config import DataConfig, TrainConfig
from mixreorg.train.planning.costs import Numerics
from mixreorg.train.planning.flops import encoder_costs, loss_costs


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete_and_named(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("mixed", "plain"),
    [
        ("mixreorg_vits_cc12m", "groupvit_vits_cc12m"),
        ("finetune_mixreorg_vits", "finetune_groupvit_vits"),
        ("scenes_mixreorg_multilabel", "scenes_groupvit_multilabel"),
        ("scenes_mixreorg_both_sides", "scenes_mixreorg_multilabel"),
    ],
)
def test_mixreorg_recipes_change_nothing_but_the_objective(mixed: str, plain: str) -> None:
    assert changed(mixed, plain) == {"recipe", "objective"}


def test_the_small_recipes_assign_patches_as_each_does_best() -> None:
    mixed, plain = recipe("scenes_mixreorg"), recipe("scenes_groupvit")
    assert (mixed.model.image.assignment, plain.model.image.assignment) == ("soft", "hard")
    assert changed("scenes_mixreorg", "scenes_groupvit") == {"recipe", "objective", "model"}
    assert mixed.model.updated(image=mixed.model.image.updated(assignment="hard")) == plain.model


def test_the_contextual_recipe_mixes_after_blocks_that_see_their_mixing_unit_alone() -> None:
    assert changed("scenes_mixreorg_contextual", "scenes_mixreorg_multilabel") == {"recipe", "objective", "model"}
    image, objective = recipe("scenes_mixreorg_contextual").model.image, recipe("scenes_mixreorg_contextual").objective
    assert isinstance(objective, MixReorgConfig)
    assert (image.num_local_blocks, image.local_window) == (2, objective.block)
    assert objective.num_contextual_blocks == image.num_local_blocks < image.depths[0]


def test_the_multi_label_loss_is_where_it_was_published_and_in_four_small_recipes() -> None:
    with_loss = {name for name in RECIPES if recipe(name).objective.multi_label.is_on}
    assert with_loss == {
        "groupvit_vits_gcc_yfcc",
        "groupvit_vits_gcc_yfcc_24gb",
        "groupvit_vits_gcc_yfcc_8x80gb",
        "scenes_groupvit_multilabel",
        "scenes_mixreorg_multilabel",
        "scenes_mixreorg_contextual",
        "scenes_mixreorg_both_sides",
    }
    loss = recipe("groupvit_vits_gcc_yfcc").objective.multi_label
    assert (loss.weight.at(0), loss.num_nouns, loss.templates, loss.repeated_nouns) == (1.0, 3, "full", "negative")
    assert changed("scenes_groupvit_multilabel", "scenes_groupvit") == {"recipe", "objective"}


def test_one_recipe_learns_mixed_masks_from_both_sides() -> None:
    config = recipe("scenes_mixreorg_both_sides").objective
    assert isinstance(config, MixReorgConfig)
    assert (config.mixed.weight, config.text_to_patch.weight, config.text_to_patch_texts) == (1.0, 3.0, "nouns")
    assert (config.mixed_per_group, config.multi_label.weight.weight) == (None, 3.0)
    others = {name for name in RECIPES if name != "scenes_mixreorg_both_sides"}
    assert not any(
        getattr(recipe(name).objective, "text_to_patch", WeightSchedule(weight=0.0)).weight for name in others
    )


def test_a_command_line_is_checked_as_a_whole(tmp_path: Path) -> None:
    file, kind = tmp_path / "run.yaml", tmp_path / "kind.yaml"
    file.write_text("checkpoint_every: 400\nevaluation: {root: VOC, split: test}\n")
    kind.write_text("objective: {kind: groupvit}\n")
    # 1000, the default, is no multiple of 400: neither the file nor the folder fits before the interval is known.
    for flags in ({}, {"evaluation": {"root": "VOC"}}):
        config = configure("scenes_mixreorg", file, flags, ["evaluation.every=800"])
        assert (config.evaluation.root, config.evaluation.split, config.evaluation.every) == ("VOC", "test", 800)
    with pytest.raises(MixreorgError, match=r"run\.yaml with --set: .*evaluation.every 900 must be a multiple"):
        configure(None, file, {}, ["evaluation.every=900"])
    config = configure(None, kind, {"data": {"train": ["a.tar"]}}, ["objective.multi_label.weight.weight=0.5"])
    expected = TrainConfig(objective=GroupViTConfig(), data=DataConfig(train=("a.tar",)))
    assert config == expected.with_overrides(["objective.multi_label.weight.weight=0.5"])


def changed(first: str, second: str) -> set[str]:
    """Sections in which two recipes differ."""
    one, other = recipe(first).to_dict(), recipe(second).to_dict()
    return {key for key in one if one[key] != other[key]}


@pytest.mark.parametrize(
    ("name", "pairs", "steps"),
    [
        ("groupvit_vits_cc12m", 11_156_203, 81_710),
        ("mixreorg_vits_cc12m", 11_156_203, 81_710),
        ("groupvit_vits_gcc_yfcc", 2_891_445 + 11_156_203 + 14_615_499, 209_935),
        ("groupvit_vits_gcc_redcaps", 2_891_445 + 11_156_203 + 11_866_987, 189_804),
    ],
)
def test_full_scale_recipes_have_the_published_values(name: str, pairs: int, steps: int) -> None:
    config = recipe(name)
    image, optim, transform = config.model.image, config.optim, config.data.transform
    assert (image.width, image.depths, image.num_group_tokens, image.num_segments) == (384, (6, 3, 3), (64, 8), (64, 8))
    assert (config.batch_size, config.steps, optim.warmup_steps) == (4096, steps, 2 * pairs // 4096)
    assert config.steps * 4096 == pytest.approx(30 * pairs, abs=4096)
    assert (optim.lr, optim.warmup_lr, optim.final_lr, optim.weight_decay) == (1.6e-3, 4e-6, 4e-5, 0.05)
    assert (optim.betas, optim.eps, optim.clip_norm) == ((0.9, 0.999), 1e-8, 5.0)
    assert (transform.crop_scale, transform.flip, transform.colour_jitter) == ((0.08, 1.0), True, 0.4)
    assert transform.erase_probability == 0.25
    assert transform.rand_augment is not None
    assert (transform.rand_augment.magnitude, transform.rand_augment.magnitude_std) == (9.0, 0.5)
    assert f"{steps:,} steps" in (RECIPES[name].__doc__ or "") or name.startswith("mixreorg")


@pytest.mark.parametrize("name", ["groupvit_vits_gcc_yfcc", "mixreorg_vits_cc12m", "finetune_groupvit_vits"])
def test_recipes_for_smaller_machines_compute_the_same(name: str) -> None:
    for machine in ("24gb", "8x80gb"):
        assert changed(name, f"{name}_{machine}") <= {"recipe", "engine", "data", "checkpoint_every"}
        data = recipe(f"{name}_{machine}").data
        assert data.updated(num_workers=recipe(name).data.num_workers) == recipe(name).data


@pytest.mark.parametrize(("machine", "devices", "gigabytes"), [("24gb", 1, 24), ("8x80gb", 8, 80)])
@pytest.mark.parametrize("name", ["groupvit_vits_gcc_yfcc", "mixreorg_vits_cc12m", "finetune_mixreorg_vits"])
def test_recipes_for_smaller_machines_fit(name: str, machine: str, devices: int, gigabytes: int) -> None:
    config = recipe(f"{name}_{machine}")
    numerics = Numerics.of(config.precision, "cuda")
    share = config.batch_size // devices
    chunk = config.engine.chunk or share
    of_chunk = chunk * sum(cost.saved for cost in encoder_costs(config, numerics).values())
    of_batch = sum(cost.saved for cost in loss_costs(config, numerics, share, config.batch_size).values())
    # Besides: weights, gradients, moments (1 GB), and temporary tensors, for which a quarter is left.
    assert of_chunk + of_batch < 0.75 * gigabytes * 1e9 - 1e9
    assert of_chunk > 0.25 * gigabytes * 1e9, "larger chunks would use the card better"


def test_finetuning_is_shorter_and_gentler_and_asks_for_its_checkpoint(tiny_model: DualEncoder) -> None:
    full, short = recipe("mixreorg_vits_cc12m"), recipe("finetune_mixreorg_vits")
    assert short.optim.lr < full.optim.lr / 5
    assert short.steps == 5 * 11_156_203 // 4096
    assert short.optim.warmup_steps < short.steps / 5
    with pytest.raises(MixreorgError, match=r"starts from a checkpoint .* --set initialise\.path="):
        initialise(tiny_model, short.initialise)
    assert short.with_overrides(["initialise.path=groupvit.pth"]).initialise.weights == "groupvit"
    with pytest.raises(MixreorgError, match=r"there is no checkpoint at groupvit\.pth"):
        initialise(tiny_model, short.with_overrides(["initialise.path=groupvit.pth"]).initialise)


def test_an_unknown_recipe() -> None:
    with pytest.raises(MixreorgError, match="did you mean 'scenes_mixreorg'"):
        recipe("scene_mixreorg")


def sections(model: type[BaseModel]) -> set[tuple[str, str]]:
    """(class, field) of a configuration and of all configurations inside it."""
    found = set()
    for name, field in model.model_fields.items():
        found.add((model.__name__, name))
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                found |= sections(candidate)
    return found


def test_every_configuration_field_is_read_somewhere() -> None:
    source = Path(__file__).parents[2] / "src" / "mixreorg"
    read = {
        node.attr
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    unread = {f"{owner}.{field}" for owner, field in sections(TrainConfig) if field not in read}
    assert unread <= {"GroupViTConfig.kind", "MixReorgConfig.kind"}
