import pytest
import torch
from pydantic import ValidationError

from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.image_encoder import ImageEncoder, ImageEncoderConfig


def small(**changes: object) -> ImageEncoder:
    torch.manual_seed(0)
    values: dict[str, object] = {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "num_heads": 2,
        "depths": (3, 1, 1),
        "num_group_tokens": (6, 3),
        "num_segments": (5, 4),
        "drop_path": 0.0,
    }
    return ImageEncoder(ImageEncoderConfig.model_validate({**values, **changes}))


@pytest.mark.parametrize(("height", "width", "grid"), [(32, 32, (4, 4)), (64, 40, (8, 5)), (37, 47, (4, 5))])
def test_shapes_at_any_size(height: int, width: int, grid: tuple[int, int]) -> None:
    encoding = small().eval()(torch.randn(2, 3, height, width))
    patches = grid[0] * grid[1]
    assert encoding.grid == grid
    assert encoding.segment_tokens.shape == (2, 4, 32)
    assert encoding.assignments[0].soft.shape == (2, 5, patches)
    assert encoding.assignments[1].soft.shape == (2, 4, 5)
    assert encoding.patch_assignment.shape == (2, 4, patches)
    torch.testing.assert_close(encoding.patch_assignment.sum(dim=1), torch.ones(2, patches))
    assert encoding.assignments[0].hard.sum(dim=1).eq(1).all()


def test_an_image_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="no patch"):
        small()(torch.randn(1, 3, 7, 32))


def test_batched_equals_single() -> None:
    encoder = small().eval()
    images = torch.randn(3, 3, 32, 32)
    together = encoder(images).segment_tokens
    alone = torch.cat([encoder(image[None]).segment_tokens for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_training_noise_is_a_function_of_the_keys() -> None:
    encoder = small(drop_path=0.3).train()
    images = torch.randn(4, 3, 32, 32)
    keys = torch.tensor([11, 22, 33, 44])
    first = encoder(images, keys).segment_tokens
    assert torch.equal(first, encoder(images, keys).segment_tokens)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(first[order], encoder(images[order], keys[order]).segment_tokens, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first, encoder(images, keys + 1).segment_tokens)


def test_hard_assignment_lets_gradients_through() -> None:
    encoder = small().train()
    encoder(torch.randn(2, 3, 32, 32), torch.tensor([1, 2])).pooled.square().sum().backward()
    for stage in (0, 1):
        gradient = encoder.stage(stage).grouping.assign.q_proj.weight.grad  # type: ignore[union-attr]
        assert gradient.abs().max() > 0


def test_local_blocks_keep_windows_apart_until_the_group_tokens_join() -> None:
    encoder = small(num_local_blocks=2, stem="patch").eval()
    state = encoder.begin(torch.randn(1, 3, 32, 32))
    changed = state.with_patches(state.patch_tokens + torch.eye(16)[0][None, :, None])
    local, local_changed = encoder.advance(state, 0, 2), encoder.advance(changed, 0, 2)
    difference = (local.patch_tokens - local_changed.patch_tokens).abs().amax(dim=-1)[0].view(4, 4)
    assert local.group_tokens is None
    assert difference[:2, :2].min() > 0
    assert difference[2:].max() == 0
    assert difference[:, 2:].max() == 0
    joined = encoder.advance(local, 2, 3)
    assert joined.group_tokens is not None
    assert joined.group_tokens.shape == (1, 6, 32)


def test_centred_keys_ignore_what_all_patches_share() -> None:
    grouping = small(centre_keys=True, pre_assign_attention=False).stage(0).grouping
    assert grouping is not None
    queries, tokens = torch.randn(1, 5, 32), torch.randn(1, 9, 32)
    shift = torch.randn(32)
    keys = grouping.assign.k_proj
    plain = grouping.assign._logits(queries, keys(tokens))
    torch.testing.assert_close(plain, grouping.assign._logits(queries, keys(tokens) + shift), atol=1e-5, rtol=1e-5)


def test_cosine_logits_are_bounded_by_their_scale() -> None:
    assign = small(assignment_logits="cosine").stage(0).grouping.assign  # type: ignore[union-attr]
    logits = assign._logits(100 * torch.randn(2, 5, 32), 100 * torch.randn(2, 9, 32))
    assert logits.abs().max() <= 10.0 + 1e-4


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_stems_give_the_same_grid(stem: str) -> None:
    encoder = small(stem=stem)
    assert encoder.begin(torch.randn(1, 3, 40, 56)).grid == (5, 7)


def test_the_patch_tokens_of_a_conv_stem_do_not_see_the_cut_off_border() -> None:
    encoder = small(stem="conv").eval()
    image = torch.randn(1, 3, 40, 56)
    larger = torch.nn.functional.pad(image, (0, 5, 0, 3), value=9.0)
    assert torch.equal(encoder.begin(image).tokens, encoder.begin(larger).tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "width 32 is not a multiple of num_heads 5"),
        ({"image_size": 30}, "not a multiple of patch_size"),
        ({"stem": "conv", "patch_size": 12, "image_size": 36}, "power of two"),
        ({"stem": "conv", "patch_size": 1}, "power of two from 2 on"),
        ({"num_local_blocks": 4}, "exceeds stage 1's depth"),
    ],
)
def test_impossible_architectures_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**change)


def test_group_tokens_start_at_the_configured_spread() -> None:
    tokens = small(num_group_tokens=(64, 3), group_token_std=1.0).stage(0).group_tokens
    assert tokens is not None
    assert tokens.std().item() == pytest.approx(0.88, abs=0.1)  # a normal cut at two standard deviations
    assert small().stage(1).group_tokens.abs().max() == 0  # type: ignore[union-attr]


def test_parts_and_concatenation_of_outputs(tiny_model: DualEncoder) -> None:
    output = tiny_model.eval().encode_image(torch.randn(5, 3, 32, 32))
    again = type(output).concatenate([output.part(0, 2), output.part(2, 5)])
    assert torch.equal(output.image_embedding, again.image_embedding)
    assert torch.equal(output.encoding.patch_assignment, again.encoding.patch_assignment)
