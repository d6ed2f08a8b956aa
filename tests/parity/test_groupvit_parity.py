"""The encoders against ``transformers`` with random weights, and against tensors of the original code."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from parity_kit import KIT_CONFIG
from safetensors.torch import load_file
from transformers import GroupViTModel

from mixreorg.interop.key_maps import from_hf, from_original
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import check_state
from transformers_kit import groupvit_config

TOLERANCE = 1e-5


def reference(config: DualEncoderConfig, seed: int) -> GroupViTModel:
    """A ``transformers`` model of the same architecture with every weight and buffer off its default."""
    torch.manual_seed(seed)
    model = GroupViTModel(groupvit_config(config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = (
                torch.randn(tensor.shape, generator=generator) if tensor.ndim else torch.rand((), generator=generator)
            )
            spread = 0.02 if tensor.ndim > 1 else 0.1
            tensor.add_(spread * (noise.abs() if "running_var" in name else noise))
    return model


def native(config: DualEncoderConfig, state: dict[str, torch.Tensor]) -> DualEncoder:
    model = DualEncoder(config).eval()
    check_state(state, model.state_dict(), "reference")
    model.load_state_dict(state)
    return model


def assert_close(ours: torch.Tensor, theirs: torch.Tensor | npt.NDArray[Any]) -> None:
    expected = torch.as_tensor(theirs).reshape(ours.shape)
    # Of values beyond 1, such as logits, float32 keeps fewer digits behind the point; processors sum in other orders.
    largest = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(ours, expected, atol=TOLERANCE * largest, rtol=0)


SIZES = {
    "tiny": KIT_CONFIG,
    "vits": DualEncoderConfig(),
}


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_equals_transformers(size: str) -> None:
    config = SIZES[size]
    theirs = reference(config, seed=1)
    ours = native(config, from_hf(theirs.state_dict()))
    torch.manual_seed(2)
    images = torch.randn(2, 3, config.image.image_size, config.image.image_size)
    ids = torch.randint(1, config.text.end_id - 1, (3, 12))
    ids[:, 0] = config.text.end_id - 1
    ids[torch.arange(3), torch.tensor([11, 5, 8])] = config.text.end_id
    expected = theirs(input_ids=ids, pixel_values=images, output_attentions=True, output_segmentation=True)
    image, text = ours.encode_image(images), ours.encode_text(ids)
    assert_close(image.image_embedding, expected.image_embeds)
    assert_close(text, expected.text_embeds)
    assert_close(ours.similarity(image.image_embedding, text), expected.logits_per_image)
    assert_close(image.encoding.segment_tokens, expected.vision_model_output.last_hidden_state)
    groupings = grouping_maps(theirs, images)
    for ours_map, theirs_map in zip(image.encoding.assignments, groupings, strict=True):
        assert_close(ours_map.soft, theirs_map)
        assert torch.equal(ours_map.hard.argmax(dim=1), theirs_map.argmax(dim=1))
    assert image.encoding.assignments[0].soft.std() > 1e-4, "a uniform assignment would prove nothing"


def grouping_maps(model: GroupViTModel, images: torch.Tensor) -> list[torch.Tensor]:
    """Soft assignments of both grouping blocks, caught where ``transformers`` computes them."""
    caught: list[torch.Tensor] = []
    hooks = [
        stage.downsample.register_forward_hook(lambda module, inputs, output: caught.append(output[1]))
        for stage in model.vision_model.encoder.stages
        if stage.downsample is not None
    ]
    model.get_image_features(pixel_values=images)
    for hook in hooks:
        hook.remove()
    return caught


@torch.no_grad()
def test_equals_transformers_at_another_size() -> None:
    theirs = reference(KIT_CONFIG, seed=3)
    ours = native(KIT_CONFIG, from_hf(theirs.state_dict()))
    images = torch.randn(1, 3, 160, 160)
    vision = theirs.vision_model
    tokens = vision.embeddings(images, interpolate_pos_encoding=True)
    expected = vision.layernorm(vision.encoder(hidden_states=tokens).last_hidden_state)
    assert_close(ours.encode_image(images).encoding.segment_tokens, expected)


def kit_states(parity: Path) -> dict[str, dict[str, torch.Tensor]]:
    original = torch.load(parity / "groupvit_official_small_modelonly.pth", weights_only=True)["model"]
    return {
        "original": from_original(original),
        "hf": from_hf(load_file(parity / "groupvit_hf_small" / "model.safetensors")),
    }


@pytest.mark.parametrize("source", ["original", "hf"])
@torch.no_grad()
def test_equals_the_original_code(shared: Path, source: str) -> None:
    parity = shared / "parity"
    state = kit_states(parity)[source]
    ours = native(KIT_CONFIG.updated(multi_label="multi_label_logit_scale" in state), state)
    inputs, expected = np.load(parity / "small_inputs.npz"), np.load(parity / "small_outputs.npz")
    image = ours.encode_image(torch.from_numpy(inputs["images"]))
    text = ours.encode_text(torch.from_numpy(inputs["token_ids"]).long())
    assert_close(image.image_embedding, expected["image_embed_norm"])
    assert_close(text, expected["text_embed_norm"])
    assert_close(image.encoding.segment_tokens, expected["segment_tokens"])
    assert_close(ours.image_projector(image.encoding.segment_tokens), expected["segment_embed"])
    assert_close(ours.scale, expected["logit_scale"])
    assert_close(ours.similarity(image.image_embedding, text), expected["similarity"])
    for index, assignment in enumerate(image.encoding.assignments):
        assert_close(assignment.soft, expected[f"attn{index}_soft"])
        assert_close(assignment.hard, expected[f"attn{index}_hard"])
