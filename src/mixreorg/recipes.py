"""Named training runs: functions that derive from each other. ``mixreorg train --recipe NAME`` runs one."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mixreorg.config import assign, merge, read_config_file
from mixreorg.data.rand_augment import RandAugmentConfig
from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.errors import MixreorgError
from mixreorg.interop.initialise import InitConfig
from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.segment.protocol import Protocol
from mixreorg.train.config import DataConfig, EvaluationConfig, OptimConfig, TrainConfig

CC3M, CC12M, YFCC14M, REDCAPS = 2_891_445, 11_156_203, 14_615_499, 11_866_987
"""Pairs that the authors of GroupViT had of each collection. Steps are counted from these: where links have died
since, the same steps are more epochs of fewer pairs."""

_BATCH = 4096


def groupvit_vits_cc12m() -> TrainConfig:
    """GroupViT ViT-S/16 as published, on CC12M alone: the baseline that MixReorg is compared with.

    224 px, batch 4096, 30 epochs of 11,156,203 pairs, 2 of them warm-up: 81,710 steps. AdamW, peak learning rate
    1.6e-3, weight decay 0.05, RandAugment, colour jitter, erasing. Source: arXiv 2202.11094, section 4, and its
    authors' configuration. That lists colour jitter 0.4 beside RandAugment; the timm transform it was written for
    leaves jitter out in this case (here: ``data.transform.colour_jitter=0``).
    """
    config = TrainConfig(
        recipe="groupvit_vits_cc12m",
        objective=GroupViTConfig(),
        data=DataConfig(transform=ImageTransformConfig(rand_augment=RandAugmentConfig(), erase_probability=0.25)),
        batch_size=_BATCH,
    )
    return _scheduled(config, CC12M, epochs=30, warmup_epochs=2)


def groupvit_vits_gcc_yfcc() -> TrainConfig:
    """GroupViT on CC3M, CC12M and YFCC14M: 30 epochs of 28,663,147 pairs, 209,935 steps of 4096.

    With the multi-label loss on three nouns per caption, as published. The authors took words that a tagger calls
    nouns or verbs; here a word list says what a noun is (``--set data.nouns=...``), and captions with fewer than three
    have fewer positives, where the authors filled up with the caption.
    """
    objective = GroupViTConfig(multi_label=MultiLabelConfig(weight=WeightSchedule()))
    config = groupvit_vits_cc12m().updated(recipe="groupvit_vits_gcc_yfcc", objective=objective)
    return _scheduled(config, CC3M + CC12M + YFCC14M, epochs=30, warmup_epochs=2)


def groupvit_vits_gcc_redcaps() -> TrainConfig:
    """GroupViT on CC3M, CC12M and RedCaps: 30 epochs of 25,914,635 pairs, 189,804 steps of 4096, one loss."""
    config = groupvit_vits_cc12m().updated(recipe="groupvit_vits_gcc_redcaps")
    return _scheduled(config, CC3M + CC12M + REDCAPS, epochs=30, warmup_epochs=2)


def mixreorg_vits_cc12m() -> TrainConfig:
    """The complete MixReorg on the model, data and schedule of ``groupvit_vits_cc12m`` (arXiv 2308.04829)."""
    return groupvit_vits_cc12m().updated(recipe="mixreorg_vits_cc12m", objective=MixReorgConfig())


def finetune_mixreorg_vits() -> TrainConfig:
    """Continue a GroupViT checkpoint with MixReorg: 5 epochs of CC12M, 13,618 steps of 4096, a tenth of the rate.

    The checkpoint is named with ``--set initialise.path=...``. Half an epoch of warm-up lets the new losses settle
    before they move much. No paper gives these values: they are this package's.
    """
    config = mixreorg_vits_cc12m()
    config = config.updated(
        recipe="finetune_mixreorg_vits",
        initialise=InitConfig(weights="groupvit"),
        optim=config.optim.updated(lr=1.6e-4, warmup_lr=4e-7, final_lr=4e-6),
    )
    return _scheduled(config, CC12M, epochs=5, warmup_epochs=0.5)


def finetune_groupvit_vits() -> TrainConfig:
    """The control of ``finetune_mixreorg_vits``: the same checkpoint, data and schedule without mixing."""
    return finetune_mixreorg_vits().updated(recipe="finetune_groupvit_vits", objective=GroupViTConfig())


def on_one_24gb(config: TrainConfig) -> TrainConfig:
    """A full-scale recipe for one card of 24 GB: the same batch, hence the same losses, in chunks.

    In bfloat16 a pair keeps 41 MB for the backward pass with GroupViT and 77 MB with MixReorg: chunks of 256 and 128
    take about 10 GB. The losses over the whole batch keep less, and while no chunk is held.
    """
    chunk = 128 if isinstance(config.objective, MixReorgConfig) else 256
    return config.updated(
        engine=config.engine.updated(chunk=chunk), data=config.data.updated(num_workers=8), checkpoint_every=250
    )


def on_eight_80gb(config: TrainConfig) -> TrainConfig:
    """A full-scale recipe for eight cards of 80 GB: one process and 12 reading processes for each.

    A card's share of 512 pairs keeps 21 GB (MixReorg: 39 GB) for the backward pass, so it needs no chunks.
    """
    return config.updated(data=config.data.updated(num_workers=12))


def _scheduled(config: TrainConfig, pairs: int, *, epochs: float, warmup_epochs: float) -> TrainConfig:
    """Set steps and warm-up to so many visits to each of ``pairs``."""
    warmup_steps = int(warmup_epochs * pairs / config.batch_size)
    return config.updated(
        steps=int(epochs * pairs / config.batch_size), optim=config.optim.updated(warmup_steps=warmup_steps)
    )


def scenes_groupvit() -> TrainConfig:
    """GroupViT in small for scenes of 64 px: minutes on a CPU core.

    Patches are assigned hard, as published: softly, it finds much less (``docs/results.md``).
    """
    return TrainConfig(
        recipe="scenes_groupvit",
        model=DualEncoderConfig(
            image=ImageEncoderConfig(
                image_size=64,
                patch_size=8,
                stem="conv",
                width=128,
                num_heads=4,
                mlp_ratio=2.0,
                depths=(3, 1, 0),
                num_group_tokens=(16, 8),
                num_segments=(16, 8),
                drop_path=0.0,
                init_std=0.05,
                assignment="hard",
                assignment_logits="cosine",
                centre_keys=True,
                group_token_std=1.0,
                pre_assign_attention=False,
            ),
            text=TextEncoderConfig(width=128, depth=1, num_heads=2),
            embed_dim=128,
            projector_hidden=256,
        ),
        objective=GroupViTConfig(),
        optim=OptimConfig(lr=5e-4, warmup_steps=60, warmup_lr=0.0, final_lr=0.0, betas=(0.9, 0.98), clip_norm=1.0),
        data=DataConfig(
            transform=ImageTransformConfig(image_size=64, crop_scale=(0.5, 1.0), flip=True, colour_jitter=0.0),
            num_workers=0,
        ),
        evaluation=EvaluationConfig(every=400, max_images=300),
        protocol=Protocol(name="scenes", short_side=64, window=64, stride=64, whole=True),
        batch_size=64,
        steps=3200,
        precision="auto",
        log_every=50,
        checkpoint_every=400,
    )


def scenes_groupvit_multilabel() -> TrainConfig:
    """``scenes_groupvit`` with the multi-label loss; ``--set data.nouns=SCENES/VOC`` names the world's classes.

    A batch has every class several times, so equal nouns count as positives of each other's images, and a small
    vocabulary knows the words of one template alone.
    """
    nouns = MultiLabelConfig(weight=WeightSchedule(), templates="simple", repeated_nouns="positive")
    return scenes_groupvit().updated(recipe="scenes_groupvit_multilabel", objective=GroupViTConfig(multi_label=nouns))


def scenes_mixreorg() -> TrainConfig:
    """MixReorg in small: mixed patches from the embedding on, mixed probabilities over the batch's texts.

    One mixed image of each group of four: what the other three would cost is better spent on further pairs
    (``docs/results.md``). Restoration needs all four: ``--set objective.mixed_per_group=null``. Patches are assigned
    softly, which was a little better here than hard.
    """
    base = scenes_groupvit()
    return base.updated(
        recipe="scenes_mixreorg",
        model=base.model.updated(image=base.model.image.updated(assignment="soft")),
        objective=MixReorgConfig(
            num_contextual_blocks=0,
            group_size=4,
            mixed_per_group=1,
            block=2,
            combine="none",
            mixed=WeightSchedule(weight=1.0),
            restored=WeightSchedule(weight=0.0),
        ),
    )


def scenes_mixreorg_multilabel() -> TrainConfig:
    """``scenes_mixreorg`` with the multi-label loss of ``scenes_groupvit_multilabel``, and like it assigned hard."""
    base = scenes_groupvit_multilabel()
    objective = scenes_mixreorg().objective.updated(multi_label=base.objective.multi_label)
    return base.updated(recipe="scenes_mixreorg_multilabel", objective=objective)


def scenes_mixreorg_contextual() -> TrainConfig:
    """``scenes_mixreorg_multilabel`` with contextual mixing: patches are mixed after two of stage 1's three blocks.

    These two attend inside the mixing unit alone. What is mixed then carries no mark of its image, by which the mixed
    loss could be solved without finding anything, and a mixed image costs one block of stage 1 instead of three. It
    has as much mIoU without background, and less with it (``docs/findings.md``).
    """
    base = scenes_mixreorg_multilabel()
    image = base.model.image.updated(num_local_blocks=2, local_window=2)
    return base.updated(
        recipe="scenes_mixreorg_contextual",
        model=base.model.updated(image=image),
        objective=base.objective.updated(num_contextual_blocks=image.num_local_blocks),
    )


def scenes_mixreorg_both_sides() -> TrainConfig:
    """``scenes_mixreorg_multilabel`` whose nouns look for their mixed patches as well.

    For captions that name things and what is behind them: names then stay with what they name (``docs/results.md``).
    The texts' side and the multi-label loss weigh 3, and every image of a group is mixed, which costs a quarter more
    and pays here.
    """
    base = scenes_mixreorg_multilabel()
    objective = base.objective.updated(
        mixed_per_group=None,
        text_to_patch=WeightSchedule(weight=3.0),
        text_to_patch_texts="nouns",
        multi_label=base.objective.multi_label.updated(weight=WeightSchedule(weight=3.0)),
    )
    return base.updated(recipe="scenes_mixreorg_both_sides", objective=objective)


_FULL_SCALE = (
    groupvit_vits_cc12m,
    groupvit_vits_gcc_yfcc,
    groupvit_vits_gcc_redcaps,
    mixreorg_vits_cc12m,
    finetune_mixreorg_vits,
    finetune_groupvit_vits,
)
_SCENES = (
    scenes_groupvit,
    scenes_groupvit_multilabel,
    scenes_mixreorg,
    scenes_mixreorg_multilabel,
    scenes_mixreorg_contextual,
    scenes_mixreorg_both_sides,
)
_MACHINES = {"24gb": on_one_24gb, "8x80gb": on_eight_80gb}


def _fitted(full_scale: Callable[[], TrainConfig], machine: str) -> TrainConfig:
    """A full-scale recipe on one of the machines, under its own name."""
    return _MACHINES[machine](full_scale()).updated(recipe=f"{full_scale.__name__}_{machine}")


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    **{function.__name__: function for function in (*_FULL_SCALE, *_SCENES)},
    **{
        f"{function.__name__}_{machine}": partial(_fitted, function, machine)
        for function in _FULL_SCALE
        for machine in _MACHINES
    },
}
"""Every named recipe; a new one is a function above and its name here. Full-scale ones also exist per machine."""


def recipe(name: str) -> TrainConfig:
    """Build the configuration of a named recipe.

    Raises:
        MixreorgError: no such recipe; the nearest name is given.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(RECIPES)}"
        raise MixreorgError(f"no recipe is called {name!r}; {hint}")
    return RECIPES[name]()


def configure(
    name: str | None, file: Path | None, changes: Mapping[str, Any], assignments: Sequence[str]
) -> TrainConfig:
    """The configuration that a command line stands for, checked once all of it is known.

    Args:
        name: of the recipe to begin with; None for the defaults.
        file: YAML or JSON that is laid over it, if any.
        changes: nested values that are laid over both.
        assignments: as for :func:`~mixreorg.config.assign`; they come last.

    Raises:
        MixreorgError: no such recipe, an unreadable file, unknown keys, or values that do not fit.
    """
    values = (recipe(name) if name is not None else TrainConfig()).to_dict()
    if file is not None:
        values = merge(values, read_config_file(file))
    values = assign(merge(values, changes), assignments, TrainConfig)
    return TrainConfig.from_dict(values, source=f"{file or name}{' with --set' if assignments else ''}")
