"""Random boxes: the areas, shapes and places asked for."""

import numpy as np
import pytest

from mixreorg.data.decode import Box
from mixreorg.data.random_box import BOX_NUMBERS, RandomBox
from mixreorg.randomness import numpy_generator

RATIO = (3 / 4, 4 / 3)


def draw(size: tuple[int, int], scale: tuple[float, float], generator: np.random.Generator) -> Box:
    return RandomBox.from_uniform(generator.random(BOX_NUMBERS), scale, RATIO).box(*size)


def test_boxes_have_the_areas_and_shapes_asked_for() -> None:
    generator = numpy_generator(0)
    boxes = np.array([draw((400, 300), (0.08, 1.0), generator) for _ in range(3000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 400
    assert boxes[:, 3].max() <= 300
    areas, ratios = widths * heights / 120000, widths / heights
    assert 0.075 < areas.min() < 0.1
    assert 0.95 < areas.max() <= 1
    assert ratios.min() > 0.72
    assert ratios.max() < 1.36
    small = areas < 0.5  # larger ones are cut off by the edges of the picture
    assert abs(np.log(ratios[small]).mean()) < 0.01
    assert abs(areas[small].mean() - 0.29) < 0.01
    assert {0, 1, 2} <= set(boxes[:, 0].tolist())


@pytest.mark.parametrize(("place", "expected"), [(0.0, (0, 0, 4, 4)), (0.9999, (6, 4, 10, 8)), (0.5, (3, 2, 7, 6))])
def test_boxes_reach_every_edge(place: float, expected: Box) -> None:
    box = RandomBox(np.array([0.2]), np.array([1.0]), place, place, RATIO)
    assert box.box(10, 8) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506)), ((1, 1), (0, 0, 1, 1))]
)
def test_pictures_too_long_for_any_box_give_their_centre(size: tuple[int, int], expected: Box) -> None:
    assert draw(size, (1.0, 1.0), numpy_generator(0)) == expected


def test_a_box_keeps_its_place_in_a_larger_picture() -> None:
    box = RandomBox.from_uniform(numpy_generator(3).random(BOX_NUMBERS), (0.1, 0.3), RATIO)
    assert np.array(box.box(800, 600)) == pytest.approx(2 * np.array(box.box(400, 300)), abs=2)
