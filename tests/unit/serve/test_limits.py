"""What is refused before any work, and with which status; and whatever strangers send, nothing else happens."""

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixreorg.errors import MixreorgError
from mixreorg.segment.photos import read_photo
from mixreorg.serve.limits import FORMATS, Limits, RefusalError, check_background, check_names, check_photo
from serve_kit import BAD_PHOTOS, TRUNCATED, image_file, png_header

LIMITS = Limits()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_photos_pass(image_format: str) -> None:
    assert image_format in FORMATS
    assert check_photo(image_file(48, 40, image_format), LIMITS) == 48 * 40


@pytest.mark.parametrize(("content", "status"), BAD_PHOTOS.values(), ids=BAD_PHOTOS)
def test_bad_photos_are_refused_from_their_header(content: bytes, status: int) -> None:
    with pytest.raises(RefusalError) as caught:
        check_photo(content, LIMITS)
    assert caught.value.status == status
    assert "photo" in str(caught.value)


def test_large_files_are_refused() -> None:
    content = image_file()
    assert check_photo(content, Limits(max_bytes=len(content)))
    with pytest.raises(RefusalError, match="bytes") as caught:
        check_photo(content, Limits(max_bytes=len(content) - 1))
    assert caught.value.status == 413


def test_the_pixel_limit_is_exact() -> None:
    assert check_photo(png_header(100, 50), Limits(max_pixels=5000)) == 5000
    with pytest.raises(RefusalError, match="5,000"):
        check_photo(png_header(100, 51), Limits(max_pixels=5000))


def test_names_are_read_as_everywhere() -> None:
    classes = check_names(" dog, cat=cat|kitten ", LIMITS)
    assert [(item.name, item.phrases) for item in classes] == [("dog", ("dog",)), ("cat", ("cat", "kitten"))]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("@/etc/passwd", "file"),
        (" @names.txt", "file"),
        ("dog, <script>alert(1)</script>", "plain text"),
        (",".join(f"c{i}" for i in range(10_000)), "10,000 classes"),
        ("dog=" + "|".join(f"d{i}" for i in range(1_000)), "1,000 phrases"),
        ("dog, c\x00at", "control character"),
        ("dog, \ud800", "control character"),
        ("dog, " + "x" * 300, "300 characters"),
        ("dog, Dog", "twice"),
        ("", "no name"),
        ("dog,,cat", "entry 2"),
    ],
    ids=[
        "file",
        "file after a space",
        "html",
        "classes",
        "phrases",
        "nul",
        "surrogate",
        "long",
        "twice",
        "none",
        "gap",
    ],
)
def test_bad_names_are_refused(names: str, words: str) -> None:
    with pytest.raises(MixreorgError, match=words):
        check_names(names, LIMITS)


def test_no_file_is_read_for_a_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    monkeypatch.chdir(tmp_path)
    assert [item.name for item in check_names("cat, @names.txt", LIMITS)] == ["cat", "@names.txt"]


def test_thresholds_lie_between_0_and_1() -> None:
    assert (check_background(None), check_background(0.0), check_background(1.0)) == (None, 0.0, 1.0)
    for threshold in (-0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(RefusalError, match="between 0 and 1"):
            check_background(threshold)


SEEDS = [image_file(20, 16, image_format) for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
SEEDS += [content for content, _ in BAD_PHOTOS.values()] + list(TRUNCATED.values())
SYNTAX = st.text(st.sampled_from(",=|@<># \t\n\x00\u200b\u0301")) | st.text()


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A file with bytes changed, cut out or put in, most of them at its start, where the header is."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    luck = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 8))):
        at = min(int(luck.expovariate(1 / 40)), len(content))
        match luck.randrange(3):
            case 0:
                content[at : at + 1] = luck.randbytes(1)
            case 1:
                content[at : at + luck.randrange(1, 64)] = b""
            case _:
                content[at:at] = luck.randbytes(luck.randrange(1, 16))
    return bytes(content)


def fuzz_photo(content: bytes) -> None:
    """As the server does: the header in its own process, then the decoding in the model's."""
    limits = Limits(max_pixels=1_000_000)
    with contextlib.suppress(MixreorgError):
        num_pixels = check_photo(content, limits)
        photo = read_photo(content, limits.max_pixels)
        assert photo.mode == "RGB"
        assert photo.width * photo.height <= limits.max_pixels >= num_pixels


def fuzz_names(names: str) -> None:
    with contextlib.suppress(MixreorgError):
        classes = check_names(names, LIMITS)
        assert 0 < len(classes) <= LIMITS.max_classes
        assert not any(set(phrase) & set("<>\x00") for item in classes for phrase in (item.name, *item.phrases))


few = settings(max_examples=80, deadline=None, derandomize=True, database=None)
many = settings(max_examples=5_000, deadline=None, derandomize=True, database=None)


@few
@given(damaged_files() | st.binary())
def test_any_photo_is_read_or_refused(content: bytes) -> None:
    fuzz_photo(content)


@few
@given(SYNTAX)
def test_any_names_are_read_or_refused(names: str) -> None:
    fuzz_names(names)


@pytest.mark.slow
@many
@given(damaged_files() | st.binary())
def test_5000_photos(content: bytes) -> None:
    fuzz_photo(content)


@pytest.mark.slow
@many
@given(SYNTAX)
def test_5000_class_lists(names: str) -> None:
    fuzz_names(names)
