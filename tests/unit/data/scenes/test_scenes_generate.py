"""Whole folders: formats, equal bytes for any number of workers, targets in use, the command."""

import io
import json
import tarfile

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mixreorg.cli.scenes_command import scenes
from mixreorg.data.scenes import easy, generate_scenes
from mixreorg.data.scenes import generate as generate_module
from mixreorg.data.scenes import writing as writing_module
from mixreorg.data.scenes.compose import SceneComposer
from mixreorg.data.scenes.presets import hard
from mixreorg.data.scenes.writing import encode_label_map, voc_colours
from mixreorg.errors import MixreorgError

CONFIG = easy().updated(image_size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generate_scenes(CONFIG, tmp_path_factory.mktemp("scenes") / "out", 30, 6, 8)


def read_all(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_bytes_do_not_depend_on_the_number_of_workers(folder, tmp_path):
    assert read_all(generate_scenes(CONFIG, tmp_path / "two", 30, 6, 8, workers=2)) == read_all(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["two"], "no temporary folder may stay"


def test_training_shards_have_the_layout_of_img2dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_module, "SHARD_SIZE", 10)
    monkeypatch.setattr(writing_module, "SHARD_SIZE", 10)
    out = generate_scenes(CONFIG, tmp_path / "out", 24, 0, 0)
    shards = sorted((out / "train").glob("*.tar"))
    assert [path.name for path in shards] == [f"scenes-00000{number}.tar" for number in range(3)]
    keys = []
    for shard in shards:
        with tarfile.open(shard) as archive:
            files = {name: archive.extractfile(name).read() for name in archive.getnames()}
            assert all(member.mtime == 0 and member.uname == "" for member in archive.getmembers())
        names = list(files)
        for start in range(0, len(names), 3):
            key = names[start].split(".")[0]
            assert names[start : start + 3] == [f"{key}.jpg", f"{key}.txt", f"{key}.json"]
            record = json.loads(files[f"{key}.json"])
            assert record["caption"] == files[f"{key}.txt"].decode()
            assert (record["key"], record["status"], record["width"], record["height"]) == (key, "success", 32, 32)
            assert all(item["name"] in CONFIG.classes for item in record["objects"])
            image = Image.open(io.BytesIO(files[f"{key}.jpg"]))
            assert (image.size, image.mode, image.format) == ((32, 32), "RGB", "JPEG")
            keys.append(key)
        stats = json.loads(shard.with_name(f"{shard.stem}_stats.json").read_text())
        assert stats["count"] == stats["successes"] == len(names) // 3
    assert keys == [f"{index:09d}" for index in range(24)]


def test_voc_layout_holds_the_scenes(folder):
    voc = folder / "VOC"
    assert (voc / "classes.txt").read_text().splitlines() == list(CONFIG.label_names)
    composer = SceneComposer(CONFIG)
    for split, count in (("val", 6), ("test", 8), ("test_heldout", 4)):
        names = (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().splitlines()
        captions = [json.loads(line) for line in (voc / f"captions_{split}.jsonl").read_text().splitlines()]
        assert len(names) == count
        assert [record["image"] for record in captions] == names
        for index, name in enumerate(names):
            scene = composer.compose(split, index)
            with Image.open(voc / "SegmentationClass" / f"{name}.png") as mask:
                assert mask.mode == "P"
                assert mask.getpalette()[3:6] == [128, 0, 0]
                np.testing.assert_array_equal(np.asarray(mask), scene.label_map)
            with Image.open(voc / "JPEGImages" / f"{name}.jpg") as image:
                error = np.abs(np.asarray(image, dtype=float) - scene.image).mean()
            assert error < 6.0
            assert captions[index]["caption"] == scene.caption


def test_folder_says_what_it_is(folder):
    description = json.loads((folder / "scenes.json").read_text())
    assert type(CONFIG).from_dict(description["config"]) == CONFIG
    assert description["num_scenes"] == {"train": 30, "val": 6, "test": 8, "test_heldout": 4}
    assert len(description["held_out_pairs"]) == CONFIG.held_out_pairs
    assert description["ignore_index"] == 255
    assert "OpenMoji" in (folder / "LICENSE.txt").read_text()
    assert "CC BY-SA 4.0" in (folder / "LICENSE.txt").read_text()
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width > 1000


def test_labels_beyond_8_bits_take_16():
    assert len(hard().label_names) > 255
    label_map = np.array([[0, 255], [300, 530]], dtype=np.uint16)
    with Image.open(io.BytesIO(encode_label_map(label_map, 16))) as image:
        np.testing.assert_array_equal(np.asarray(image), label_map)


def test_voc_palette():
    colours = voc_colours()
    assert colours[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_a_folder_in_use_is_left_alone(tmp_path):
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(MixreorgError, match="is not empty; name another folder, or add --overwrite"):
        generate_scenes(CONFIG, other, 1, 0, 0)
    with pytest.raises(MixreorgError, match="was not written by this command"):
        generate_scenes(CONFIG, other, 1, 0, 0, overwrite=True)
    assert (other / "thesis.txt").read_text() == "years of work"
    with pytest.raises(MixreorgError, match="is a file"):
        generate_scenes(CONFIG, other / "thesis.txt", 1, 0, 0)


def test_overwrite_replaces_and_an_empty_folder_is_filled(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    generate_scenes(CONFIG, out, 0, 3, 0)
    generate_scenes(CONFIG, out, 0, 2, 0, overwrite=True)
    assert len(list((out / "VOC" / "JPEGImages").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_old_folder_and_no_rubbish(tmp_path):
    out = generate_scenes(CONFIG, tmp_path / "out", 0, 2, 0)
    before = read_all(out)
    crowded = CONFIG.updated(min_objects=9, max_objects=9, min_scale=0.95, max_scale=1.0, min_visible=0.9)
    with pytest.raises(MixreorgError, match="do not fit"):
        generate_scenes(crowded, out, 0, 2, 0, overwrite=True)
    assert read_all(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("numbers", "workers", "message"),
    [((-1, 0, 0), 1, "number of train scenes is -1"), ((0, 0, 0), 1, "all numbers"), ((1, 0, 0), 0, "workers is 0")],
)
def test_wrong_numbers(tmp_path, numbers, workers, message):
    with pytest.raises(MixreorgError, match=message):
        generate_scenes(CONFIG, tmp_path / "out", *numbers, workers=workers)
    assert not (tmp_path / "out").exists()


def run_command(*arguments):
    application = typer.Typer()
    application.command()(scenes)
    return CliRunner().invoke(application, [str(argument) for argument in arguments])


def test_command_writes_the_chosen_classes(tmp_path):
    numbers = ("--train", 3, "--val", 2, "--test", 2)
    result = run_command(
        tmp_path / "a", *numbers, "--classes", "zebra, pizza", "--image-size", 32, "--set", "max_objects=2"
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a" / "VOC" / "classes.txt").read_text() == "background\nzebra\npizza\n"
    result = run_command(tmp_path / "b", *numbers, "--classes", 30, "--seed", 4)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "b" / "scenes.json").read_text())["config"]
    assert (len(config["classes"]), config["seed"]) == (30, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--classes", "dog,zebar"), "did you mean 'zebra'"),
        (("--classes", "9999"), "ask for 1 to"),
        (("--preset", "esay"), "did you mean 'easy'"),
        (("--set", "max_object=3"), "did you mean 'max_objects'"),
    ],
)
def test_command_errors_name_the_remedy(tmp_path, arguments, message):
    result = run_command(tmp_path / "out", *arguments)
    assert isinstance(result.exception, MixreorgError)
    assert message in str(result.exception)
