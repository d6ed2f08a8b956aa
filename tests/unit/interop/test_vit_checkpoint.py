from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mixreorg.errors import MixreorgError
from mixreorg.interop.initialise import InitConfig, initialise
from mixreorg.interop.vit_checkpoint import read_vit
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig

WIDTH, DEPTH, HEADS = 32, 5, 2


def vit_state(grid: int = 4, extra: int = 1, patch: int = 8, depth: int = DEPTH) -> dict[str, Tensor]:
    """Random weights in timm's layout, everything off its default."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, extra + grid * grid, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, patch, patch),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "head.weight": (10, WIDTH),
        "head.bias": (10,),
    }
    for index in range(depth):
        layers = {"norm1": (WIDTH,), "norm2": (WIDTH,), "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
        layers |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        for layer, shape in layers.items():
            shapes |= {f"blocks.{index}.{layer}.weight": shape, f"blocks.{index}.{layer}.bias": shape[:1]}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def reference_blocks(state: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """The blocks and the final norm of the vision transformer on tokens ``[B, T, D]``, from its definition."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"])

    for index in range(DEPTH):
        block = f"blocks.{index}"
        scales = [state.get(f"{block}.ls{part}.gamma", torch.ones(WIDTH)) for part in (1, 2)]
        queries, keys, values = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", tokens)).chunk(3, dim=-1)
        heads = []
        for q, k, v in zip(*(x.split(WIDTH // HEADS, dim=-1) for x in (queries, keys, values)), strict=True):
            heads.append((q @ k.transpose(1, 2) * (WIDTH // HEADS) ** -0.5).softmax(dim=-1) @ v)
        tokens = tokens + scales[0] * linear(f"{block}.attn.proj", torch.cat(heads, dim=-1))
        hidden = F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", tokens)))
        tokens = tokens + scales[1] * linear(f"{block}.mlp.fc2", hidden)
    return norm("norm", tokens)


def start(model: DualEncoder, state: dict[str, Tensor], folder: Path) -> str:
    torch.save({"teacher": {f"backbone.{name}": tensor for name, tensor in state.items()}}, folder / "vit.pth")
    report = initialise(model, InitConfig(weights="vit", path=str(folder / "vit.pth")))
    assert report is not None
    return report.summary()


@pytest.mark.parametrize("layer_scale", [False, True])
@torch.no_grad()
def test_the_stages_blocks_compute_what_the_vit_computes(
    tiny_model: DualEncoder, tmp_path: Path, layer_scale: bool
) -> None:
    state = vit_state()
    if layer_scale:
        state |= {f"blocks.{index}.ls{part}.gamma": torch.rand(WIDTH) for index in range(DEPTH) for part in (1, 2)}
    start(tiny_model, state, tmp_path)
    encoder = tiny_model.eval().image_encoder
    images = torch.randn(2, 3, 32, 32)
    patches = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=8)
    patches = patches.flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder.patch_embedding.proj(images).flatten(2).transpose(1, 2), patches)
    tokens = patches + state["pos_embed"][:, 1:]
    torch.testing.assert_close(patches + encoder.positions((4, 4)), tokens)
    expected = reference_blocks(state, tokens)
    for stage in range(3):
        for block in encoder.stage(stage).blocks:
            tokens = block(tokens)
    torch.testing.assert_close(encoder.norm(tokens), expected, atol=1e-5, rtol=1e-5)


def test_the_account(tiny_model: DualEncoder, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    summary = start(tiny_model, vit_state(grid=2), tmp_path)
    loaded = 5 + 12 * DEPTH
    assert f"loaded {loaded} of {len(before)} tensors" in summary
    assert "resized: image_encoder.position_embedding 2x2 -> 4x4" in summary
    left = next(line for line in summary.splitlines() if line.startswith("left as initialised"))
    for name in ("text_encoder.*", "image_projector.*", "logit_scale", "image_encoder.stages.0.grouping.*"):
        assert name in left
    assert "blocks" not in left
    assert "ignored: cls_token, head.* (2)" in summary
    for name, tensor in tiny_model.state_dict().items():
        if name.startswith(("text_", "image_projector.", "image_encoder.stages.0.group")):
            assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("extra", [0, 1, 2, 5])
def test_positions_of_class_and_distillation_tokens_are_dropped(
    tiny_config: DualEncoderConfig, tmp_path: Path, extra: int
) -> None:
    state = vit_state(extra=extra)
    torch.save({"model": {**state, "dist_token": torch.zeros(1, 1, WIDTH)}}, tmp_path / "deit.pth")
    weights = read_vit(tmp_path / "deit.pth", tiny_config.image)
    assert torch.equal(weights.state["image_encoder.position_embedding"], state["pos_embed"][:, extra:])
    assert "dist_token" in weights.ignored


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (3, 1, 0)}, "it has 5 blocks and the stages 4: choose model.image.depths to match"),
        ({"width": 64}, "its width is 32: --set model.image.width=32"),
        ({"patch_size": 16}, "its patches have 8 pixels: --set model.image.patch_size=8"),
        ({"mlp_ratio": 2.0}, "its MLPs have 128 inner units: --set model.image.mlp_ratio=4"),
        ({"stem": "conv"}, "--set model.image.stem=patch"),
    ],
)
def test_another_architecture(
    tiny_config: DualEncoderConfig, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    torch.save(vit_state(), tmp_path / "vit.pth")
    with pytest.raises(MixreorgError, match=message.replace("(", r"\(")):
        read_vit(tmp_path / "vit.pth", tiny_config.image.updated(**changes))


def test_other_models(tiny_config: DualEncoderConfig, tmp_path: Path) -> None:
    torch.save({"model": {"img_encoder.layers.0.group_token": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(MixreorgError, match=r"lacks pos_embed; for a GroupViT take --set initialise\.weights=groupvit"):
        read_vit(tmp_path / "other.pth", tiny_config.image)
    state = vit_state()
    del state["blocks.0.mlp.fc1.weight"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(MixreorgError, match=r"not a vision transformer in timm's layout: it lacks blocks\.0\.mlp"):
        read_vit(tmp_path / "other.pth", tiny_config.image)


def test_twelve_blocks_fill_the_published_stages_in_order(tiny_config: DualEncoderConfig, tmp_path: Path) -> None:
    state = vit_state(depth=12)
    torch.save(state, tmp_path / "vit.pth")
    weights = read_vit(tmp_path / "vit.pth", tiny_config.image.updated(depths=(6, 3, 3)))
    for index, place in (
        (0, "0.blocks.0"),
        (5, "0.blocks.5"),
        (6, "1.blocks.0"),
        (9, "2.blocks.0"),
        (11, "2.blocks.2"),
    ):
        ours = weights.state[f"image_encoder.stages.{place}.mlp.fc1.weight"]
        assert torch.equal(ours, state[f"blocks.{index}.mlp.fc1.weight"])
