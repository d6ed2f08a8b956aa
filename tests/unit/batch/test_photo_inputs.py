"""Which photos arguments mean, and that no two results have one name."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from mixreorg.batch.inputs import find_photos
from mixreorg.errors import MixreorgError

NOTHING = io.BytesIO()


@pytest.fixture
def trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``trip`` below the current folder, with photos of one name in two folders and much that is none."""
    monkeypatch.chdir(tmp_path)
    names = ("a/one.jpg", "a/two.PNG", "b/one.jpg", "b/one.png", "notes.txt", ".hidden.jpg", ".cache/x.jpg", "top.webp")
    for name in names:
        (Path("trip") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("trip") / name).touch()
    return Path("trip")


def names(*arguments: str | Path, listed: bytes = b"", out: str = "out") -> list[str]:
    photos = find_photos([Path(item) for item in arguments], Path(out), io.BytesIO(listed))
    assert all(photo.path.exists() for photo in photos)
    return [photo.name.as_posix() for photo in photos]


def test_a_folder_gives_its_photos_with_their_folders(trip: Path) -> None:
    assert names(trip) == ["a/one", "a/two", "b/one", "b/one-2", "top"]


def test_linked_folders_belong_to_a_folder_and_circles_end(trip: Path) -> None:
    elsewhere = trip.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.jpg").touch()
    (trip / "Album").symlink_to(elsewhere.absolute())
    (trip / "a" / "back").symlink_to(trip.absolute())
    (trip / "A again").symlink_to((trip / "a").absolute())
    (trip / "a" / "z").symlink_to((trip / "b").absolute())
    assert names(trip) == ["Album/far", "a/one", "a/two", "b/one", "b/one-2", "top"]
    assert names(trip, "elsewhere") == ["Album/far", "a/one", "a/two", "b/one", "b/one-2", "top"]


def test_results_inside_the_folder_are_no_photos(trip: Path) -> None:
    (trip / "masks").mkdir()
    (trip / "masks" / "top_overlay.png").touch()
    assert names(trip, out="trip/masks") == names("trip/**/*", out="trip/masks") == names(trip, out="trip/a/../masks")
    assert "masks/top_overlay" in names(trip)


def test_results_of_an_earlier_call_are_no_photos(trip: Path) -> None:
    before = names(trip)
    (trip / "masks").mkdir()
    for name in ("top_overlay.png", "top_labels.png", "top.json"):
        (trip / "masks" / name).touch()
    assert names(trip) == names("trip/**/*") == before
    assert names("trip/masks/top_labels.png") == ["top_labels"]


def test_what_explain_and_video_wrote_is_no_photo(trip: Path) -> None:
    before = names(trip)
    (trip / "masks" / "clip_labels").mkdir(parents=True)
    results = ("top_explain.png", "top_explain.json", "clip_overlay.mp4", "clip_labels/000000.png", "clip_labels/7.jpg")
    for name in results:
        (trip / "masks" / name).touch()
    assert names(trip) == names("trip/**/*") == before
    (trip / "masks" / "clip_overlay.mp4").unlink()
    assert names(trip) == [*before[:-1], "masks/clip_labels/000000", "masks/clip_labels/7", before[-1]]


def test_a_folder_that_cannot_be_read_is_told_with_the_photos(trip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, listed = trip / "b", os.scandir

    def scandir(path: str) -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [str(photo.path) for photo in find_photos([trip], Path("out"), NOTHING)] == [
        *("trip/a/one.jpg", "trip/a/two.PNG", "trip/b", "trip/top.webp")
    ]


def test_results_into_the_folder_of_a_pattern_are_refused(trip: Path) -> None:
    with pytest.raises(MixreorgError, match=r"--out trip is the folder of what trip/\*\.webp matches"):
        names("trip/*.webp", out="trip")


def test_a_list_names_photos(trip: Path) -> None:
    with pytest.raises(MixreorgError, match="is a folder; a list names photos"):
        names("-", listed=b"/\n")
    (trip / "..jpg").touch()
    assert names("-", listed=b"trip/..jpg\n") == ["trip/..jpg"]


def test_a_pattern_keeps_the_path_from_its_fixed_folder(trip: Path) -> None:
    assert names("trip/**/*.jpg") == ["a/one", "b/one"]
    assert names("trip/*/one.*") == ["a/one", "b/one", "b/one-2"]
    assert names("trip/a/*") == ["one", "two"]


def test_photos_given_by_name_lie_flat_unless_their_names_are_the_same(trip: Path) -> None:
    assert names("trip/a/one.jpg", "trip/a/two.PNG") == ["one", "two"]
    assert names("trip/a/one.jpg", "trip/b/one.jpg", "trip/top.webp") == ["a/one", "b/one", "top"]
    assert names("trip/b/one.jpg", "trip/b/one.png") == ["one", "one-2"]


def test_names_do_not_depend_on_the_current_folder(trip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names("trip/a/one.jpg", "trip/b/one.jpg")
    monkeypatch.chdir(trip / "a")
    assert names("one.jpg", "../b/one.jpg") == before


@pytest.mark.parametrize("listed", [b"trip/a/one.jpg\n\ntrip/top.webp\n", b"trip/a/one.jpg\0trip/top.webp\0"])
def test_a_list_keeps_paths_from_the_current_folder(listed: bytes, trip: Path) -> None:
    assert names("-", listed=listed) == ["trip/a/one", "trip/top"]


def test_a_listed_photo_elsewhere_keeps_its_whole_path(trip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = (trip / "top.webp").absolute()
    monkeypatch.chdir(trip / "a")
    expected = photo.with_suffix("").relative_to(photo.anchor).as_posix()
    assert names("-", listed=bytes(photo)) == names("-", listed=b"../top.webp") == [expected]


def test_a_photo_named_twice_is_done_once(trip: Path) -> None:
    assert names(trip, "trip/top.webp", trip.absolute() / "a" / ".." / "top.webp", "trip/*.webp") == names(trip)


def test_a_photo_cannot_take_the_name_of_the_summary(trip: Path) -> None:
    Path("summary.jpg").touch()
    Path("Top.jpg").touch()
    assert names("summary.jpg") == ["summary-2"]
    assert names("trip/top.webp", "Top.jpg") == ["top", "Top-2"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("empty", "no photo in empty"),
        ("trip/*.txt", "no photo matches trip"),
        ("trip/" + "t" * 300 + "*", "no photo matches trip"),
        ("clip.MP4", "mixreorg video"),
        ("-", "list of photos on standard input is empty"),
        ("out", "name another"),
    ],
)
def test_nothing_to_do_is_one_clear_error(argument: str, message: str, trip: Path) -> None:
    Path("empty").mkdir()
    Path("out").mkdir()
    with pytest.raises(MixreorgError, match=message):
        names(argument)
