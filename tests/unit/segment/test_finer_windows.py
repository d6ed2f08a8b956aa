"""Tiles, mirrored windows, merged segments and refinement: in plans, in the merge, and in the segmenter."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn import functional

from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.class_maps import WindowScores
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.sliding_window import merge_class, merge_windows
from mixreorg.segment.window_plan import Box, plan_windows

PLAIN = Protocol(name="plain", short_side=64, window=64, stride=64, whole=True)
FINER = PLAIN.updated(tile_scales=(1.5, 2), flip=True)
CLASSES = ["dog", "cat", "car", "grass"]


def segmenter_of(model: DualEncoder, protocol: Protocol) -> Segmenter:
    """A segmenter whose class names are embedded as the segments of the photo, one name for each segment."""
    names = Segmenter(model, PLAIN).encode([photo()]).segment_embeddings[0]
    segmenter = Segmenter(model, protocol)
    segmenter.remember(CLASSES, torch.cat([names, -names[:1]]))
    return segmenter


def photo(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)


def test_tiles_have_the_size_of_the_windows_and_cover_every_scale() -> None:
    plan = plan_windows(FINER, 96, 64)
    assert [(scale.height, scale.width) for scale in plan.scales] == [(64, 96), (96, 144), (128, 192)]
    assert [len(scale.boxes) for scale in plan.scales] == [1, 4, 9]
    assert plan.num_windows == 28
    numbers = []
    for scale, members in plan.groups():
        covered = np.zeros((scale.height, scale.width), dtype=int)
        for number, box in members:
            assert (box.bottom - box.top, box.right - box.left) == plan.window_size == (64, 96)
            covered[box.top : box.bottom, box.left : box.right] += 1
            numbers.append(number)
        assert covered.min() >= 2
    assert sorted(numbers) == list(range(28))


def test_tiles_of_sliding_windows_keep_a_narrower_stride() -> None:
    plan = plan_windows(Protocol(name="w", short_side=64, window=32, stride=8, tile_scales=(2,)), 64, 64)
    lefts = [box.left for box in plan.larger[0].boxes if box.top == 0]
    assert lefts == list(range(0, 97, 8))


@pytest.mark.parametrize("scales", [(1.0,), (2, 1.5), (2, 2), (9,), (0.5,), (float("nan"),)])
def test_scales_that_make_no_tiles_are_refused(scales) -> None:
    with pytest.raises(MixreorgError, match="ascending, above 1"):
        PLAIN.updated(tile_scales=scales)


def _random_windows(num_windows: int, size: tuple[int, int], classes: int = 5) -> WindowScores:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(num_windows, 6, classes, generator=generator)
    return WindowScores(torch.randint(6, (num_windows, *size), generator=generator), scores)


def test_scales_are_averaged_after_their_windows() -> None:
    plan = plan_windows(FINER, 90, 64)
    windows = _random_windows(plan.num_windows, plan.window_size)
    pixels = windows.expand()
    total = torch.zeros(5, 70, 100)
    for scale, members in plan.groups():
        summed, count = torch.zeros(5, scale.height, scale.width), torch.zeros(scale.height, scale.width)
        for number, box in members:
            summed[:, box.top : box.bottom, box.left : box.right] += pixels[number]
            count[box.top : box.bottom, box.left : box.right] += 1
        total += functional.interpolate((summed / count)[None], size=(70, 100), mode="bilinear")[0]
    merged = merge_windows(windows, plan, 70, 100)
    assert torch.equal(merged.label_map.long(), total.argmax(0))
    torch.testing.assert_close(merged.best_scores, total.amax(0) / 3)
    torch.testing.assert_close(merge_class(windows, plan, 70, 100, 2), total[2] / 3)


def test_every_class_is_refined_before_the_best_is_taken() -> None:
    plan = plan_windows(PLAIN, 64, 64)
    windows = _random_windows(1, (64, 64))
    merged = merge_windows(windows, plan, 64, 64, lambda scores: scores[:, ::-1].copy())
    plain = merge_windows(windows, plan, 64, 64)
    assert torch.equal(merged.label_map, plain.label_map.flip(-1))
    assert torch.equal(
        merge_class(windows, plan, 64, 64, 1, lambda scores: 2 * scores).amax(), 2 * plain.class_scores[1]
    )


def test_windows_are_encoded_in_the_order_of_the_plan(varied_model: DualEncoder) -> None:
    segmenter, image = Segmenter(varied_model, FINER, window_batch=3), photo(96, 64)
    plan, encoded = plan_windows(FINER, 96, 64), segmenter.encode([image])
    for scale, members in plan.groups():
        pixels = segmenter.prepare(image, scale)
        for number, box in members:
            crop = pixels[:, box.top : box.bottom, box.left : box.right]
            mirrored = number >= plan.num_windows // 2
            with torch.inference_mode():
                alone = varied_model.encode_image((crop.flip(-1) if mirrored else crop)[None])
            torch.testing.assert_close(encoded.image_embedding[number], alone.image_embedding[0], atol=1e-5, rtol=1e-4)
            assignment = alone.encoding.patch_assignment.reshape(3, *alone.encoding.grid)
            expected = assignment.flip(-1) if mirrored else assignment
            found = encoded.encoding.patch_assignment[number].reshape(expected.shape)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tiles", [(), (2,)])
def test_a_mirrored_photo_gets_mirrored_labels(varied_model: DualEncoder, tiles) -> None:
    image = photo()
    protocol = PLAIN.updated(flip=True, tile_scales=tiles)
    labels = segmenter_of(varied_model, protocol)(image, CLASSES).label_map
    mirrored = segmenter_of(varied_model, protocol)(ImageOps.mirror(image), CLASSES).label_map
    assert len(np.unique(labels)) > 1
    assert (labels == mirrored[:, ::-1]).mean() > 0.998
    one_way = [segmenter_of(varied_model, PLAIN)(item, CLASSES).label_map for item in (image, ImageOps.mirror(image))]
    assert (one_way[0] == one_way[1][:, ::-1]).mean() < 0.995


def test_merged_segments_have_one_name(varied_model: DualEncoder) -> None:
    apart, together = (
        Segmenter(varied_model, FINER.updated(segment_similarity=similarity)).encode([photo()]).segment_embeddings
        for similarity in (None, 0.01)
    )
    assert len(torch.unique(together.flatten(end_dim=1), dim=0)) < len(torch.unique(apart.flatten(end_dim=1), dim=0))
    result = Segmenter(varied_model, FINER.updated(segment_similarity=0.01))(photo(), CLASSES)
    assert result.label_map.shape == (64, 64)


@pytest.mark.parametrize("kind", ["pamr", "guided"])
def test_refinement_changes_labels_near_borders_alone(varied_model: DualEncoder, kind) -> None:
    image = photo(80, 72)
    plain = segmenter_of(varied_model, PLAIN)(image, CLASSES).label_map
    refined = segmenter_of(varied_model, PLAIN.updated(refine=kind))(image, CLASSES).label_map
    assert 0 < (plain != refined).mean() < 0.4


def test_one_box_stands_for_both_directions() -> None:
    plan = plan_windows(PLAIN.updated(flip=True), 64, 64)
    assert list(plan.groups()) == [(plan, [(0, Box(0, 0, 64, 64)), (1, Box(0, 0, 64, 64))])]
