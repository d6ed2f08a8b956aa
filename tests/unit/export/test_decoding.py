"""Decoding and resizing in numpy against the same steps in torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mixreorg.export import decoding
from mixreorg.segment import class_maps, sliding_window
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.resize import resize_bilinear, resize_photo
from mixreorg.segment.window_plan import plan_windows

SIZES = [((30, 40), (45, 60)), ((60, 40), (40, 27)), ((7, 5), (50, 33)), ((200, 3), (20, 1)), ((1, 1), (4, 4))]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_resizing_is_torchs(old, new) -> None:
    values = np.random.default_rng(0).random((2, 3, *old), dtype=np.float32)
    expected = F.interpolate(torch.from_numpy(values), size=new, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize_bilinear(values, new), expected.numpy(), atol=1e-6)


def test_photos_are_rounded_to_8_bits_and_left_alone_at_their_own_size() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    assert (resize_photo(photo, 30, 40) == pixels.transpose(2, 0, 1)).all()
    resized = F.interpolate(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), size=(20, 27), mode="bilinear")
    assert resize_photo(photo, 20, 27).dtype == np.uint8
    assert np.abs(resize_photo(photo, 20, 27) - resized[0].numpy()).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("background", [None, 0.3])
@pytest.mark.parametrize("size", [(64, 64), (100, 75), (33, 90)])
def test_windows_become_the_same_labels(size, background) -> None:
    generator = torch.Generator().manual_seed(2)
    plan = plan_windows(Protocol(name="test", short_side=64, window=64, stride=32), *size)
    box, count = plan.boxes[0], len(plan.boxes)
    grid = ((box.bottom - box.top) // 8, (box.right - box.left) // 8)
    assignment = torch.rand(count, 5, grid[0] * grid[1], generator=generator).softmax(dim=1)
    segments = F.normalize(torch.randn(count, 5, 16, generator=generator), dim=-1)
    images = F.normalize(torch.randn(count, 16, generator=generator), dim=-1)
    owners = (0, 1, 1, 2, 3, 3, 3, 4, 5, 6)
    classes = F.normalize(torch.randn(len(owners), 16, generator=generator), dim=-1)
    window = (box.bottom - box.top, box.right - box.left)
    theirs = class_maps.decode_windows(
        assignment,
        grid,
        window,
        segments,
        images,
        classes,
        torch.tensor(owners),
        logit_scale=20.0,
        shortlist=3,
        background_threshold=background,
    )
    scores = decoding.score_segments(
        segments.numpy(), images.numpy(), classes.numpy(), owners, logit_scale=20.0, shortlist=3
    )
    if background is not None:
        scores = decoding.with_background(scores, background)
    np.testing.assert_allclose(scores, theirs.segment_scores.numpy(), atol=1e-6)
    segment_map = decoding.map_segments(assignment.reshape(count, 5, *grid).numpy(), window)
    assert (segment_map == theirs.segment_map.numpy()).all()
    labels, best = decoding.merge_windows(decoding.WindowScores(segment_map, scores), plan, size[1], size[0])
    merged = sliding_window.merge_windows(theirs, plan, size[1], size[0])
    assert (labels == merged.label_map.numpy()).all()
    np.testing.assert_allclose(best, merged.class_scores.numpy(), atol=1e-6)
