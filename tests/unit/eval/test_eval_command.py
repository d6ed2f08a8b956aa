"""``mixreorg eval``: files, pages, adapters, caches and errors."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from eval_kit import ADAPTER, NAMES, write_voc
from mixreorg.cli.eval_command import evaluate
from mixreorg.errors import MixreorgError
from mixreorg.eval.confusion import Confusion
from mixreorg.eval.embedding_cache import cached_class_embeddings, text_digest
from mixreorg.eval.evaluate import label_photo
from mixreorg.eval.evaluators import load_function
from mixreorg.eval.protocols import find_protocol, resolve_protocol
from mixreorg.eval.report.published import published_numbers
from mixreorg.eval.report.words import caveats, measure_rows, published_rows
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.interop.convert import convert_model
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import save_model
from mixreorg.segment.photos import read_photo
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.class_list import ClassName
from mixreorg.text.tokenizer import Tokenizer
from page_kit import Page

app = typer.Typer()
app.command()(evaluate)
SMALL = Protocol(name="small", short_side=32, window=32, stride=16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path, tiny_model: DualEncoder) -> Path:
    save_model(tiny_model, tmp_path / "model", SMALL.to_dict())
    return tmp_path / "model"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    write_voc(tmp_path / "voc", "train", seed=1)
    return write_voc(tmp_path / "voc", "val", count=8)


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_report_says_what_was_measured(tmp_path: Path, model: Path, voc: Path, tiny_model: DualEncoder) -> None:
    out = tmp_path / "out"
    run(model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model", "--background", 0.15, "--out", out)
    facts = json.loads((out / "report.json").read_text())
    split = open_voc_split(voc, "val")
    expected = Confusion(4)
    segmenter = Segmenter(tiny_model, SMALL.updated(background_threshold=0.15))
    for stem in split.stems:
        expected.add(split.read_mask(stem), segmenter(split.photo_path(stem), list(NAMES)).label_map)
    assert facts["confusion"] == expected.matrix.tolist()
    assert facts["miou"] == pytest.approx(expected.miou())
    assert facts["miou_interval"][0] <= facts["miou_interval"][1]
    assert list(facts["per_class_iou"]) == ["background", *NAMES]
    assert list(facts["per_class_iou"].values()) == pytest.approx(100 * expected.iou())
    assert facts["num_images"] == 8
    assert facts["images_per_second"] > 0
    assert len(facts["threshold_curve"]) == 39
    assert not {"background_miou", "background_threshold"} & set(facts["metrics"])  # of the split's best threshold
    assert facts["protocol"]["threshold_rule"] == "fixed"
    assert len(facts["protocol_hash"]) == 12
    worst = facts["confusion_pairs"][0]
    rows = ["background", *NAMES]
    assert expected.matrix[rows.index(worst["truth"]), rows.index(worst["prediction"])] == worst["pixels"]
    assert {"boundary_iou", "grouping_oracle_miou", "naming_oracle_miou", "zero_iou_share"} <= set(facts["metrics"])
    assert len(facts["best_photos"]) == len(facts["worst_photos"]) == 4
    assert facts["best_photos"][0]["miou"] >= facts["worst_photos"][-1]["miou"]
    page = Page((out / "report.html").read_text())
    assert "script" not in page.tags
    assert page.tags.count("img") == 24
    assert page.tags.count("svg") == 2
    assert f"mIoU {facts['miou']:.1f} (95 % interval" in page.text
    assert facts["protocol_hash"] in page.text
    markdown = (out / "report.md").read_text()
    assert facts["protocol_hash"] in markdown
    assert "| grouping oracle |" in markdown


def test_a_calibration_beside_the_model_is_not_asked_for(tmp_path: Path, model: Path, voc: Path) -> None:
    (model / "calibration.json").write_text('{"format": "mixreorg-calibration-0"}')
    arguments = (model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model", "--background", 0.15,
                 "--out", tmp_path / "out")  # fmt: skip
    assert "as it should be" in run(*arguments, "--check")
    run(*arguments)
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("changes", [{}, {"background_phrases": ("sky",)}, {"refine": "guided", "flip": True}])
@pytest.mark.parametrize("threshold", [0.3, None])
def test_shown_labels_are_those_of_the_segmenter(
    voc: Path, tiny_model: DualEncoder, changes: dict[str, Any], threshold: float | None
) -> None:
    protocol, split = SMALL.updated(**changes), open_voc_split(voc, "val")
    segmenter = Segmenter(tiny_model, protocol.updated(background_threshold=threshold))
    for stem in split.stems[:3]:
        photo = read_photo(split.photo_path(stem))
        labels = label_photo(Segmenter(tiny_model, protocol), photo, split.classes, threshold)
        assert (labels == segmenter(photo, split.classes).label_map).all()


def test_the_threshold_is_chosen_on_another_split(tmp_path: Path, model: Path, voc: Path) -> None:
    common = (model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model")
    run(*common, "--calibrate-on", "train", "--out", tmp_path / "val")
    run(*common, "--background", 0.5, "--split", "train", "--out", tmp_path / "train")
    facts, train = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("val", "train"))
    best = max(train["threshold_curve"], key=lambda point: point[1])
    assert facts["protocol"]["threshold"] == best[0]
    assert facts["protocol"]["calibrated_on"] == "train"
    assert f"background threshold {best[0]:g} chosen on train" in (tmp_path / "val" / "report.md").read_text()
    with pytest.raises(MixreorgError, match="cannot be chosen on voc/val"):
        run(*common, "--calibrate-on", "val", "--out", tmp_path / "none")
    with pytest.raises(MixreorgError, match="has no background threshold for voc/val"):
        run(*common, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_threshold_is_chosen_on_other_photos(tmp_path: Path, model: Path, voc: Path) -> None:
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())
    with pytest.raises(MixreorgError, match=r"chosen on voc/trainval: 8 of its 13 photos are in voc/val"):
        run(model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model", "--calibrate-on", "trainval",
            "--out", tmp_path / "out")  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_no_benchmark_is_an_error(model: Path, voc: Path, check: tuple[str, ...]) -> None:
    with pytest.raises(MixreorgError, match="no benchmark is named"):
        run(model, "--benchmark", " , ", "--data", voc, *check)


def test_check_reads_every_mask(tmp_path: Path, model: Path) -> None:
    voc = write_voc(tmp_path / "many", count=203)  # more than the sample of a plain check
    arguments = [str(item) for item in (model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model",
                 "--background", 0.5, "--check")]  # fmt: skip
    for stem in ("val67", "val202"):
        path = voc / "SegmentationClass" / f"{stem}.png"
        good = path.read_bytes()
        with Image.open(path) as mask:
            Image.fromarray(np.full((mask.height, mask.width), 7, dtype=np.uint8)).save(path)
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert f"{stem}.png" in result.output.replace("\n", "")
        path.write_bytes(good)


def test_check_looks_at_everything_and_writes_nothing(tmp_path: Path, model: Path, voc: Path) -> None:
    arguments = (model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model", "--background", 0.5,
                 "--out", tmp_path / "out", "--check")  # fmt: skip
    assert "as it should be" in run(*arguments)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()
    Image.fromarray(np.full((32, 32), 7, dtype=np.uint8)).save(voc / "SegmentationClass" / "val3.png")
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == 2
    assert "val3.png" in result.output.replace("\n", "")


@pytest.mark.parametrize("options", [(), ("--check",), ("--calibrate-on", "train", "--check")])
def test_a_photo_thinner_than_a_patch_is_named(
    tmp_path: Path, model: Path, voc: Path, options: tuple[str, ...]
) -> None:
    stem, size = ("train4" if "train" in options else "val5"), (2000, 5)
    Image.new("RGB", size).save(voc / "JPEGImages" / f"{stem}.jpg")
    Image.new("L", size).save(voc / "SegmentationClass" / f"{stem}.png")
    threshold = () if "train" in options else ("--background", 0.5)
    with pytest.raises(MixreorgError, match=rf"{stem}\.jpg: a photo of 2000 x 5 pixels .* thinner than one patch"):
        run(model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model", "--out", tmp_path / "out",
            *threshold, *options)  # fmt: skip


def test_an_interrupted_command_goes_on(
    tmp_path: Path, model: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(item) for item in (model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model",
                 "--background", 0.5, "--out", tmp_path / "out")]  # fmt: skip

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mixreorg.eval.run.build_facts", interrupt)
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 130
    assert "go on by --resume" in result.output
    with pytest.raises(MixreorgError, match="holds an evaluation already"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(MixreorgError, match="holds an evaluation already"):
        CliRunner().invoke(app, [*arguments, "--check"], catch_exceptions=False)
    mask = voc / "SegmentationClass" / "val0.png"
    content, status = mask.read_bytes(), mask.stat()
    Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(mask)
    with pytest.raises(MixreorgError, match=r"holds parts of another evaluation \(files"):
        CliRunner().invoke(app, [*arguments, "--resume"], catch_exceptions=False)
    mask.write_bytes(content)
    os.utime(mask, ns=(status.st_atime_ns, status.st_mtime_ns))
    run(*arguments, "--resume")
    assert (tmp_path / "out" / "report.json").is_file()


@pytest.mark.parametrize("step", ["_labelled", "write_html"])
def test_an_older_report_never_lies_beside_new_counts(
    tmp_path: Path, model: Path, voc: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    out = tmp_path / "out"
    common = (model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model", "--out", out)
    run(*common, "--background", 0.1)
    before = {name: (out / name).read_bytes() for name in ("report.json", "photos.npz")}
    shutil.rmtree(out / "parts")

    def fail(*_: object) -> None:
        raise MixreorgError("no")

    monkeypatch.setattr(f"mixreorg.eval.run.{step}", fail)
    with pytest.raises(MixreorgError, match="no"):
        run(*common, "--background", 0.9)
    if (out / "report.json").exists():
        assert {name: (out / name).read_bytes() for name in before} == before
    else:
        assert (out / "photos.npz").read_bytes() != before["photos.npz"]


def test_without_matplotlib_nothing_is_begun(
    tmp_path: Path, model: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MixreorgError, match=r"need matplotlib: pip install .*mixreorg\[eval\]"):
        run(model, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model", "--background", 0.5,
            "--out", tmp_path / "out")  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_used_folder_is_refused_before_the_first_benchmark(tmp_path: Path, model: Path, voc: Path) -> None:
    for source, target in (("JPEGImages", "images/val"), ("SegmentationClass", "annotations/val")):
        (voc / target).parent.mkdir()
        (voc / source).rename(voc / target)
        (voc / source).symlink_to(voc / target)
    used = tmp_path / "out" / "ade_folder" / "parts" / "evaluation"
    used.mkdir(parents=True)
    for name in ("job.json", "part-00000.npz"):
        (used / name).write_text("{}")
    with pytest.raises(MixreorgError, match=r"ade_folder/parts/evaluation holds an evaluation already"):
        run(model, "--benchmark", "voc_folder,ade_folder", "--data", voc, "--protocol", "model", "--background", 0.5,
            "--out", tmp_path / "out")  # fmt: skip
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ade_folder"]


def test_any_function_can_be_evaluated(tmp_path: Path, voc: Path) -> None:
    adapter = tmp_path / "adapter.py"
    adapter.write_text(ADAPTER)
    out = tmp_path / "out"
    common = ("--benchmark", "voc_folder", "--data", voc, "--background", 0.5)
    run(f"{adapter}:load", *common, "--out", out)
    facts = json.loads((out / "report.json").read_text())
    split, expected = open_voc_split(voc, "val"), Confusion(4)
    for stem in split.stems:
        with Image.open(split.photo_path(stem)) as photo:
            expected.add(split.read_mask(stem), np.asarray(photo.convert("L")).astype(int) * 4 // 256)
    assert facts["confusion"] == expected.matrix.tolist()
    assert facts["threshold_curve"] == []
    assert not {"grouping_oracle_miou", "recognition"} & set(facts["metrics"])
    assert facts["model"]["function"] == f"{adapter}:load"
    adapter.write_text(ADAPTER.replace("// 256", "// 300"))
    with pytest.raises(MixreorgError, match="parts of another evaluation"):
        run(f"{adapter}:load", *common, "--out", out, "--resume")
    for name, message in {
        "wrong_shape": "must return integers of shape",
        "wrong_labels": "there are 4 names",
        "nothing": "returned a NoneType; it must return a function",
        "missing": "has no function 'missing'",
    }.items():
        with pytest.raises(MixreorgError, match=message):
            run(f"{adapter}:{name}", *common, "--out", tmp_path / name)
    # A file of a library's name does not stand in its way.
    resolved = resolve_protocol(find_protocol("scenes"), "voc_folder", split, threshold=0.5)
    namesake = tmp_path / "json.py"
    namesake.write_text(ADAPTER + "\nimport json\n\n\ndef named(protocol, device):\n    return json.dumps\n")
    assert load_function(f"{namesake}:named", resolved, "cpu").predict is json.dumps
    with pytest.raises(MixreorgError, match=r"none\.py does not exist"):
        run("none.py:load", *common)
    with pytest.raises(MixreorgError, match="no module 'mixreorg_none'"):
        run("mixreorg_none:load", *common)
    with pytest.raises(MixreorgError, match="adapter has no threshold"):
        run(f"{adapter}:load", "--benchmark", "voc_folder", "--data", voc, "--calibrate-on", "train")


def test_real_photos_under_two_benchmarks(tmp_path: Path, model: Path, shared: Path) -> None:
    (tmp_path / "small.json").write_text(
        json.dumps({"name": "small", "segmentation": SMALL.to_dict(), "background_threshold": 0.3})
    )
    out = tmp_path / "out"
    run(model, "--benchmark", "voc12,voc20", "--data", shared / "data", "--max-images", 3,
        "--protocol", tmp_path / "small.json", "--out", out)  # fmt: skip
    with_background, plain = (json.loads((out / name / "report.json").read_text()) for name in ("voc21", "voc20"))
    assert len(with_background["label_names"]) == 21
    assert len(plain["label_names"]) == 20
    assert plain["protocol"]["threshold_rule"] == "none"
    assert {"GroupViT", "MixReorg"} <= {item["system"] for item in with_background["published"]}
    assert "this result" in (out / "voc21" / "report.md").read_text()
    assert with_background["masks"] == "SegmentationClass"
    assert with_background["official_num_images"] == [1449]
    for suffix in ("md", "html"):
        caveat = "3 photos instead of 1,449: not comparable with published numbers"
        assert caveat in (out / "voc21" / f"report.{suffix}").read_text()
    summary = (out / "summary.md").read_text()
    assert with_background["protocol_hash"] in summary
    assert plain["protocol_hash"] in summary
    for name in ("voc21", "voc20"):
        assert f"- {name}: {caveat}\n" in summary
    with pytest.raises(MixreorgError, match="named twice"):
        run(model, "--benchmark", "voc12,voc21", "--data", shared / "data")


def test_what_is_not_comparable_is_said() -> None:
    protocol = {"name": "groupvit", "threshold_rule": "published", "background": "background threshold 0.95"}
    whole = {"num_images": 5104, "official_num_images": [5105, 5104], "masks": "SegmentationClassContext",
             "split": "context60/val", "protocol": protocol}  # fmt: skip
    assert caveats(whole) == []
    by_hand = {**protocol, "threshold_rule": "fixed"}
    own = {**whole, "official_num_images": [], "num_images": 3, "split": "own/test", "protocol": by_hand}
    assert caveats(own) == []
    assert caveats({**whole, "split": "context60/train"}) == ["the split train: published numbers are of val"]
    assert "published numbers have their protocol's" in caveats({**whole, "protocol": by_hand})[0]
    published = {"published": [], "model": {"name": "m"}, "miou": 60.0}
    assert published_rows({**whole, **published})[0][3] == "groupvit"
    assert published_rows({**whole, **published, "protocol": by_hand})[0][3] == "groupvit, another threshold"
    assert caveats({**whole, "num_images": 3})[0].startswith("3 photos instead of 5,105 or 5,104")
    assert "instances JSON" in caveats({**whole, "masks": "instances"})[0]
    measured = {**whole, "metrics": {"boundary_iou": 9.0}}
    assert "without background" not in measure_rows(measured)[0][2]
    assert "without background" in measure_rows({**measured, "protocol": {**protocol, "threshold_rule": "none"}})[0][2]


def test_published_numbers_are_those_of_the_papers() -> None:
    numbers = {(item.system, item.training): item.miou for item in published_numbers("voc21")}
    assert numbers["MixReorg", "CC12M"] == 47.9
    assert numbers["GroupViT", "CC3M+CC12M+YFCC14M"] == 52.3
    assert published_numbers("own data") == ()
    for name in ("voc21", "voc20", "context60", "context59", "coco_object", "coco_stuff", "ade150", "cityscapes"):
        assert all(item.source and 0 < item.miou < 100 for item in published_numbers(name))
        assert published_numbers(name)


def test_class_embeddings_are_encoded_once_per_weights_tokenizer_and_protocol(
    tmp_path: Path, tiny_model: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = [ClassName("dog"), ClassName("cat", ("kitten", "pussycat"))]
    first = Segmenter(tiny_model, SMALL)
    assert not cached_class_embeddings(first, classes, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tiny_model, "encode_prompts", None)
        second = Segmenter(tiny_model, SMALL)
        assert cached_class_embeddings(second, classes, tmp_path)
        assert (second.class_embeddings(classes)[0] == first.class_embeddings(classes)[0]).all()
    assert not cached_class_embeddings(Segmenter(tiny_model, SMALL.updated(templates=("{}",))), classes, tmp_path)
    before = text_digest(tiny_model, ["a"])
    assert text_digest(tiny_model, ["b"]) != before
    tiny_model.text_projector.out.weight.data += 1
    assert text_digest(tiny_model, ["a"]) != before
    third = Segmenter(tiny_model, SMALL)
    assert not cached_class_embeddings(third, classes, tmp_path)
    other = DualEncoder(
        tiny_model.config.updated(text=tiny_model.config.text.updated(num_heads=1)), tiny_model.tokenizer
    )
    other.load_state_dict(tiny_model.state_dict())
    assert not cached_class_embeddings(Segmenter(other.eval(), SMALL), classes, tmp_path)
    for file in tmp_path.glob("*.npz"):
        file.write_bytes(file.read_bytes()[:40])
    fourth = Segmenter(tiny_model, SMALL)
    assert not cached_class_embeddings(fourth, classes, tmp_path)
    assert cached_class_embeddings(Segmenter(tiny_model, SMALL), classes, tmp_path)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, tiny_model: DualEncoder) -> None:
    (tmp_path / "file").touch()
    segmenter, classes = Segmenter(tiny_model, SMALL), [ClassName("dog")]
    assert not cached_class_embeddings(segmenter, classes, tmp_path / "file" / "cache")
    assert (segmenter.class_embeddings(classes)[0] == Segmenter(tiny_model, SMALL).class_embeddings(classes)[0]).all()


def test_groupvit_weights_of_others_are_measured_like_our_own(
    tmp_path: Path, voc: Path, tiny_config: DualEncoderConfig
) -> None:
    tokenizer = Tokenizer.clip()
    text = tiny_config.text.updated(
        vocab_size=tokenizer.vocab_size, context_length=tokenizer.context_length, end_id=tokenizer.end_id
    )
    torch.manual_seed(0)
    save_model(DualEncoder(tiny_config.updated(text=text), tokenizer), tmp_path / "native")
    sources = {"native": tmp_path / "native", "hf": tmp_path / "hf", "original": tmp_path / "original.pth"}
    convert_model(sources["native"], sources["hf"], "hf")
    convert_model(sources["native"], sources["original"], "original")
    options = ("--benchmark", "voc_folder", "--data", voc, "--protocol", "scenes", "--background", 0.3)
    reports = {}
    for name, source in sources.items():
        run(source, *options, "--out", tmp_path / f"out_{name}")
        reports[name] = json.loads((tmp_path / f"out_{name}" / "report.json").read_text())["confusion"]
    assert reports["hf"] == reports["native"]
    assert reports["original"] == reports["native"]
