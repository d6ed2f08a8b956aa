"""Names of GroupViT's tensors in the original checkpoints and in ``transformers``, mapped to ours and back.

A map is a list of rewriting rules over key names plus the few layout changes (fused attention projections, 1x1
convolutions). What comes out is loaded strictly: a key that no rule knows stays as it is and is reported there.
No value is changed in either direction, so every round trip gives back the same bits.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]

_GROUPING_RULES: Rules = (
    (r"\.norm_tokens\.", ".norm_groups."),
    (r"\.norm_x\.", ".norm_tokens."),
    (r"\.mlp_inter\.", ".group_mlp."),
    (r"\.norm_post_tokens\.", ".norm_queries."),
    (r"\.pre_assign_attn\.attn\.", ".pre_assign.attention."),
    (r"\.pre_assign_attn\.", ".pre_assign."),
    (r"\.norm_new_x\.", ".norm_segments."),
    (r"\.mlp_channels\.", ".channel_mlp."),
)

HF_RULES: Rules = (
    (r"^vision_model\.embeddings\.position_embeddings$", "image_encoder.position_embedding"),
    (r"^vision_model\.embeddings\.patch_embeddings\.projection\.", "image_encoder.patch_embedding.proj."),
    (r"^vision_model\.embeddings\.layernorm\.", "image_encoder.patch_embedding.norm."),
    (r"^vision_model\.layernorm\.", "image_encoder.norm."),
    (r"^vision_model\.encoder\.stages\.", "image_encoder.stages."),
    (r"^text_model\.embeddings\.token_embedding\.", "text_encoder.token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text_encoder.position_embedding"),
    (r"^text_model\.encoder\.layers\.", "text_encoder.blocks."),
    (r"^text_model\.final_layer_norm\.", "text_encoder.norm."),
    (r"^visual_projection\.", "image_projector."),
    (r"^text_projection\.", "text_projector."),
    (r"^((?:image|text)_projector)\.0\.", r"\1.hidden."),
    (r"^((?:image|text)_projector)\.1\.", r"\1.norm."),
    (r"^((?:image|text)_projector)\.3\.", r"\1.out."),
    (r"(image_encoder\.stages\.\d)\.layers\.", r"\1.blocks."),
    (r"\.group_token$", ".group_tokens"),
    (r"\.downsample\.", ".grouping."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.self_attn\.", ".attention."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.attention\.out_proj\.", ".attention.proj."),
    *_GROUPING_RULES,
)

ORIGINAL_RULES: Rules = (
    (r"^img_encoder\.pos_embed$", "image_encoder.position_embedding"),
    (r"^img_encoder\.patch_embed\.", "image_encoder.patch_embedding."),
    (r"^img_encoder\.norm\.", "image_encoder.norm."),
    (r"^img_encoder\.layers\.", "image_encoder.stages."),
    (r"\.group_token$", ".group_tokens"),
    (r"\.downsample\.", ".grouping."),
    (r"(\.blocks\.\d+)\.attn\.", r"\1.attention."),
    (r"^text_encoder\.positional_embedding$", "text_encoder.position_embedding"),
    (r"^text_encoder\.ln_final\.", "text_encoder.norm."),
    (r"^text_encoder\.transformer\.resblocks\.", "text_encoder.blocks."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.attn\.in_proj_(weight|bias)$", r".attention.qkv.\1"),
    (r"(text_encoder\.blocks\.\d+)\.attn\.out_proj\.", r"\1.attention.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^img_projector\.", "image_projector."),
    (r"\.linear_hidden\.0\.", ".hidden."),
    (r"\.linear_hidden\.1\.", ".norm."),
    (r"\.linear_out\.", ".out."),
    *_GROUPING_RULES,
)

MULTI_LABEL_SCALE = "multi_label_logit_scale"
"""Second logit scale of a model trained with the multi-label loss; inference does not use it."""

# Applied in order: a name that one rule makes must not be what a later one looks for.
_GROUPING_BACK: Rules = (
    (r"\.grouping\.norm_tokens\.", ".grouping.norm_x."),
    (r"\.grouping\.norm_groups\.", ".grouping.norm_tokens."),
    (r"\.grouping\.norm_queries\.", ".grouping.norm_post_tokens."),
    (r"\.grouping\.norm_segments\.", ".grouping.norm_new_x."),
    (r"\.group_mlp\.", ".mlp_inter."),
    (r"\.channel_mlp\.", ".mlp_channels."),
    (r"\.pre_assign\.attention\.", ".pre_assign_attn.attn."),
    (r"\.pre_assign\.", ".pre_assign_attn."),
    (r"\.grouping\.", ".downsample."),
    (r"\.group_tokens$", ".group_token"),
)

TO_HF_RULES: Rules = (
    *_GROUPING_BACK,
    (r"^image_encoder\.position_embedding$", "vision_model.embeddings.position_embeddings"),
    (r"^image_encoder\.patch_embedding\.proj\.", "vision_model.embeddings.patch_embeddings.projection."),
    (r"^image_encoder\.patch_embedding\.norm\.", "vision_model.embeddings.layernorm."),
    (r"^image_encoder\.norm\.", "vision_model.layernorm."),
    (r"^image_encoder\.stages\.(\d)\.blocks\.", r"vision_model.encoder.stages.\1.layers."),
    (r"^image_encoder\.", "vision_model.encoder."),
    (r"^text_encoder\.position_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^text_encoder\.token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^text_encoder\.norm\.", "text_model.final_layer_norm."),
    (r"^text_encoder\.blocks\.", "text_model.encoder.layers."),
    (r"(layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"(layers\.\d+)\.attention\.proj\.", r"\1.self_attn.out_proj."),
    (r"(layers\.\d+)\.attention\.", r"\1.self_attn."),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"^image_projector\.", "visual_projection."),
    (r"^text_projector\.", "text_projection."),
    (r"(projection)\.hidden\.", r"\1.0."),
    (r"(projection)\.norm\.", r"\1.1."),
    (r"(projection)\.out\.", r"\1.3."),
)

TO_ORIGINAL_RULES: Rules = (
    *_GROUPING_BACK,
    (r"^image_encoder\.position_embedding$", "img_encoder.pos_embed"),
    (r"^image_encoder\.patch_embedding\.", "img_encoder.patch_embed."),
    (r"^image_encoder\.stages\.", "img_encoder.layers."),
    (r"^image_encoder\.", "img_encoder."),
    (r"(layers\.\d\.blocks\.\d+)\.attention\.", r"\1.attn."),
    (r"^text_encoder\.position_embedding$", "text_encoder.positional_embedding"),
    (r"^text_encoder\.norm\.", "text_encoder.ln_final."),
    (r"^text_encoder\.blocks\.", "text_encoder.transformer.resblocks."),
    (r"(resblocks\.\d+)\.norm(\d)\.", r"\1.ln_\2."),
    (r"(resblocks\.\d+)\.attention\.qkv\.", r"\1.attn.in_proj_"),
    (r"(resblocks\.\d+)\.attention\.proj\.", r"\1.attn.out_proj."),
    (r"(resblocks\.\d+)\.mlp\.fc1\.", r"\1.mlp.c_fc."),
    (r"(resblocks\.\d+)\.mlp\.fc2\.", r"\1.mlp.c_proj."),
    (r"^image_projector\.", "img_projector."),
    (r"(projector)\.hidden\.", r"\1.linear_hidden.0."),
    (r"(projector)\.norm\.", r"\1.linear_hidden.1."),
    (r"(projector)\.out\.", r"\1.linear_out."),
)


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state of ``transformers.GroupViTModel`` to the native names.

    Separate query, key and value projections of self-attention become one fused tensor.

    Raises:
        KeyError: one of the three is missing.
        ValueError: they have different shapes or types.
    """
    renamed = _rename(state, HF_RULES, ignored=r"\.position_ids$")
    return _fuse_qkv(renamed)


def from_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the ``model`` state of an original GroupViT checkpoint to the native names.

    The projectors' 1x1 convolutions become linear layers. The logit scale of the multi-label loss, which only some
    checkpoints have and inference does not use, has the same name here.
    """
    renamed = _rename(state, ORIGINAL_RULES)
    return {
        name: tensor.squeeze(-1)
        if re.match(r"(image|text)_projector\..*weight$", name) and tensor.ndim == 3
        else tensor
        for name, tensor in renamed.items()
    }


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name native tensors as ``transformers.GroupViTModel`` does: the inverse of :func:`from_hf`."""
    return {_rewrite(name, TO_HF_RULES): _scalar_scale(name, tensor) for name, tensor in _split_qkv(state).items()}


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name native tensors as the original code does: the inverse of :func:`from_original`."""
    return {
        _rewrite(name, TO_ORIGINAL_RULES): tensor[..., None]
        if re.fullmatch(r"(image|text)_projector\.(hidden|out)\.weight", name)
        else _scalar_scale(name, tensor)
        for name, tensor in state.items()
    }


def _scalar_scale(name: str, tensor: Tensor) -> Tensor:
    return tensor.reshape(()) if name.endswith("logit_scale") else tensor


def _split_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`_fuse_qkv`."""
    split = {}
    for name, tensor in state.items():
        if ".attention.qkv." in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                split[name.replace(".qkv.", f".{part}_proj.")] = rows
        else:
            split[name] = tensor
    return split


def _rewrite(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _rename(state: Mapping[str, Tensor], rules: Rules, ignored: str | None = None) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        if ignored is not None and re.search(ignored, name):
            continue
        new = _rewrite(name, rules)
        # Logit scales are scalars in both layouts, and have one element here.
        renamed[new] = tensor.reshape(1) if new.endswith("logit_scale") else tensor
    return renamed


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def _fuse_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join ``attention.{q,k,v}_proj`` of self-attention; cross-attention keeps its three projections."""
    fused = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(.*\.blocks\.\d+\.attention\.)([qkv])_proj\.(weight|bias)", name)
        if match is None:
            fused[name] = tensor
        elif match[2] == "q":
            names = [f"{match[1]}{part}_proj.{match[3]}" for part in "qkv"]
            # Joined they would have the right shape although none of them has, or the type of only one.
            for other in names[1:]:
                if (state[other].shape, state[other].dtype) != (tensor.shape, tensor.dtype):
                    raise ValueError(
                        f"{other} holds {_kind(state[other])}, and {names[0]} {_kind(tensor)}; the two must be alike"
                    )
            fused[f"{match[1]}qkv.{match[3]}"] = torch.cat([state[part] for part in names])
    return fused
