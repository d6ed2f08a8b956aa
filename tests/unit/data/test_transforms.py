"""Image transforms: a function of the generator's key, with the distributions the recipe asks for."""

import numpy as np
import pytest
import torch
from PIL import Image

from mixreorg.data.transforms import ImageTransformConfig, eval_tensor, random_crop_box, train_transform
from mixreorg.errors import MixreorgError
from mixreorg.models.pixels import IMAGE_MEAN, IMAGE_STD
from mixreorg.randomness import numpy_generator


def denormalise(images):
    """Undo the normalisation: ``[..., 3, H, W]`` to uint8."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


PLAIN = ImageTransformConfig(image_size=32, crop_scale=(1.0, 1.0), flip=False, colour_jitter=0.0)


def photo(width: int = 48, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_picture_of_the_right_size_passes_through_unchanged() -> None:
    image = photo(32, 32)
    for key in range(20):
        tensor = train_transform(image, PLAIN, numpy_generator(key))
        assert torch.equal(denormalise(tensor).permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_whole_picture_is_resized_when_it_has_another_size() -> None:
    image = photo(40, 32)
    expected = image.resize((32, 32), Image.Resampling.BICUBIC)
    assert torch.equal(train_transform(image, PLAIN, numpy_generator(0)), eval_tensor(expected))


def test_output_depends_on_the_key_alone() -> None:
    config = ImageTransformConfig(image_size=32, erase_probability=0.5)
    first = [train_transform(photo(), config, numpy_generator(1, key)) for key in range(8)]
    again = [train_transform(photo(), config, numpy_generator(1, key)) for key in range(8)]
    assert all(map(torch.equal, first, again))
    assert all(not torch.equal(first[0], other) for other in first[1:])
    assert all(tensor.shape == (3, 32, 32) and tensor.dtype == torch.float32 for tensor in first)


def test_eval_tensor_keeps_the_size_and_normalises() -> None:
    tensor = eval_tensor(Image.new("RGB", (5, 3), (255, 0, 128)))
    assert tensor.shape == (3, 3, 5)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert tensor[:, 1, 2].tolist() == pytest.approx(expected, abs=1e-5)


def test_crops_have_the_areas_and_shapes_asked_for() -> None:
    generator = numpy_generator(0)
    boxes = np.array([random_crop_box(400, 300, (0.08, 1.0), (3 / 4, 4 / 3), generator) for _ in range(3000)])
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


@pytest.mark.parametrize(("size", "expected"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))])
def test_pictures_too_long_for_any_crop_give_their_centre(
    size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert random_crop_box(*size, (1.0, 1.0), (3 / 4, 4 / 3), numpy_generator(0)) == expected
    one_pixel = train_transform(Image.new("RGB", (1, 1)), ImageTransformConfig(image_size=8), numpy_generator(0))
    assert one_pixel.shape == (3, 8, 8)


def test_half_of_the_pictures_are_flipped() -> None:
    image = photo(32, 32)
    config = PLAIN.updated(flip=True)
    plain, mirrored = eval_tensor(image), eval_tensor(image).flip(-1)
    tensors = [train_transform(image, config, numpy_generator(key)) for key in range(400)]
    flips = sum(torch.equal(tensor, mirrored) for tensor in tensors)
    assert 160 < flips < 240
    assert flips + sum(torch.equal(tensor, plain) for tensor in tensors) == 400


def test_colour_jitter_changes_colours_within_its_strength() -> None:
    grey = Image.new("RGB", (32, 32), (100, 100, 100))
    config = PLAIN.updated(colour_jitter=0.4)
    levels = [denormalise(train_transform(grey, config, numpy_generator(key)))[0, 0, 0].item() for key in range(300)]
    assert 58 <= min(levels) < 65
    assert 135 < max(levels) <= 141


def test_erasing_replaces_one_rectangle_of_noise_in_the_share_asked_for() -> None:
    image = Image.new("RGB", (32, 32), (100, 100, 100))
    plain = eval_tensor(image)
    areas = []
    for key in range(400):
        tensor = train_transform(image, PLAIN.updated(erase_probability=0.25), numpy_generator(key))
        changed = (tensor != plain).any(0)
        if changed.any():
            rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
            rectangle = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            areas.append(changed.sum().item() / 1024)
            assert changed.sum() == rectangle
    assert 70 < len(areas) < 130
    assert min(areas) > 0.01
    assert max(areas) < 0.36


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"crop_scale": [0.5, 0.2]}, "crop_scale"),
        ({"crop_scale": [0, 1]}, "crop_scale"),
        ({"crop_scale": [0.5, 1.5]}, "crop_scale"),
        ({"crop_ratio": [2, 1]}, "crop_ratio"),
        ({"image_size": 0}, "image_size"),
        ({"colour_jitter": -1}, "colour_jitter"),
        ({"erase_probability": 2}, "erase_probability"),
        ({"color_jitter": 0.4}, "did you mean 'colour_jitter'"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(MixreorgError, match=field):
        ImageTransformConfig.from_dict(values)
