"""The architecture of a GroupViT, read from the shapes of its tensors (native names)."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig

State = Mapping[str, Tensor]

HEAD_WIDTH = 64
"""Width of one attention head in every published model; head counts leave no trace in the tensors."""


def infer_config(
    state: State,
    unseen: DualEncoderConfig,
    source: str,
    told: Mapping[str, Mapping[str, Any]] | None = None,
    told_by: str | None = None,
) -> DualEncoderConfig:
    """Infer the configuration of a model from its state.

    Args:
        state: tensors by native name.
        unseen: what tensors do not show (activation, options of the assignment, drop path) is taken from here, and
            so are head counts where the width is the same; elsewhere heads are 64 wide.
        source: what errors call the origin of the tensors.
        told: fields of ``image`` and ``text`` that are known from elsewhere; they come before ``unseen``.
        told_by: the file that ``told`` was read from, if any.

    Raises:
        MixreorgError: a tensor that every GroupViT has is missing or has an impossible shape, or ``told`` does not fit.
    """
    told = told or {}
    try:
        _require_values(state)
        image = {**_image_fields(state, unseen.image), **told.get("image", {})}
        text = {**_text_fields(state, unseen.text), **told.get("text", {})}
        embed_dim, projected = state["image_projector.out.weight"].shape
        return unseen.updated(
            image=unseen.image.updated(**image),
            text=unseen.text.updated(**text),
            embed_dim=embed_dim,
            projector_hidden=projected if "image_projector.hidden.weight" in state else 0,
            multi_label="multi_label_logit_scale" in state,
        )
    except KeyError as error:
        raise MixreorgError(f"{source} is not a whole GroupViT: it lacks {error.args[0]}") from None
    except (ValueError, IndexError, MixreorgError) as error:
        if told_by is not None:
            # Fails where the tensors are at fault.
            infer_config(state, unseen, source)
            raise MixreorgError(
                f"{told_by} does not fit {source}: {error}; restore it, or remove it to go by the tensors alone"
            ) from None
        raise MixreorgError(f"{source} is damaged or not a GroupViT: {error}") from None


def side_of_grid(num_patches: int) -> int:
    """Side of the square grid of ``num_patches`` positions.

    Raises:
        ValueError: no square.
    """
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(f"the position embedding has {num_patches} positions, which make no square")
    return side


def _require_values(state: State) -> None:
    empty = next((name for name, tensor in state.items() if not tensor.numel()), None)
    if empty is not None:
        raise ValueError(f"{empty} has shape {tuple(state[empty].shape)} and holds nothing")


def _image_fields(state: State, unseen: ImageEncoderConfig) -> dict[str, Any]:
    _, num_patches, width = state["image_encoder.position_embedding"].shape
    stem, patch_size = _stem(state)
    depths = tuple(_depth(state, f"image_encoder.stages.{index}.blocks") for index in range(3))
    stages = [f"image_encoder.stages.{index}" for index in range(2)]
    hidden = state["image_encoder.stages.0.grouping.channel_mlp.fc1.weight"].shape[0]
    return {
        "image_size": side_of_grid(num_patches) * patch_size,
        "patch_size": patch_size,
        "stem": stem,
        "width": width,
        "num_heads": _num_heads(width, unseen),
        "mlp_ratio": _mlp_ratio(width, hidden, unseen),
        "depths": depths,
        "num_group_tokens": tuple(state[f"{stage}.group_tokens"].shape[1] for stage in stages),
        "num_segments": tuple(state[f"{stage}.grouping.group_mlp.fc2.weight"].shape[0] for stage in stages),
        "assignment_logits": "cosine" if "image_encoder.stages.0.grouping.assign.cosine_scale" in state else "dot",
        "pre_assign_attention": "image_encoder.stages.0.grouping.pre_assign.norm_post.weight" in state,
        "num_local_blocks": min(unseen.num_local_blocks, depths[0]),
    }


def _text_fields(state: State, unseen: TextEncoderConfig) -> dict[str, Any]:
    vocab_size, width = state["text_encoder.token_embedding.weight"].shape
    depth = _depth(state, "text_encoder.blocks")
    hidden = state["text_encoder.blocks.0.mlp.fc1.weight"].shape[0] if depth else int(width * unseen.mlp_ratio)
    return {
        "vocab_size": vocab_size,
        "context_length": state["text_encoder.position_embedding"].shape[0],
        "width": width,
        "depth": depth,
        "num_heads": _num_heads(width, unseen),
        "mlp_ratio": _mlp_ratio(width, hidden, unseen),
        # CLIP's tokenizer, and ours after it, gives the end of a text the highest id.
        "end_id": vocab_size - 1,
    }


def _stem(state: State) -> tuple[str, int]:
    prefix = "image_encoder.patch_embedding.proj."
    if f"{prefix}0.weight" in state:
        count = sum(bool(re.fullmatch(rf"{re.escape(prefix)}\d+\.weight", name)) for name in state)
        return "conv", 2**count
    return "patch", state[f"{prefix}weight"].shape[-1]


def _depth(state: State, prefix: str) -> int:
    matches = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in state)
    found = {match[1] for match in matches if match}
    # A stray name must not make a model of a million blocks; compared as text, for the number may have any length.
    strays = sorted(found - set(map(str, range(len(found)))))
    if strays:
        raise ValueError(f"{prefix} has a block {strays[0][:20]}, but {len(found)} in all, which are numbered from 0")
    return len(found)


def _num_heads(width: int, unseen: ImageEncoderConfig | TextEncoderConfig) -> int:
    return unseen.num_heads if unseen.width == width else max(width // HEAD_WIDTH, 1)


def _mlp_ratio(width: int, hidden: int, unseen: ImageEncoderConfig | TextEncoderConfig) -> float:
    return unseen.mlp_ratio if int(width * unseen.mlp_ratio) == hidden else hidden / width
