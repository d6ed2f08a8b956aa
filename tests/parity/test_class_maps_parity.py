"""Zero-shot decoding against what the original GroupViT code computes (the kit in ``shared/parity``)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity_kit import KIT_CONFIG
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from mixreorg.interop.key_maps import from_hf
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.background_sweep import sweep_background
from mixreorg.segment.class_maps import WindowScores, decode_windows
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.segment.sliding_window import merge_windows
from mixreorg.segment.window_plan import Box, WindowPlan, plan_windows

KIT = Path(__file__).parents[2].parent / "shared" / "parity"
pytestmark = pytest.mark.skipif(not KIT.is_dir(), reason="the parity kit is not there")

GRIDS = {
    "voc": (28, 28),
    "coco": (28, 28),
    "crop": (28, 37),
    "low96": (6, 6),
    "low96x150": (6, 9),
    "low128x112": (8, 7),
}
CLASSES = {"text": "class_text_embedding", "mix": "mix_class_embedding"}
THRESHOLDS = {"bg95": 0.95, "bg35": 0.35, "bg10": 0.1, "nobg": None}
LOGIT_SCALE = float(np.exp(np.float32(4.0)))
# Share of pixels another encoder may put on the other side of a border (measured here: none).
ENCODER_TOLERANCE = 1e-3
CASES = [
    (photo, classes, background)
    for photo in GRIDS
    for classes in CLASSES
    for background in THRESHOLDS
    if (classes, background) != ("mix", "bg10")
]


@pytest.fixture(scope="module")
def kit():
    with np.load(KIT / "small_seg_outputs.npz") as archive:
        yield _Cached(archive)


class _Cached:
    """Arrays of the archive as tensors, each decompressed once."""

    def __init__(self, archive):
        self._archive, self._tensors = archive, {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            self._tensors[name] = torch.from_numpy(self._archive[name])
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._archive


def _decode(
    kit, photo: str, classes: str, threshold: float | None, size: tuple[int, int], scale: float = LOGIT_SCALE
) -> WindowScores:
    class_embeddings = kit[CLASSES[classes]]
    return decode_windows(
        kit[f"{photo}_attn1_soft"][:, 0] @ kit[f"{photo}_attn0_soft"][:, 0],
        GRIDS[photo],
        size,
        functional.normalize(kit[f"{photo}_segment_embed"], dim=-1),
        functional.normalize(kit[f"{photo}_image_embed"], dim=-1),
        class_embeddings,
        torch.arange(len(class_embeddings)),
        logit_scale=scale,
        background_threshold=threshold,
    )


@pytest.mark.parametrize(("photo", "classes", "background"), CASES)
def test_whole_photo_scores_and_labels(kit, photo, classes, background):
    expected = kit[f"{photo}_{classes}_{background}_logits"]
    windows = _decode(kit, photo, classes, THRESHOLDS[background], tuple(expected.shape[-2:]))
    scores = windows.expand()
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    assert torch.equal(scores.argmax(1).byte(), kit[f"{photo}_{classes}_{background}_pred"])


@pytest.mark.parametrize("photo", GRIDS)
def test_segment_map_is_the_originals(kit, photo):
    expected = kit[f"{photo}_group_argmax1"]
    windows = _decode(kit, photo, "mix", None, tuple(expected.shape))
    assert torch.equal(windows.segment_map[0].byte(), expected)


@pytest.mark.parametrize(("photo", "classes", "background"), [c for c in CASES if not c[0].startswith("low")])
def test_labels_at_the_photos_own_size(kit, photo, classes, background):
    name = f"{photo}_{classes}_{background}"
    height, width = kit[f"{name}_logits"].shape[-2:]
    expected = kit[f"{name}_pred_orig_size"]
    windows = _decode(kit, photo, classes, THRESHOLDS[background], (height, width))
    plan = WindowPlan(height, width, (Box(0, 0, height, width),))
    merged = merge_windows(windows, plan, *expected.shape)
    assert torch.equal(merged.label_map.byte(), expected)


@pytest.mark.parametrize("photo", ["voc", "coco", "crop"])
def test_a_sweep_gives_the_originals_labels_at_every_threshold(kit, photo):
    expected = kit[f"{photo}_mix_bg95_pred_orig_size"]
    height, width = kit[f"{photo}_mix_bg95_logits"].shape[-2:]
    windows = _decode(kit, photo, "mix", None, (height, width))
    plan = WindowPlan(height, width, (Box(0, 0, height, width),))
    names = {0.95: "bg95", 0.35: "bg35"}
    foreground, swept = sweep_background(windows, plan, *expected.shape, list(names))
    assert torch.equal(foreground.byte(), kit[f"{photo}_mix_nobg_pred_orig_size"])
    for thresholds, labels in swept:
        for threshold in thresholds:
            assert torch.equal(labels.byte(), kit[f"{photo}_mix_{names[threshold]}_pred_orig_size"])


def test_clamped_logit_scale(kit):
    windows = _decode(kit, "low96", "mix", 0.35, (96, 96), scale=min(float(np.exp(np.float32(5.0))), 100.0))
    torch.testing.assert_close(windows.expand(), kit["low96_mix_bg35_clamped_logits"], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def encoder() -> DualEncoder:
    """Our model with the kit's weights."""
    model = DualEncoder(KIT_CONFIG).eval()
    model.load_state_dict(from_hf(load_file(KIT / "groupvit_hf_small" / "model.safetensors")))
    return model


def _encode(encoder: DualEncoder, windows: Tensor, kit, classes: str, threshold: float | None) -> WindowScores:
    class_embeddings = kit[CLASSES[classes]]
    with torch.no_grad():
        output = encoder.encode_image(windows)
    return decode_windows(
        output.encoding.patch_assignment,
        output.encoding.grid,
        (windows.shape[-2], windows.shape[-1]),
        output.segment_embeddings,
        output.image_embedding,
        class_embeddings,
        torch.arange(len(class_embeddings)),
        logit_scale=float(encoder.scale.detach()),
        background_threshold=threshold,
    )


@pytest.mark.parametrize(
    ("classes", "background"), [("text", "bg35"), ("text", "nobg"), ("mix", "bg35"), ("mix", "nobg")]
)
def test_sliding_windows_with_our_encoder(kit, encoder, classes, background):
    with np.load(KIT / "seg_inputs.npz") as archive:
        photo = torch.from_numpy(archive["crop"])
    plan = plan_windows(groupvit_protocol(), 400, 300)
    assert (plan.height, plan.width) == tuple(photo.shape[-2:])
    crops = torch.cat([photo[..., box.top : box.bottom, box.left : box.right] for box in plan.boxes])
    windows = _encode(encoder, crops, kit, classes, THRESHOLDS[background])
    expected = kit[f"crop_{classes}_{background}_slide_logits"][0]
    whole = merge_windows(windows, plan, plan.height, plan.width)
    assert _different(whole.label_map, expected.argmax(0)) <= ENCODER_TOLERANCE
    torch.testing.assert_close(whole.class_scores, expected.amax((1, 2)), atol=1e-5, rtol=0)
    labels = kit[f"crop_{classes}_{background}_slide_pred_orig_size"]
    assert _different(merge_windows(windows, plan, *labels.shape).label_map, labels) <= ENCODER_TOLERANCE


@pytest.mark.parametrize("photo", ["voc", "coco", "crop"])
@pytest.mark.parametrize("classes", CLASSES)
def test_whole_photos_with_our_encoder(kit, encoder, photo, classes):
    """Also a width that the patch size does not divide: the last columns hold no patch, as in the original."""
    with np.load(KIT / "seg_inputs.npz") as archive:
        pixels = torch.from_numpy(archive[photo])
    scores = _encode(encoder, pixels, kit, classes, THRESHOLDS["bg35"]).expand()
    expected = kit[f"{photo}_{classes}_bg35_logits"]
    torch.testing.assert_close(scores.amax((2, 3)), expected.amax((2, 3)), atol=1e-5, rtol=0)
    assert _different(scores.argmax(1), expected.argmax(1)) <= ENCODER_TOLERANCE


def _different(first: Tensor, second: Tensor) -> float:
    return first.long().ne(second.long()).float().mean().item()
