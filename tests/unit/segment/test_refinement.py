"""Refinement of class scores against loops over pixels, and that edges of the photo are what they follow."""

import numpy as np
import pytest
from PIL import Image

from mixreorg.segment import refinement
from mixreorg.segment.refinement import GuidedFilter, PixelAdaptiveRefinement, make_refiner

KINDS = ("pamr", "guided")


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def two_halves(size: int = 64, edge: int = 37) -> Image.Image:
    """Dark left of column ``edge``, light from there, both with a little noise."""
    pixels = np.random.default_rng(0).integers(0, 4, (size, size, 3))
    pixels[:, edge:] += 160
    return Image.fromarray(pixels.astype(np.uint8))


def test_pamr_equals_a_loop_over_pixels() -> None:
    image, scores = photo(9, 7), np.random.default_rng(1).random((7, 9), dtype=np.float32)
    dilations, steps = (1, 3), 2
    colors = np.asarray(image, dtype=np.float64) / 255
    offsets = [(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]

    def neighbours(values: np.ndarray, row: int, column: int) -> np.ndarray:
        inside = [(np.clip(row + y, 0, 6), np.clip(column + x, 0, 8)) for y, x in offsets]
        return np.stack([values[position] for position in inside])

    expected = scores.astype(np.float64)
    for _ in range(steps):
        following = np.empty_like(expected)
        for row, column in np.ndindex(7, 9):
            around, centre = neighbours(colors, row, column), colors[row, column]
            deviation = np.concatenate([around, [centre] * len(dilations)]).std(axis=0, ddof=1)
            weights = np.exp((-np.abs(around - centre) / (0.1 * deviation)).mean(axis=1))
            following[row, column] = weights @ neighbours(expected, row, column) / weights.sum()
        expected = following
    refined = PixelAdaptiveRefinement(image, dilations=dilations, steps=steps)(scores)
    np.testing.assert_allclose(refined, expected, atol=1e-4)


@pytest.mark.parametrize("is_grey", [False, True])
def test_the_guided_filter_equals_a_regression_in_every_window(is_grey) -> None:
    image, scores = photo(9, 7), np.random.default_rng(1).random((7, 9), dtype=np.float32)
    image = image.convert("L").convert("RGB") if is_grey else image
    radius, epsilon = 2, 1e-3
    colors = np.asarray(image, dtype=np.float64) / 255

    def window(row: int, column: int) -> tuple[slice, slice]:
        return slice(max(row - radius, 0), row + radius + 1), slice(max(column - radius, 0), column + radius + 1)

    functions = np.empty((7, 9, 4))
    for row, column in np.ndindex(7, 9):
        inside, target = colors[window(row, column)].reshape(-1, 3), scores[window(row, column)].reshape(-1)
        centred = inside - inside.mean(axis=0)
        ridge = centred.T @ centred / len(inside) + epsilon * np.eye(3)
        slopes = np.linalg.solve(ridge, centred.T @ (target - target.mean()) / len(inside))
        functions[row, column] = *slopes, target.mean() - slopes @ inside.mean(axis=0)
    expected = np.empty((7, 9))
    for row, column in np.ndindex(7, 9):
        mean = functions[window(row, column)].reshape(-1, 4).mean(axis=0)
        expected[row, column] = mean[:3] @ colors[row, column] + mean[3]
    refined = GuidedFilter(image, radius=radius / float(np.hypot(7, 9)), epsilon=epsilon)(scores)
    np.testing.assert_allclose(refined, expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_border_moves_to_the_edge_of_the_photo(kind) -> None:
    refine = make_refiner(kind, two_halves())
    assert refine is not None
    scores = np.zeros((64, 64), dtype=np.float32)
    scores[:, 35:] = 1
    truth = np.arange(64) >= 37
    before = ((scores > 0.5) != truth).mean()
    after = ((refine(scores) > 0.5) != truth).mean()
    assert after < 0.6 * before


@pytest.mark.parametrize("kind", KINDS)
def test_classes_refined_alone_still_sum_to_one(kind) -> None:
    refine = make_refiner(kind, photo(40, 30))
    assert refine is not None
    scores = np.random.default_rng(2).dirichlet((1, 1, 1), (30, 40)).astype(np.float32)
    refined = [refine(np.ascontiguousarray(scores[..., index])) for index in range(3)]
    np.testing.assert_allclose(sum(refined), 1, atol=1e-4)
    assert all(values.dtype == np.float32 for values in refined)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (200, 3)])
def test_photos_of_any_shape(kind, size) -> None:
    refine = make_refiner(kind, photo(*size))
    assert refine is not None
    np.testing.assert_allclose(refine(np.full(size[::-1], 0.3, dtype=np.float32)), 0.3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_large_photos_are_refined_at_a_limited_size(kind, monkeypatch) -> None:
    monkeypatch.setattr(refinement, "MAX_PIXELS", 32 * 32)
    refine = make_refiner(kind, two_halves())
    assert refine is not None
    scores = np.zeros((64, 64), dtype=np.float32)
    scores[:, 35:] = 1
    refined = refine(scores)
    assert refined.shape == (64, 64)
    assert ((refined > 0.5) != (np.arange(64) >= 37)).mean() < 2 / 64


def test_nothing_is_prepared_without_refinement() -> None:
    assert make_refiner("none", photo(4, 4)) is None
