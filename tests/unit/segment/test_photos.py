import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from mixreorg.errors import MixreorgError
from mixreorg.segment.photos import read_photo

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def _encode(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _photo(width=8, height=6):
    """Red, with a blue pixel in the top left corner."""
    image = Image.new("RGB", (width, height), RED)
    image.putpixel((0, 0), BLUE)
    return image


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_the_same_picture_from_every_kind_of_source(tmp_path, image_format):
    path = tmp_path / "photo.bin"
    path.write_bytes(_encode(_photo(), image_format, **({"lossless": True} if image_format == "WEBP" else {})))
    expected = np.asarray(_photo())
    with Image.open(path) as image:
        for source in (path, str(path), path.read_bytes(), image, expected):
            result = read_photo(source)
            assert (result.mode, result.size) == ("RGB", (8, 6))
            assert np.array_equal(np.asarray(result), expected)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (3, (31, 15)), (6, (15, 0)), (8, (0, 31)), (2, (31, 0))]
)
def test_exif_orientation(image_format, orientation, corner):
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = read_photo(_encode(image, image_format, exif=exif))
    assert result.size == ((32, 16) if orientation < 5 else (16, 32))
    assert np.abs(np.subtract(result.getpixel(corner), BLUE)).max() < 40
    assert read_photo(result).size == result.size


def test_broken_exif_is_passed_over():
    assert read_photo(_encode(_photo(), "JPEG", exif=b"Exif\x00\x00broken")).size == (8, 6)


def test_a_pillow_image_is_not_changed():
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    image.getexif()[0x0112] = 6
    assert read_photo(image).size == (2, 4)
    assert (image.mode, image.size, image.getexif()[0x0112]) == ("RGBA", (4, 2), 6)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "P", "PA", "RGB", "1"])
def test_transparency_is_composited_on_white(mode):
    if mode == "1":
        image, options = Image.new("1", (2, 1), 0), {"transparency": 1}
        image.putpixel((0, 0), 1)
    elif mode == "RGB":
        image, options = Image.new("RGB", (2, 1), (0, 0, 0)), {"transparency": (9, 9, 9)}
        image.putpixel((0, 0), (9, 9, 9))
    elif mode == "P":
        image, options = Image.new("P", (2, 1), 1), {"transparency": 0}
        image.putpalette([200, 0, 0, 0, 0, 0])
        image.putpixel((0, 0), 0)
    else:
        black = (0,) * (len(mode) - 1)
        image, options = Image.new(mode, (2, 1), (*black, 255)), {}
        image.putpixel((0, 0), (*black, 0))
    # PNG files have no such modes.
    result = read_photo(image if mode in ("PA", "La", "RGBa") else _encode(image, **options))
    assert (result.getpixel((0, 0)), result.getpixel((1, 0))) == (WHITE, (0, 0, 0))


def test_half_transparency():
    assert read_photo(Image.new("RGBA", (1, 1), (0, 0, 0, 51))).getpixel((0, 0)) == (204, 204, 204)


def test_palette_and_animation_give_the_first_picture():
    frames = [Image.new("P", (4, 4), index) for index in (0, 1)]
    for frame in frames:
        frame.putpalette([*RED, *GREEN])
    data = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert read_photo(data).getpixel((0, 0)) == RED


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_to_8_bit(image_format):
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    result = np.asarray(read_photo(_encode(Image.fromarray(values), image_format)))
    assert result[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_16_bit_grey_with_a_transparent_level():
    values = np.array([[0, 5, 128 * 257, 65535]], dtype=np.uint16)
    result = np.asarray(read_photo(_encode(Image.fromarray(values), transparency=5)))
    assert result[0].tolist() == [[0] * 3, [255] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 32768, 65535]], dtype=np.int32), [0, 128, 255]),
        (np.array([[-5, 65536, 131072]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[np.nan, 100.0, np.inf]], dtype=np.float32), [0, 100, 0]),
        (np.array([[0.0, 32768.0, 65535.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[0, 0, 0]], dtype=np.float32), [0, 0, 0]),
    ],
)
def test_deep_grey_of_other_types(values, expected):
    assert np.asarray(read_photo(Image.fromarray(values)))[0, :, 0].tolist() == expected


def test_other_modes():
    assert read_photo(Image.new("1", (1, 1), 1)).getpixel((0, 0)) == WHITE
    assert read_photo(Image.new("L", (1, 1), 77)).getpixel((0, 0)) == (77, 77, 77)
    assert read_photo(Image.new("HSV", (1, 1), (0, 255, 255))).getpixel((0, 0)) == RED
    assert read_photo(Image.new("YCbCr", (1, 1), (255, 128, 128))).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("profile", ["none", "broken", "of another colour space"])
def test_cmyk_without_a_usable_profile(image_format, profile):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    icc = {"none": None, "broken": b"no profile", "of another colour space": srgb}[profile]
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    result = read_photo(_encode(image, image_format, **({"icc_profile": icc} if icc else {})))
    assert np.abs(np.subtract(result.getpixel((8, 8)), RED)).max() < 12


def test_cmyk_with_a_profile_goes_through_it(monkeypatch):
    seen = []

    def convert(image, source, target, outputMode):
        seen.append((image.mode, source, outputMode))
        return Image.new(outputMode, image.size, GREEN)

    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda file: file.read())
    monkeypatch.setattr(ImageCms, "profileToProfile", convert)
    data = _encode(Image.new("CMYK", (16, 16)), "JPEG", icc_profile=b"a CMYK profile")
    assert read_photo(data).getpixel((0, 0)) == GREEN
    assert seen == [("CMYK", b"a CMYK profile", "RGB")]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
def test_truncated_files(image_format):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = _encode(Image.fromarray(noise), image_format)
    with pytest.raises(MixreorgError, match=r"damaged or truncated|not an image|cannot read"):
        read_photo(data[: len(data) // 2])


def test_damaged_png_chunk():
    data = bytearray(_encode(_photo()))
    data[-20] ^= 0xFF
    with pytest.raises(MixreorgError, match="damaged or truncated"):
        read_photo(bytes(data))


def test_what_is_no_photo(tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("not a photo")
    with pytest.raises(MixreorgError, match=r"the photo .*notes\.jpg is not an image"):
        read_photo(text)
    with pytest.raises(MixreorgError, match=r"cannot read the photo .*missing\.jpg: No such file"):
        read_photo(tmp_path / "missing.jpg")
    with pytest.raises(MixreorgError, match="cannot read the photo"):
        read_photo(tmp_path)
    with pytest.raises(MixreorgError, match="cannot read the photo"):
        read_photo("a\x00b")
    with pytest.raises(MixreorgError, match="given bytes is not an image"):
        read_photo(b"")
    with pytest.raises(MixreorgError, match="cannot be a int"):
        read_photo(3)
    with pytest.raises(MixreorgError, match="EPS drawing"):
        read_photo(_encode(_photo(), "EPS"))


def _png_header(width, height):
    """A PNG that claims a size and holds no pixels, as a decompression bomb does."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def test_large_photos_are_refused_before_decoding_and_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MixreorgError, match=r"too large.*the limit is 178,956,970 pixels"):
            read_photo(_png_header(100_000, 100_000))
        # Between Pillow's warning and its error: within the limit, so only the missing pixels are at fault.
        with pytest.raises(MixreorgError, match="damaged or truncated"):
            read_photo(_png_header(12_000, 8_000))
        with pytest.raises(MixreorgError, match=r"12000 x 8000 pixels; the limit is 1,000 pixels"):
            read_photo(_png_header(12_000, 8_000), max_pixels=1000)
    with pytest.raises(MixreorgError, match="too large"):
        read_photo(_photo(), max_pixels=47)
    with pytest.raises(MixreorgError, match="too large"):
        read_photo(np.zeros((6, 8, 3), np.uint8), max_pixels=47)
    assert read_photo(_photo(), max_pixels=48).size == (8, 6)


def test_memory_that_is_not_there_is_no_damage(monkeypatch):
    def run_out(_image):
        raise MemoryError

    monkeypatch.setattr("mixreorg.segment.photos.upright", run_out)
    with pytest.raises(MixreorgError, match="not enough memory to read the given image of 8 x 6 pixels"):
        read_photo(_photo())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int64),
    ],
)
def test_arrays_of_another_form(array):
    with pytest.raises(MixreorgError, match=r"a photo is \[height, width, 3\] uint8"):
        read_photo(array)


def test_empty_and_strided_arrays():
    with pytest.raises(MixreorgError, match="empty: 4 x 0 pixels"):
        read_photo(np.zeros((0, 4, 3), np.uint8))
    array = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)[::2, ::-3]
    assert np.array_equal(np.asarray(read_photo(array)), array)
