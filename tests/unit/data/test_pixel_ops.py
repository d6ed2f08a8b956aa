"""Every operation against Pillow's, within the rounding that Pillow does to whole grey levels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mixreorg.data import pixel_ops
from mixreorg.models.pixels import to_uint8

FILL = (124, 116, 104)


def picture(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """Smooth colours with fine noise, of another range of levels for every number."""
    generator = np.random.default_rng(number)
    rough = Image.fromarray(generator.integers(0, 256, (7, 8, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    levels = np.asarray(rough) * (0.3 + 0.2 * number) + 10 * number + generator.normal(0, 4, (size[1], size[0], 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


PICTURES = [picture(number) for number in range(4)]
PIXELS = torch.stack(list(map(to_uint8, PICTURES))).float()


def solarise_add(image: Image.Image, amount: float) -> Image.Image:
    return image.point([min(255, level + int(amount)) if level < 128 else level for level in range(256)] * 3)


@pytest.mark.parametrize("factor", [0.0, 0.19, 0.7, 1.0, 1.4, 1.81])
@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        (pixel_ops.brightness, ImageEnhance.Brightness),
        (pixel_ops.contrast, ImageEnhance.Contrast),
        (pixel_ops.colour, ImageEnhance.Color),
        (pixel_ops.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_blends_agree_with_pillow(
    operation: Callable[..., torch.Tensor], enhancer: type[ImageEnhance.Brightness], factor: float
) -> None:
    expected = torch.stack([to_uint8(enhancer(image).enhance(factor)) for image in PICTURES])
    difference = (operation(PIXELS, torch.full((4,), factor)) - expected).abs()
    assert difference.max() <= 2
    assert difference.mean() < 0.7


@pytest.mark.parametrize(
    ("operation", "pillow", "tolerance"),
    [
        (pixel_ops.auto_contrast, ImageOps.autocontrast, 1.001),
        (pixel_ops.equalise, ImageOps.equalize, 0),
        (pixel_ops.invert, ImageOps.invert, 0),
    ],
)
def test_operations_without_argument_agree_with_pillow(
    operation: Callable[..., torch.Tensor], pillow: Callable[[Image.Image], Image.Image], tolerance: float
) -> None:
    for image in [
        *PICTURES,
        Image.new("RGB", (96, 80), (7, 0, 255)),
        Image.effect_mandelbrot((96, 80), (-2, -1, 1, 1), 9).convert("RGB"),
    ]:
        result = operation(to_uint8(image)[None].float())[0]
        assert (result - to_uint8(pillow(image))).abs().max() <= tolerance


@pytest.mark.parametrize(
    ("operation", "pillow", "arguments"),
    [
        (pixel_ops.posterise, lambda image, bits: ImageOps.posterize(image, int(bits)), [1.0, 2.0, 4.0, 8.0]),
        (pixel_ops.solarise, ImageOps.solarize, [0.0, 26.0, 128.0, 256.0]),
        (pixel_ops.solarise_add, solarise_add, [0.0, 50.0, 99.0, 110.0]),
    ],
)
def test_operations_on_levels_are_pillows(
    operation: Callable[..., torch.Tensor], pillow: Callable[..., Image.Image], arguments: list[float]
) -> None:
    expected = [to_uint8(pillow(image, argument)) for image, argument in zip(PICTURES, arguments, strict=True)]
    assert torch.equal(operation(PIXELS, torch.tensor(arguments)), torch.stack(expected).float())


def test_posterising_to_no_bits_is_black() -> None:
    assert pixel_ops.posterise(PIXELS, torch.zeros(4)).max() == 0


def affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC, fillcolor=FILL)


@pytest.mark.parametrize(
    ("operation", "pillow"),
    [
        (pixel_ops.rotate, lambda image, value: image.rotate(value, Image.Resampling.BICUBIC, fillcolor=FILL)),
        (pixel_ops.shear_x, lambda image, value: affine(image, 1, value, 0, 0, 1, 0)),
        (pixel_ops.shear_y, lambda image, value: affine(image, 1, 0, 0, value, 1, 0)),
        (pixel_ops.translate_x, lambda image, value: affine(image, 1, 0, value * image.width, 0, 1, 0)),
        (pixel_ops.translate_y, lambda image, value: affine(image, 1, 0, 0, 0, 1, value * image.height)),
    ],
)
@pytest.mark.parametrize("share", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_geometry_agrees_with_pillow(
    operation: Callable[..., torch.Tensor], pillow: Callable[..., Image.Image], share: float
) -> None:
    """Pillow's bicubic kernel is a little sharper and its picture ends without a blend into the surroundings."""
    largest = {pixel_ops.rotate: 30, pixel_ops.shear_x: 0.3, pixel_ops.shear_y: 0.3}.get(operation, 0.45)
    argument = share * largest
    smooth = [image.filter(ImageFilter.GaussianBlur(2)) for image in PICTURES]
    result = operation(torch.stack(list(map(to_uint8, smooth))).float(), torch.full((4,), argument))
    expected = torch.stack([to_uint8(pillow(image, argument)) for image in smooth]).float()
    inside = torch.from_numpy(np.asarray(pillow(Image.new("RGB", (96, 80), "white"), argument))[..., 0] == 255)
    edge = torch.nn.functional.max_pool2d((~inside)[None].float(), 5, 1, 2)[0] > 0
    border = torch.nn.functional.max_pool2d(inside[None].float(), 5, 1, 2)[0] > 0
    edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = True, True, True, True
    assert (~edge).sum() > 1500
    assert (result - expected).abs()[..., ~edge].max() <= 2.5
    assert (result - expected).abs()[..., ~border].sum() == 0
    assert (result.amin() >= 0) & (result.amax() <= 255)


@pytest.mark.parametrize("operation", [pixel_ops.contrast, pixel_ops.sharpness, pixel_ops.rotate, pixel_ops.shear_x])
def test_pictures_of_a_batch_keep_their_own_arguments(operation: Callable[..., torch.Tensor]) -> None:
    before = PIXELS.clone()
    arguments = torch.tensor([0.1, 0.2, 0.0, 0.3])
    together = operation(PIXELS, arguments)
    for number in range(4):
        alone = operation(PIXELS[number : number + 1], arguments[number : number + 1])
        assert (together[number] - alone[0]).abs().max() < 1e-3
    assert torch.equal(PIXELS, before)
