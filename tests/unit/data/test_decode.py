"""Decoding: formats and orientations, reduced sizes, damage; the quick decoder gives Pillow's bits."""

import io

import numpy as np
import pytest
from PIL import Image
from shard_kit import image_bytes

from mixreorg.data import decode
from mixreorg.data.decode import Box, decode_crop, decode_image
from mixreorg.data.problems import UnusableSampleError


class FixedCrop:
    """A share of the picture's width and height from its top left corner, which remembers the size it was asked for."""

    def __init__(self, share: float, side: int) -> None:
        self.share, self.side, self.asked = share, side, (0, 0)

    def box(self, width: int, height: int) -> Box:
        self.asked = (width, height)
        return 0, 0, int(self.share * width), int(self.share * height)


def noise_jpeg(size: tuple[int, int] = (203, 151), mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_an_image_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for size in [(12, 12), (40, 40)]:  # Pillow warns of the first and refuses the second
        with pytest.raises(UnusableSampleError, match="image too large"):
            decode_image(image_bytes(size=size))


def test_decoding_gives_upright_rgb() -> None:
    buffer = io.BytesIO()
    picture = Image.new("RGB", (30, 20), "black")
    picture.paste((255, 255, 255), (0, 0, 15, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: left becomes top
    picture.save(buffer, "JPEG", exif=exif)
    upright = decode_image(buffer.getvalue())
    assert upright.size == (20, 30)
    assert upright.getpixel((10, 2))[0] > 250 > 5 > upright.getpixel((10, 27))[0]

    for mode, colour, expected in [
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("LA", (10, 255), (10, 10, 10)),
        ("I;16", 128 * 257, (128, 128, 128)),
        ("L", 7, (7, 7, 7)),
        ("1", 1, (255, 255, 255)),
    ]:
        buffer = io.BytesIO()
        Image.new(mode, (4, 4), colour).save(buffer, "PNG")
        assert decode_image(buffer.getvalue()).getpixel((0, 0)) == expected, mode
    assert decode_image(image_bytes(9, suffix="GIF")).getpixel((0, 0)) == (9, 9, 9)
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(buffer, "JPEG")
    assert decode_image(buffer.getvalue()).getpixel((0, 0)) == (0, 0, 0)


def test_large_jpegs_are_decoded_smaller_but_never_below_the_side_asked_for() -> None:
    data = image_bytes(100, (1000, 600), "JPEG")
    assert decode_image(data).size == (1000, 600)
    assert decode_image(data, min_side=300).size == (500, 300)
    assert decode_image(data, min_side=301).size == (1000, 600)
    assert decode_image(image_bytes(100, (1000, 600)), min_side=10).size == (1000, 600)
    buffer = io.BytesIO()
    Image.new("RGB", (1000, 600), (200, 50, 100)).save(buffer, "JPEG")
    assert decode_image(buffer.getvalue(), min_side=100).getpixel((5, 5)) == pytest.approx((200, 50, 100), abs=3)


def test_broken_exif_does_not_cost_the_image() -> None:
    data = image_bytes(50, suffix="JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff garbage")
    assert decode_image(data).size == (12, 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = image_bytes(50, (64, 64), "JPEG", exif=exif)
    with pytest.raises(UnusableSampleError, match="damaged image"):
        decode_image(data[:-200])


@pytest.mark.parametrize(
    ("share", "side", "expected"),
    [(1.0, 300, (500, 300)), (1.0, 301, (1000, 600)), (0.5, 75, (250, 150)), (0.1, 75, (1000, 600)), (1, 7, (125, 75))],
)
def test_a_jpeg_is_reduced_as_far_as_its_crop_allows(share: float, side: int, expected: tuple[int, int]) -> None:
    crop = FixedCrop(share, side)
    pixels, box = decode_crop(image_bytes(100, (1000, 600), "JPEG"), crop)
    assert pixels.shape == (*expected[::-1], 3)
    assert box == (0, 0, share * expected[0], share * expected[1])
    assert crop.asked == (1000, 600)


def test_a_reduced_crop_is_rounded_outwards() -> None:
    """502 x 301 of 1000 x 600 pixels, at a quarter 125.5 x 75.25."""
    pixels, box = decode_crop(image_bytes(100, (1000, 600), "JPEG"), FixedCrop(0.5025, 75))
    assert pixels.shape == (150, 250, 3)
    assert box == (0, 0, 126, 76)


def test_other_formats_keep_their_size() -> None:
    pixels, box = decode_crop(image_bytes(7, (40, 30)), FixedCrop(1.0, 1))
    assert pixels.shape == (30, 40, 3)
    assert pixels.max() == pixels.min() == 7
    assert box == (0, 0, 40, 30)


@pytest.mark.parametrize("size", [(203, 151), (17, 9), (64, 511)])
def test_a_reduced_crop_has_the_pixels_it_was_promised(size: tuple[int, int]) -> None:
    for side in range(1, min(size)):
        crop = FixedCrop(0.93, side)
        full = crop.box(*size)
        pixels, (left, top, right, bottom) = decode_crop(noise_jpeg(size), crop)
        assert 0 <= left < right <= pixels.shape[1]
        assert 0 <= top < bottom <= pixels.shape[0]
        if min(full[2:]) >= side:
            assert min(right - left, bottom - top) >= side


def test_the_crop_is_chosen_in_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    crop = FixedCrop(1.0, 30)
    pixels, box = decode_crop(noise_jpeg((160, 120), exif=exif), crop)
    assert crop.asked == (120, 160)
    assert pixels.shape == (40, 30, 3)
    assert box == (0, 0, 30, 40)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"subsampling": "4:2:0"}),
        ("RGB", {"subsampling": "4:2:2"}),
        ("RGB", {"subsampling": "4:4:4"}),
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
@pytest.mark.parametrize("side", [200, 70, 35, 10])
def test_the_quick_decoder_gives_pillows_bits(
    monkeypatch: pytest.MonkeyPatch, mode: str, options: dict[str, object], side: int
) -> None:
    pytest.importorskip("simplejpeg")
    data = noise_jpeg(mode=mode, quality=90, **options)
    quick = decode_crop(data, FixedCrop(1.0, side))
    monkeypatch.setattr(decode, "_simplejpeg_decoder", lambda: None)
    plain = decode_crop(data, FixedCrop(1.0, side))
    assert np.array_equal(quick[0], plain[0])
    assert quick[1] == plain[1]


def test_the_quick_decoder_is_used_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    monkeypatch.setattr(decode, "_upright_rgb", None)  # Pillow's way would raise
    assert decode_crop(noise_jpeg(), FixedCrop(1.0, 50))[0].shape == (76, 102, 3)


@pytest.mark.parametrize("quick", [True, False])
def test_damage_outside_of_the_crop_counts(monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    if not quick:
        monkeypatch.setattr(decode, "_simplejpeg_decoder", lambda: None)
    data = noise_jpeg()
    for damaged in (data[:-300], data[: len(data) // 2], b"", b"GIF89a"):
        with pytest.raises(UnusableSampleError, match="damaged image"):
            decode_crop(damaged, FixedCrop(0.1, 2))


def test_an_image_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnusableSampleError, match="image too large"):
        decode_crop(noise_jpeg((12, 12)), FixedCrop(1.0, 1))
