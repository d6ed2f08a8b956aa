"""The same weights as others lay them out."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GroupViTModel

from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from transformers_kit import groupvit_config

_ORIGINAL_NAMES = (
    (r"^image_encoder\.position_embedding$", "img_encoder.pos_embed"),
    (r"^image_encoder\.patch_embedding", "img_encoder.patch_embed"),
    (r"^image_encoder\.stages", "img_encoder.layers"),
    (r"^image_encoder", "img_encoder"),
    (r"^image_projector", "img_projector"),
    (r"^text_encoder\.position_embedding$", "text_encoder.positional_embedding"),
    (r"^text_encoder\.norm", "text_encoder.ln_final"),
    (r"^text_encoder\.blocks", "text_encoder.transformer.resblocks"),
    (r"(resblocks\.\d+)\.norm(\d)", r"\1.ln_\2"),
    (r"(resblocks\.\d+)\.attention\.qkv\.(weight|bias)", r"\1.attn.in_proj_\2"),
    (r"(resblocks\.\d+)\.attention\.proj", r"\1.attn.out_proj"),
    (r"(resblocks\.\d+)\.mlp\.fc1", r"\1.mlp.c_fc"),
    (r"(resblocks\.\d+)\.mlp\.fc2", r"\1.mlp.c_proj"),
    (r"projector\.hidden", "projector.linear_hidden.0"),
    (r"projector\.norm", "projector.linear_hidden.1"),
    (r"projector\.out", "projector.linear_out"),
    (r"(layers\.\d\.blocks\.\d+)\.attention", r"\1.attn"),
    (r"\.group_tokens$", ".group_token"),
    (r"\.grouping\.norm_tokens", ".downsample.norm_x"),
    (r"\.grouping\.norm_groups", ".downsample.norm_tokens"),
    (r"\.grouping\.norm_queries", ".downsample.norm_post_tokens"),
    (r"\.grouping\.norm_segments", ".downsample.norm_new_x"),
    (r"\.grouping\.group_mlp", ".downsample.mlp_inter"),
    (r"\.grouping\.channel_mlp", ".downsample.mlp_channels"),
    (r"\.grouping\.pre_assign\.attention", ".downsample.pre_assign_attn.attn"),
    (r"\.grouping\.pre_assign", ".downsample.pre_assign_attn"),
    (r"\.grouping", ".downsample"),
)


@pytest.fixture
def original_state() -> Callable[[DualEncoder], dict[str, Tensor]]:
    """Name a model's tensors as the original code does (METHOD, key layout), with its second logit scale."""

    def convert(model: DualEncoder) -> dict[str, Tensor]:
        state = {"multi_label_logit_scale": torch.tensor(2.0)}
        for name, tensor in model.state_dict().items():
            new = name
            for pattern, replacement in _ORIGINAL_NAMES:
                new = re.sub(pattern, replacement, new)
            if re.search(r"projector\.linear_(hidden\.0|out)\.weight$", new):
                tensor = tensor[..., None]
            state[new] = tensor.reshape(()) if new.endswith("logit_scale") else tensor
        return state

    return convert


@pytest.fixture
def theirs(tiny_config: DualEncoderConfig) -> GroupViTModel:
    """A random ``transformers`` model of the tiny architecture; no tensor is at its default."""
    torch.manual_seed(3)
    model = GroupViTModel(groupvit_config(tiny_config)).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                noise = 0.05 * torch.randn(tensor.shape)
                tensor.add_(noise.abs() if "running_var" in name else noise)
    return model


@pytest.fixture
def their_folder(theirs: GroupViTModel, tmp_path: Path) -> Path:
    """That model as ``transformers`` saves it."""
    theirs.save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"
