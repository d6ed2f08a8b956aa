"""Image transforms: functions of the sample's key, with the distributions the recipe asks for."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mixreorg.data.rand_augment import RandAugmentConfig
from mixreorg.data.transforms import ImageTransformConfig, augment, random_view, resized_crop
from mixreorg.errors import MixreorgError
from mixreorg.models.pixels import IMAGE_MEAN, IMAGE_STD, normalise, to_uint8
from mixreorg.randomness import numpy_generator, sample_keys

PLAIN = ImageTransformConfig(image_size=32, crop_scale=(1.0, 1.0), flip=False, colour_jitter=0.0)
COMPLETE = ImageTransformConfig(image_size=32, rand_augment=RandAugmentConfig(), erase_probability=0.25)


def photo(width: int = 48, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def view(image: Image.Image, config: ImageTransformConfig, *key: int) -> torch.Tensor:
    return random_view(config, numpy_generator(*key)).decode(png(image))


def batch(count: int = 24, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 3, side, side), dtype=np.uint8))
    return images, sample_keys(5, torch.arange(count))


def denormalise(images: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation: ``[..., 3, H, W]`` in 0..255."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return (images * std + mean) * 255


def test_a_picture_of_the_right_size_passes_through_unchanged() -> None:
    for key in range(20):
        pixels = view(photo(32, 32), PLAIN, key)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, to_uint8(photo(32, 32)))


def test_small_pictures_are_enlarged_as_by_pillow() -> None:
    image = photo(40, 28)
    for box in [(0, 0, 40, 28), (3, 5, 20, 27), (0, 2, 31, 3)]:
        expected = image.resize((32, 32), Image.Resampling.BICUBIC, box=box)
        assert torch.equal(resized_crop(np.array(image), box, 32), to_uint8(expected))


@pytest.mark.parametrize("size", [(40, 32), (97, 64), (400, 333)])
def test_large_pictures_shrink_as_by_pillow_to_a_level_of_rounding(size: tuple[int, int]) -> None:
    image = photo(*size)
    expected = to_uint8(image.resize((32, 32), Image.Resampling.BICUBIC))
    difference = (resized_crop(np.array(image), (0, 0, *size), 32).int() - expected.int()).abs()
    assert difference.max() <= 1


def test_a_view_depends_on_its_key_alone() -> None:
    config = ImageTransformConfig(image_size=32)
    first = [view(photo(), config, 1, key) for key in range(8)]
    again = [view(photo(), config, 1, key) for key in range(8)]
    assert all(map(torch.equal, first, again))
    assert all(not torch.equal(first[0], other) for other in first[1:])
    assert all(pixels.shape == (3, 32, 32) for pixels in first)
    assert view(Image.new("RGB", (1, 1)), config, 0).shape == (3, 32, 32)


def test_crops_cover_the_shares_asked_for() -> None:
    gradient = Image.fromarray(np.linspace(0, 255, 256).astype(np.uint8)[None].repeat(256, 0)).convert("RGB")
    config = ImageTransformConfig(image_size=32, crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0))
    for key in range(20):
        pixels = view(gradient, config, key)[0].int()
        assert abs((pixels[:, -1] - pixels[:, 0]).abs().max() - 124) <= 3  # half of the width, to pixel centres


def test_half_of_the_pictures_are_flipped() -> None:
    config = PLAIN.updated(flip=True)
    plain = to_uint8(photo(32, 32))
    views = [view(photo(32, 32), config, key) for key in range(400)]
    flips = sum(torch.equal(pixels, plain.flip(-1)) for pixels in views)
    assert 160 < flips < 240
    assert flips + sum(torch.equal(pixels, plain) for pixels in views) == 400


def test_without_augmentation_a_batch_is_normalised() -> None:
    images, keys = batch()
    assert torch.equal(augment(images, keys, PLAIN), normalise(images))
    pixels = augment(
        torch.tensor([255, 0, 128], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4), keys[:1], PLAIN
    )
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225]
    assert pixels[0, :, 1, 2].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    images, keys = batch()
    before = images.clone()
    whole = augment(images, keys, COMPLETE)
    assert torch.equal(images, before)
    assert whole.shape == images.shape
    assert whole.dtype == torch.float32
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment(images[order], keys[order], COMPLETE), whole[order])
    for part in (slice(3, 4), slice(7, 20)):
        assert torch.equal(augment(images[part], keys[part], COMPLETE), whole[part])


def test_the_batched_way_of_an_accelerator_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor takes one picture at a time; an accelerator the whole batch."""
    images, keys = batch()
    expected = augment(images, keys, COMPLETE)
    monkeypatch.setattr("mixreorg.data.transforms._chunk", lambda images: len(images))
    assert (augment(images, keys, COMPLETE) - expected).abs().max() < 1e-4


@pytest.mark.gpu
def test_an_accelerator_gives_the_same() -> None:
    images, keys = batch(256, 224)
    expected = augment(images, keys, COMPLETE)
    difference = (augment(images.cuda(), keys, COMPLETE).cpu() - expected).abs()
    # Posterising and equalising turn a rounding error at the border of two levels into a step.
    assert (difference > 1e-3).float().mean() < 1e-3


def test_augmentation_differs_between_keys_and_not_between_calls() -> None:
    images, keys = batch()
    first = augment(images, keys, COMPLETE)
    assert torch.equal(augment(images, keys, COMPLETE), first)
    other = augment(images, keys + 1, COMPLETE)
    assert (first != other).flatten(1).any(1).all()
    assert (first != normalise(images)).flatten(1).any(1).all()


def test_each_part_does_what_its_setting_asks_for() -> None:
    grey = torch.full((400, 3, 8, 8), 100, dtype=torch.uint8)
    keys = sample_keys(0, torch.arange(400))
    rotated_and_more = augment(grey, keys, PLAIN.updated(rand_augment=RandAugmentConfig()))
    assert 0.4 < (rotated_and_more != normalise(grey)).flatten(1).any(1).float().mean() < 0.75
    assert (denormalise(rotated_and_more)[:, 0, 4, 4] - 155).abs().min() < 1e-3  # a negative
    jittered = augment(grey, keys, PLAIN.updated(colour_jitter=0.4))
    levels = denormalise(jittered)[:, 0, 0, 0]
    assert 59 < levels.min() < 62
    assert 138 < levels.max() < 141
    erased = augment(grey, keys, PLAIN.updated(erase_probability=0.25))
    changed = (erased != normalise(grey)).flatten(1).any(1)
    assert 70 < changed.sum() < 130
    assert denormalise(erased).min() < 0  # noise is not cut to what a picture can be


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
        ({"rand_augment": {"magnitude": 12}}, "rand_augment.magnitude"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(MixreorgError, match=field):
        ImageTransformConfig.from_dict(values)
