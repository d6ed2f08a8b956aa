"""Named training runs: functions that derive from each other. ``mixreorg train --recipe NAME`` runs one."""

import difflib
from collections.abc import Callable

from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.mixreorg import MixReorgConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.segment.protocol import Protocol
from mixreorg.train.config import DataConfig, EvaluationConfig, OptimConfig, TrainConfig


def groupvit_vits() -> TrainConfig:
    """GroupViT ViT-S/16 as published, but for RandAugment: 224 px, batch 4096, 30 epochs of 12 M pairs."""
    return TrainConfig(
        recipe="groupvit_vits",
        objective=GroupViTConfig(),
        data=DataConfig(transform=ImageTransformConfig(erase_probability=0.25)),
    )


def mixreorg_vits() -> TrainConfig:
    """The complete MixReorg on the same model, data and schedule."""
    return groupvit_vits().updated(recipe="mixreorg_vits", objective=MixReorgConfig())


def scenes_groupvit() -> TrainConfig:
    """GroupViT in small for scenes of 64 px: minutes on a CPU core."""
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
                assignment="soft",
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
        precision="bf16",
        log_every=50,
        checkpoint_every=400,
    )


def scenes_mixreorg() -> TrainConfig:
    """MixReorg in small: mixed patches from the embedding on, mixed probabilities over the batch's texts."""
    return scenes_groupvit().updated(
        recipe="scenes_mixreorg",
        objective=MixReorgConfig(
            num_contextual_blocks=0,
            group_size=4,
            block=2,
            combine="none",
            mixed=WeightSchedule(weight=1.0),
            restored=WeightSchedule(weight=0.0),
        ),
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    function.__name__: function for function in (groupvit_vits, mixreorg_vits, scenes_groupvit, scenes_mixreorg)
}
"""Every named recipe; a new one is a function above and its name here."""


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
