import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmark_kit import (
    HEIGHT,
    WIDTH,
    make_cityscapes,
    make_coco,
    make_context,
    make_instances,
    make_voc,
    stripes,
    write_photo,
)
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from mixreorg.cli.main import app
from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks import prepare as prepare_module
from mixreorg.eval.benchmarks.opening import open_benchmark
from mixreorg.eval.benchmarks.prepare import Prepared, PrepareOptions, prepare
from mixreorg.eval.split import VOID


def run(name: str, root: Path, **options: object) -> Prepared:
    return prepare(name, root, PrepareOptions(**options))  # type: ignore[arg-type]


def stored(path: Path) -> list[int]:
    """First row of a mask as an independent reader sees it."""
    with Image.open(path) as image:
        assert image.mode == "L"
        return [int(value) for value in np.array(image)[0]]


class TestContext:
    # accordion, aeroplane, table, unknown, wood, wool, unlabelled
    LABELS = stripes([1, 2, 397, 431, 458, 459, 0])
    ROW = (0, 1, 50, 0, 59, 0, 0)

    def test_label_files_become_masks(self, tmp_path: Path) -> None:
        folder = make_context(tmp_path, {"2008_000002": self.LABELS, "2008_000003": stripes([284])})
        prepared = run("context60", tmp_path)
        assert prepared.target == "SegmentationClassContext"
        assert (prepared.converted.written, prepared.converted.kept) == (2, 0)
        assert stored(folder / "SegmentationClassContext" / "2008_000002.png")[:7] == list(self.ROW)
        assert (folder / "ImageSets" / "SegmentationContext" / "val.txt").read_text() == "2008_000002\n2008_000003\n"
        names = {label.name for label in prepared.report.labels if label.num_masks}
        assert names == {"background", "aeroplane", "table", "wood", "person"}

    def test_both_benchmarks_read_them(self, tmp_path: Path) -> None:
        make_context(tmp_path, {"a": self.LABELS})
        run("context59", tmp_path)
        assert open_benchmark("context60", tmp_path).read_mask("a")[0, :7].tolist() == list(self.ROW)
        row = [value - 1 if value else VOID for value in self.ROW]
        assert open_benchmark("context59", tmp_path).read_mask("a")[0, :7].tolist() == row

    def test_label_files_elsewhere(self, tmp_path: Path) -> None:
        folder = make_context(tmp_path, {"a": self.LABELS})
        elsewhere = tmp_path / "elsewhere" / "labels459"
        elsewhere.parent.mkdir()
        shutil.move(folder / "trainval", elsewhere)
        with pytest.raises(MixreorgError, match=r"has no mask of 'a'.*'mixreorg data prepare context60 ROOT'"):
            run("context60", tmp_path)
        assert run("context60", tmp_path, labels=elsewhere).converted.written == 1
        with pytest.raises(MixreorgError, match=r"voc21 has no label files to convert"):
            run("voc21", tmp_path, labels=elsewhere)

    def test_the_order_of_labels_is_checked(self, tmp_path: Path) -> None:
        folder = make_context(tmp_path, {"a": self.LABELS})
        (folder / "labels.txt").write_text("1: accordion\n3: aeroplane\n")
        with pytest.raises(MixreorgError, match=r"labels\.txt gives the label 3 to 'aeroplane', which is label 2"):
            run("context60", tmp_path)

    def test_damaged_label_files(self, tmp_path: Path) -> None:
        import scipy.io

        folder = make_context(tmp_path, {"a": self.LABELS})
        path = folder / "trainval" / "a.mat"
        whole = path.read_bytes()
        for content in (b"no matrix", whole[:-20]):
            path.write_bytes(content)
            with pytest.raises(MixreorgError, match=r"cannot read .*a\.mat|a\.mat is not a readable MATLAB file"):
                run("context60", tmp_path)
        scipy.io.savemat(path, {"LabelMap": np.array([[460]])})
        with pytest.raises(MixreorgError, match=r"a\.mat holds labels outside 0 \.\. 459"):
            run("context60", tmp_path)
        scipy.io.savemat(path, {"Other": np.array([[1]])})
        with pytest.raises(MixreorgError, match=r"a\.mat holds no matrix LabelMap"):
            run("context60", tmp_path)
        path.unlink()
        (folder / "trainval" / "b.mat").touch()
        with pytest.raises(MixreorgError, match=r"val\.txt names 1 photos, but .*a\.mat is missing"):
            run("context60", tmp_path)
        assert not (folder / "SegmentationClassContext").exists()


class TestRelabelling:
    def test_coco_stuff_maps(self, tmp_path: Path) -> None:
        folder = make_coco(tmp_path, {"1": stripes([0, 89, 91, 255])})
        before = open_benchmark("coco_object", tmp_path).read_mask("1")
        assert run("coco_object", tmp_path).target == "_instanceTrainIds"
        assert stored(folder / "stuffthingmaps" / "val2017" / "1_instanceTrainIds.png")[:4] == [1, 80, 0, 0]
        assert run("coco_stuff", tmp_path).converted.written == 1
        assert stored(folder / "stuffthingmaps" / "val2017" / "1_labelTrainIds.png")[:4] == [0, 79, 80, 255]
        # Written masks are no photos and no maps, and read the same once the maps are gone.
        (folder / "stuffthingmaps" / "val2017" / "1.png").unlink()
        split = open_benchmark("coco_object", tmp_path)
        assert split.form.name == "_instanceTrainIds"
        assert (split.read_mask("1") == before).all()
        assert open_benchmark("coco_stuff", tmp_path).read_mask("1")[0, :4].tolist() == [0, 79, 80, VOID]

    def test_cityscapes(self, tmp_path: Path) -> None:
        stem = "lindau/lindau_000000_000019"
        folder = make_cityscapes(tmp_path, {stem: stripes([0, 7, 8, 33, 30])})
        before = open_benchmark("cityscapes", tmp_path).read_mask(stem)
        assert run("cityscapes", tmp_path).target == "labelTrainIds"
        assert stored(folder / "gtFine" / "val" / f"{stem}_gtFine_labelTrainIds.png")[:5] == [255, 0, 1, 18, 255]
        (folder / "gtFine" / "val" / f"{stem}_gtFine_labelIds.png").unlink()
        assert (open_benchmark("cityscapes", tmp_path).read_mask(stem) == before).all()

    def test_a_check_writes_nothing(self, tmp_path: Path) -> None:
        make_coco(tmp_path, {"1": stripes([0])})
        before = sorted(tmp_path.rglob("*"))
        prepared = run("coco_object", tmp_path, check_only=True)
        assert (prepared.target, prepared.report.masks) == (None, "stuffthingmaps")
        assert sorted(tmp_path.rglob("*")) == before

    def test_an_unknown_label_stops_and_names_the_file(self, tmp_path: Path) -> None:
        make_cityscapes(tmp_path, {"a/a_1": stripes([34])})
        with pytest.raises(MixreorgError, match=r"a_1_gtFine_labelIds\.png holds the unknown label 34"):
            run("cityscapes", tmp_path)


class TestResuming:
    def test_only_the_rest_is_written(self, tmp_path: Path) -> None:
        stems = [f"{number:012}" for number in range(5)]
        folder = make_coco(tmp_path, {stem: stripes([0, 1]) for stem in stems})
        maps = folder / "stuffthingmaps" / "val2017"
        broken = maps / f"{stems[3]}.png"
        whole = broken.read_bytes()
        broken.write_bytes(whole[:40])
        with pytest.raises(MixreorgError, match="cannot read the mask"):
            run("coco_object", tmp_path, workers=1)
        written = sorted(path.name[:12] for path in maps.glob("*_instanceTrainIds.png"))
        # The thread may have begun the last one before the error of the one before arrived.
        assert written in (stems[:3], [*stems[:3], stems[4]])
        assert not list(maps.glob(".*"))
        broken.write_bytes(whole)
        again = run("coco_object", tmp_path, workers=4)
        assert (again.converted.written, again.converted.kept) == (5 - len(written), len(written))
        assert run("coco_object", tmp_path).converted.written == 0
        assert run("coco_object", tmp_path, overwrite=True).converted.written == 5

    def test_a_newer_source_is_converted_again(self, tmp_path: Path) -> None:
        folder = make_coco(tmp_path, {"1": stripes([0])})
        run("coco_object", tmp_path)
        path = folder / "stuffthingmaps" / "val2017" / "1.png"
        Image.fromarray(stripes([1]).astype(np.uint8)).save(path)
        later = (folder / "stuffthingmaps" / "val2017" / "1_instanceTrainIds.png").stat().st_mtime + 10
        os.utime(path, (later, later))
        assert run("coco_object", tmp_path).converted.written == 1
        assert stored(folder / "stuffthingmaps" / "val2017" / "1_instanceTrainIds.png")[0] == 2


def polygon(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


# pycocotools 2.0.11 hands its arrays to numpy 2 in the old way.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
class TestInstances:
    def draw(self, root: Path, annotations: list[dict[str, object]]) -> np.ndarray:
        folder = make_instances(root, annotations)
        prepared = run("coco_object", root)
        assert prepared.target == prepared.report.masks == "instances"
        assert (folder / "annotations" / "instances_val2017" / "000000000009.png").is_file()
        return open_benchmark("coco_object", root).read_mask("000000000009")

    def test_polygons_and_overlaps(self, tmp_path: Path) -> None:
        cat, dog = 17, 18
        mask = self.draw(
            tmp_path,
            [
                {"category_id": dog, "area": 6, "segmentation": polygon(1, 1, 4, 3)},
                {"category_id": cat, "area": 40, "segmentation": polygon(0, 0, 8, 5)},
            ],
        )
        expected = np.zeros((HEIGHT, WIDTH), dtype=int)
        expected[0:5, 0:8] = 16  # cat is the 16th thing
        expected[1:3, 1:4] = 17  # the smaller dog shows, though it was listed first
        assert mask.tolist() == expected.tolist()

    def test_run_lengths_of_crowds(self, tmp_path: Path) -> None:
        crowd = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
        crowd[2:6, 3:9] = 1
        counts: list[int] = []
        current = 0
        for value in crowd.ravel(order="F"):
            if not counts or value != current:
                counts += [0] if counts or value == 0 else [0, 0]
                current = value
            counts[-1] += 1
        plain = {"size": [HEIGHT, WIDTH], "counts": counts}
        packed = coco_mask.encode(crowd)
        packed["counts"] = packed["counts"].decode()
        for place, outline in enumerate((plain, packed)):
            mask = self.draw(
                tmp_path / str(place),
                [
                    {"category_id": 1, "area": 24, "iscrowd": 1, "segmentation": outline},
                    {"category_id": 90, "area": 50, "segmentation": polygon(0, 0, 4, 4)},
                ],
            )
            expected = crowd.astype(int)
            expected[0:4, 0:4] = 80  # a crowd lies below, whatever its size
            assert mask.tolist() == expected.tolist()

    def test_photos_without_instances_are_background(self, tmp_path: Path) -> None:
        assert self.draw(tmp_path, []).max() == 0

    @pytest.mark.parametrize(
        ("annotation", "message"),
        [
            ({"category_id": 26, "area": 1, "segmentation": []}, "category 26, which COCO's 80 things lack"),
            ({"category_id": 1, "area": 1}, "not an instances file of COCO"),
            ({"category_id": 1, "area": 1, "segmentation": "oops"}, "cannot draw the instances of 000000000009"),
        ],
    )
    def test_bad_annotations(self, tmp_path: Path, annotation: dict[str, object], message: str) -> None:
        make_instances(tmp_path, [annotation])
        with pytest.raises(MixreorgError, match=message):
            run("coco_object", tmp_path)

    def test_photos_of_another_split(self, tmp_path: Path) -> None:
        folder = make_instances(tmp_path, [])
        write_photo(folder / "val2017" / "000000000011.jpg")
        with pytest.raises(MixreorgError, match=r"instances_val2017\.json lacks the photo 000000000011 and 0 others"):
            run("coco_object", tmp_path)

    def test_maps_win(self, tmp_path: Path) -> None:
        make_instances(tmp_path, [])
        make_coco(tmp_path, {"000000000009": stripes([0])})
        assert run("coco_object", tmp_path).target == "_instanceTrainIds"

    def test_real_sample(self, shared: Path, tmp_path: Path) -> None:
        source, folder = shared / "data" / "coco", tmp_path / "coco"
        (folder / "annotations").mkdir(parents=True)
        path = folder / "annotations" / "instances_val2017.json"
        shutil.copy(source / "annotations" / path.name, path)
        images = json.loads(path.read_text())["images"][:6]
        (folder / "val2017").mkdir()
        for image in images:
            shutil.copy(source / "val2017" / image["file_name"], folder / "val2017")
        prepared = run("coco_object", tmp_path, sample=None)
        assert prepared.converted.written == 6
        assert [finding.kind for finding in prepared.report.findings] == ["number of photos"]
        assert sum(label.num_masks > 0 for label in prepared.report.labels) > 3


class TestCommand:
    def invoke(self, *arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["data", "prepare", *map(str, arguments)])
        if isinstance(result.exception, MixreorgError):
            return 2, str(result.exception)
        return result.exit_code, result.output

    def test_prepares_and_reports(self, tmp_path: Path) -> None:
        make_context(tmp_path, {"a": stripes([2, 284, 1])})
        out = tmp_path / "report.json"
        code, text = self.invoke("context60", tmp_path, "--out", out)
        assert code == 1  # one photo is not the official split
        assert "masks of the form SegmentationClassContext: 1 written, 0 there already" in text
        assert "labels in them: 3 of 60" in text
        assert "number of photos" in text
        assert "doubtful" in text
        report = json.loads(out.read_text())
        assert report["name"] == "context60/val"
        assert report["findings"][0]["kind"] == "number of photos"

    def test_own_data_may_be_fine(self, tmp_path: Path) -> None:
        folder = make_voc(tmp_path, {"a": stripes([0, 1])})
        names = tmp_path / "names.txt"
        names.write_text("background\ncat\n")
        assert self.invoke("voc_folder", folder, "--classes", names, "--sample", 0)[0] == 0
        names.write_text("background\ncat\ndog=dog|puppy\n")
        code, text = self.invoke("voc_folder", folder, "--classes", names, "--check")
        assert code == 0
        assert "labels in them: 2 of 3" in text

    def test_errors(self, tmp_path: Path) -> None:
        folder = make_voc(tmp_path, {"a": stripes([33])})
        code, text = self.invoke("voc12", folder)
        assert code == 2
        assert "unusable mask" in text
        code, text = self.invoke("cityscapes", folder)
        assert code == 2
        assert "get it from" in text

    def test_an_interrupt_is_no_traceback(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_coco(tmp_path, {"1": stripes([0])})

        def interrupt(path: Path) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(prepare_module, "read_stored_mask", interrupt)
        code, text = self.invoke("coco_object", tmp_path)
        assert code == 130
        assert "written masks stay" in text
