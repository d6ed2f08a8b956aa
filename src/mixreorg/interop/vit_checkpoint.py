"""Vision transformers in timm's key layout (DINO, DeiT, timm itself) as the start of an image encoder.

Layout: ``cls_token``, ``pos_embed`` ``[1, 1 + N, D]``, ``patch_embed.proj.*``, ``blocks.I.{norm1,norm2}.*``,
``blocks.I.attn.{qkv,proj}.*``, ``blocks.I.mlp.{fc1,fc2}.*``, ``norm.*``, ``head.*``.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixreorg.errors import MixreorgError
from mixreorg.interop.checkpoint_files import find_weights, read_state
from mixreorg.models.image_encoder import ImageEncoderConfig

# Number of dimensions of tensors that every such model has.
_ESSENTIAL = {
    "pos_embed": 3,
    "patch_embed.proj.weight": 4,
    "blocks.0.attn.qkv.weight": 2,
    "blocks.0.mlp.fc1.weight": 2,
}
_RULES = (
    (r"patch_embed\.proj\.(weight|bias)", r"image_encoder.patch_embedding.proj.\1"),
    (r"norm\.(weight|bias)", r"image_encoder.norm.\1"),
)
_BLOCK = re.compile(r"blocks\.(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)")


@dataclass(frozen=True)
class ViTWeights:
    """What an image encoder can take from a vision transformer."""

    file: Path
    """The weight file."""
    state: dict[str, Tensor]
    """Tensors by the dual encoder's names; the position embedding has the file's own grid."""
    ignored: tuple[str, ...]
    """Names of the file that have no place: class token, heads."""


def read_vit(source: str | Path, config: ImageEncoderConfig) -> ViTWeights:
    """Read a vision transformer for an image encoder: its blocks go to the three stages in order.

    Args:
        source: a ``.pth`` or safetensors file, or a folder with ``model.safetensors`` or ``pytorch_model.bin``.
        config: the image encoder that will take the weights.

    Raises:
        MixreorgError: nothing there, damaged, holds code, another kind of model, or another architecture.
    """
    file = find_weights(Path(source).expanduser())
    raw = read_state(file)
    lacking = [name for name, ndim in _ESSENTIAL.items() if name not in raw or raw[name].ndim != ndim]
    if lacking:
        is_groupvit = any("group_token" in name for name in raw)
        remedy = "; for a GroupViT take --set initialise.weights=groupvit" if is_groupvit else ""
        raise MixreorgError(f"{file} is not a vision transformer in timm's layout: it lacks {lacking[0]}{remedy}")
    _check_architecture(raw, config, file)
    try:
        raw = _fold_layer_scale(raw)
    except RuntimeError as error:
        raise MixreorgError(f"{file} is damaged: its LayerScale does not fit its layers ({error})") from None
    places = [(stage, block) for stage, depth in enumerate(config.depths) for block in range(depth)]
    state, ignored = {}, []
    for name, tensor in raw.items():
        native = _native_name(name, places)
        if native is not None:
            state[native] = tensor
        elif name != "pos_embed":
            ignored.append(name)
    state["image_encoder.position_embedding"] = _patch_positions(raw["pos_embed"], file)
    return ViTWeights(file, state, tuple(ignored))


def _check_architecture(raw: dict[str, Tensor], config: ImageEncoderConfig, file: Path) -> None:
    patch, depth = raw["patch_embed.proj.weight"], _depth(raw)
    width, patch_size = patch.shape[0], patch.shape[-1]
    hidden = raw["blocks.0.mlp.fc1.weight"].shape[0]
    problems = []
    if config.stem != "patch":
        problems.append("it embeds patches by one convolution: --set model.image.stem=patch")
    if config.patch_size != patch_size:
        problems.append(f"its patches have {patch_size} pixels: --set model.image.patch_size={patch_size}")
    if config.width != width:
        problems.append(f"its width is {width}: --set model.image.width={width}")
    if int(config.width * config.mlp_ratio) != hidden:
        problems.append(f"its MLPs have {hidden} inner units: --set model.image.mlp_ratio={hidden / width:g}")
    if sum(config.depths) != depth:
        problems.append(
            f"it has {depth} blocks and the stages {sum(config.depths)}: choose model.image.depths to match"
        )
    if problems:
        raise MixreorgError(f"{file} does not fit the image encoder: {'; '.join(problems)}")


def _depth(raw: dict[str, Tensor]) -> int:
    return 1 + max(int(match[1]) for match in map(_BLOCK.fullmatch, raw) if match)


def _native_name(name: str, places: list[tuple[int, int]]) -> str | None:
    match = _BLOCK.fullmatch(name)
    if match is not None:
        stage, block = places[int(match[1])]
        part = match[2].replace("attn.", "attention.")
        return f"image_encoder.stages.{stage}.blocks.{block}.{part}.{match[3]}"
    for pattern, replacement in _RULES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return None


def _fold_layer_scale(raw: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply the factors of LayerScale (DINOv2, DeiT III) into the layers before them: the same function."""
    folded = dict(raw)
    for index in range(_depth(raw)):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            gamma = folded.pop(f"blocks.{index}.{scale}.gamma", None)
            for name in (f"blocks.{index}.{layer}.weight", f"blocks.{index}.{layer}.bias"):
                if gamma is not None and name in folded:
                    # [D] factors on [D, D_in] weights and [D] biases
                    folded[name] = torch.einsum("d,d...->d...", gamma, folded[name])
    return folded


def _patch_positions(table: Tensor, file: Path) -> Tensor:
    """Positions ``[1, N, D]`` of the patches; those of class, distillation and register tokens come first."""
    side = math.isqrt(table.shape[1])
    if side == 0:
        raise MixreorgError(f"{file} is damaged: its pos_embed has the shape {tuple(table.shape)}")
    return table[:, table.shape[1] - side * side :]
