"""Cut-outs of photos in VOC layout, and scenes drawn with them."""

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mixreorg.cli.cutouts_command import cutouts
from mixreorg.data.scenes import easy
from mixreorg.data.scenes.compose import SceneComposer
from mixreorg.errors import MixreorgError
from mixreorg.eval.cutouts import write_cutouts
from mixreorg.eval.voc_split import open_voc_split

NAMES = ("background", "aeroplane", "dog", "person")
SIZE = (120, 160)


def ellipse(top, left, height, width):
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    down, right = (rows - top - height / 2 + 0.5) / (height / 2), (columns - left - width / 2 + 0.5) / (width / 2)
    return down**2 + right**2 <= 1.0


# Mask, label and colour of the objects of the one photo; the number of each is its place here, from 1.
OBJECTS = (
    (ellipse(10, 10, 40, 70), 1, (200, 30, 30)),
    (ellipse(60, 50, 40, 44), 2, (30, 30, 200)),
    (ellipse(15, 100, 20, 20), 2, (60, 60, 60)),
    (ellipse(70, 120, 45, 60), 2, (90, 90, 90)),
    (ellipse(70, 5, 45, 40), 3, (120, 120, 120)),
)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    photo = np.full((*SIZE, 3), (20, 200, 20), dtype=np.uint8)
    classes, numbers = np.zeros(SIZE, dtype=np.uint8), np.zeros(SIZE, dtype=np.uint8)
    for number, (mask, label, colour) in enumerate(OBJECTS, start=1):
        photo[mask], classes[mask], numbers[mask] = colour, label, number
    # Void, as VOC draws it around objects; one pixel of another class must not rename an object.
    classes[:3], numbers[:3] = 255, 255
    classes[80, 72] = 1
    Image.fromarray(photo).save(root / "JPEGImages" / "one.jpg", quality=100, subsampling=0)
    Image.fromarray(classes).save(root / "SegmentationClass" / "one.png")
    Image.fromarray(numbers).save(root / "SegmentationObject" / "one.png")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("one\n")
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return root


def test_whole_large_objects_of_scene_classes_are_cut_out_exactly(root, tmp_path):
    counts = write_cutouts(open_voc_split(root, "val"), tmp_path / "out", min_side=40)
    assert counts.pictures == {"airplane": 1, "dog": 1}, "one is small, one touches the edge, one is a person"
    assert counts.other_classes == ("person",)
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert files == {"airplane/one_1.png", "dog/one_2.png"}
    for name, (mask, _, colour) in (("airplane/one_1.png", OBJECTS[0]), ("dog/one_2.png", OBJECTS[1])):
        with Image.open(tmp_path / "out" / name) as image:
            pixels = np.asarray(image).astype(int)
        rows, columns = np.nonzero(mask)
        inside = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        np.testing.assert_array_equal(pixels[..., 3], 255 * inside)
        assert np.abs(np.median(pixels[inside][:, :3], axis=0) - colour).max() <= 4


def test_scenes_are_drawn_with_cutouts(root, tmp_path):
    write_cutouts(open_voc_split(root, "val"), tmp_path / "out", min_side=40)
    config = easy().updated(stuff=("snow",), pictures=str(tmp_path / "out"), pictures_credit="Photos by Nobody, CC0")
    composer = SceneComposer(config)
    names = {item.name for index in range(30) for item in composer.compose("test", index).objects}
    assert names == {"airplane", "dog"}


def test_command_says_what_it_wrote(root, tmp_path):
    application = typer.Typer()
    application.command()(cutouts)
    result = CliRunner().invoke(application, [str(root), str(tmp_path / "out"), "--min-side", "20"])
    assert result.exit_code == 0, result.output
    assert "airplane 1, dog 2" in result.output
    assert "not classes of the scenes: person" in result.output


@pytest.mark.parametrize("damage", ["missing", "rgb", "size", "broken", "small"])
def test_what_is_wrong_is_named(root, tmp_path, damage):
    path = root / "SegmentationObject" / "one.png"
    min_side = 40
    if damage == "missing":
        path.unlink()
        message = "is missing: cutting out objects needs masks that tell them apart"
    elif damage == "rgb":
        Image.new("RGB", SIZE[::-1]).save(path)
        message = "mode RGB, but masks hold one index per pixel"
    elif damage == "size":
        Image.new("L", (10, 10)).save(path)
        message = "of 'one' in .* differ in size"
    elif damage == "broken":
        path.write_bytes(b"no picture")
        message = "cannot read the mask"
    else:
        min_side, message = 900, "lower --min-side or name another split"
    with pytest.raises(MixreorgError, match=message):
        write_cutouts(open_voc_split(root, "val"), tmp_path / "out", min_side=min_side)
