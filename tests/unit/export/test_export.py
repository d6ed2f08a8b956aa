"""Exported files against the model they came from, and what happens to files that are not whole."""

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_kit import CLASSES, TARGETS, photo

from mixreorg.cli.main import app
from mixreorg.errors import MixreorgError
from mixreorg.export.exporter import export_model
from mixreorg.export.graphs import OPSET
from mixreorg.export.manifest import METADATA_KEY
from mixreorg.export.runtime import ExportedSegmenter, find_export
from mixreorg.models.digest import model_digest
from mixreorg.models.folder import save_model
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.segment.calibration import Calibration, protocol_key
from mixreorg.segment.phrase_memory import PHRASES_KEPT
from mixreorg.segment.presence import PresenceRule
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.class_list import ClassName
from mixreorg.text.tokenizer import Tokenizer

SIZES = [(64, 64), (100, 75), (40, 30), (75, 200), (400, 30)]


def sources(root: Path) -> Iterator[Path]:
    for to, suffix in TARGETS.items():
        yield root / to
        yield root / f"baked{suffix}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("background", [None, 0.4])
def test_masks_are_those_of_the_model_at_any_size(segmenter, exports, size, background) -> None:
    protocol = segmenter.protocol.updated(background_threshold=background)
    segmenter = Segmenter(segmenter.model, protocol)
    expected = segmenter(photo(*size), CLASSES)
    for source in sources(exports):
        found = ExportedSegmenter(source, protocol, threads=1)(photo(*size), CLASSES)
        assert (found.label_map == expected.label_map).all()
        assert found.class_names == expected.class_names
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize(
    "options",
    [
        {"negatives": "sky, wall"},
        {"abstain": 0.05},
        {"background": "auto"},
        {"negatives": "sky", "abstain": 0.1, "background": 0.3},
        {"abstain": 1.0},
    ],
)
def test_negatives_abstention_and_automatic_background_are_those_of_the_model(segmenter, exports, to, options) -> None:
    expected = segmenter(photo(), CLASSES, **options)
    found = ExportedSegmenter(exports / to, threads=1)(photo(), CLASSES, **options)
    assert (found.label_map == expected.label_map).all()
    assert (found.absent, found.negative_pixels) == (expected.absent, expected.negative_pixels)
    assert found.background is not None
    assert found.background.rule == expected.background.rule
    assert found.background.threshold == pytest.approx(expected.background.threshold, abs=1e-4)
    np.testing.assert_allclose(found.presence_scores, expected.presence_scores, atol=1e-4)


def test_baked_classes_know_thresholds_alone(segmenter, exports) -> None:
    exported = ExportedSegmenter(exports / "baked.onnx", threads=1)
    expected, found = (one(photo(), CLASSES, background="auto") for one in (segmenter, exported))
    assert (found.label_map == expected.label_map).all()
    assert found.presence_scores is None
    for options in ({"negatives": "sky"}, {"abstain": 0.5}):
        with pytest.raises(MixreorgError, match="leave negatives and abstention out"):
            exported(photo(), **options)
    with pytest.raises(MixreorgError, match="leave the calibration out"):
        ExportedSegmenter(exports / "baked.onnx", threads=1, calibration="calibration.json")


def calibration_of(model, protocol) -> Calibration:
    return Calibration(
        version="1",
        model=model_digest(model),
        protocol=protocol_key(protocol),
        data="VOC",
        split="val",
        num_photos=1,
        num_classes=2,
        presence=PresenceRule(bank=("dog", "cat"), image_weight=0.5, segment_weight=0.2, bias=0.1),
        presence_threshold=0.5,
        background_threshold=0.2,
        abstaining_background_threshold=0.1,
    )


def test_a_calibration_goes_with_the_export(model, exports, tmp_path) -> None:
    calibration = calibration_of(model, Segmenter(model).protocol)
    shutil.copytree(exports / "onnx", tmp_path / "exported")
    calibration.save(tmp_path / "exported" / "calibration.json")
    options = {"abstain": "auto", "background": "auto"}
    found = ExportedSegmenter(tmp_path / "exported", threads=1)(photo(), CLASSES, **options)
    expected = Segmenter(model, calibration=calibration)(photo(), CLASSES, **options)
    assert (found.label_map == expected.label_map).all()
    assert found.calibrated_on == expected.calibrated_on == "1 photos of VOC/val"
    np.testing.assert_allclose(found.presence_scores, expected.presence_scores, atol=1e-4)
    with pytest.raises(MixreorgError, match="made for a model of digest"):
        ExportedSegmenter(exports / "onnx", threads=1, calibration=calibration.updated(model="other"))


def test_the_command_takes_a_calibration_made_for_its_options(model, exports, tmp_path) -> None:
    protocol = Segmenter(model).protocol.updated(templates=("a drawing of a {}.",))
    calibration_of(model, protocol).save(tmp_path / "drawings.json")
    photo().save(tmp_path / "photo.png")
    arguments = ["segment", str(tmp_path / "photo.png"), "--model", str(exports / "onnx"), "--classes", "dog, cat"]
    arguments += ["--out", str(tmp_path / "masks"), "--calibration", str(tmp_path / "drawings.json")]
    app([*arguments, "--template", "a drawing of a {}."], standalone_mode=False)
    assert json.loads((tmp_path / "masks" / "photo.json").read_text())["calibrated_on"] == "1 photos of VOC/val"
    with pytest.raises(MixreorgError, match="made for a protocol of hash"):
        app(arguments, standalone_mode=False)


@pytest.mark.parametrize("to", TARGETS)
def test_embeddings_and_assignments_are_those_of_the_model(segmenter, exports, to) -> None:
    exported = ExportedSegmenter(exports / to, threads=1, window_batch=2)
    pictures = [photo(120, 64, seed) for seed in (1, 2)]
    expected, found = segmenter.encode(pictures), exported.encode(pictures)
    assignment = expected.encoding.patch_assignment.reshape(found.assignment.shape)
    for ours, theirs in (
        (found.assignment, assignment),
        (found.segment_embeddings, expected.segment_embeddings),
        (found.image_embedding, expected.image_embedding),
        (exported.class_embeddings(CLASSES), segmenter.class_embeddings(CLASSES)[0]),
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_windows_may_be_one_patch_high(segmenter, exports) -> None:
    protocol = segmenter.protocol.updated(short_side=8)
    expected = Segmenter(segmenter.model, protocol)(photo(40, 8), CLASSES)
    for source in sources(exports):
        assert (
            ExportedSegmenter(source, protocol, threads=1)(photo(40, 8), CLASSES).label_map == expected.label_map
        ).all()


def test_photos_thinner_than_a_patch_are_refused_as_by_the_model(segmenter, exports) -> None:
    errors = set()
    for one in (segmenter, ExportedSegmenter(exports / "onnx", threads=1)):
        with pytest.raises(MixreorgError, match=r"crop it, or raise the protocol's long_side \(2048\)") as caught:
            one(photo(3, 3000), CLASSES)
        errors.add(str(caught.value))
    assert len(errors) == 1


def test_templates_are_averaged_before_normalisation(segmenter, exports) -> None:
    protocol = segmenter.protocol.updated(templates=("a photo of a {}.", "{}", "the {} on the grass"))
    expected, _ = Segmenter(segmenter.model, protocol).class_embeddings(CLASSES)
    found = ExportedSegmenter(exports / "onnx", protocol, threads=1).class_embeddings(CLASSES)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_phrases_are_kept_within_bounds(exports, monkeypatch) -> None:
    exported = ExportedSegmenter(exports / "onnx", threads=1)
    encoded: list[str] = []
    monkeypatch.setattr(exported, "_encode_text", lambda prompts: encoded.extend(prompts) or np.ones((len(prompts), 2)))
    names = [f"thing {index}" for index in range(PHRASES_KEPT + 10)]
    assert exported.class_embeddings([ClassName(name) for name in names]).shape == (len(names), 2)
    encoded.clear()
    for name in (names[10], names[9]):
        exported.class_embeddings([ClassName(name)])
    assert encoded == ["a photo of a thing 9."]
    assert exported._encode_phrases(names[:2])[0].base is None


def test_another_protocol_has_embeddings_of_its_own_templates(exports) -> None:
    exported = ExportedSegmenter(exports / "onnx", threads=1)
    before = exported.class_embeddings(CLASSES)
    exported.protocol = exported.protocol.updated(templates=("one {} on grass",))
    fresh = ExportedSegmenter(exports / "onnx", exported.protocol, threads=1)
    embeddings = exported.class_embeddings(CLASSES)
    np.testing.assert_array_equal(embeddings, fresh.class_embeddings(CLASSES))
    assert np.abs(embeddings - before).max() > 1e-3


def test_protocols_that_decode_otherwise_are_refused(segmenter, exports, tmp_path) -> None:
    for change in ({"decoding": "softmax"}, {"logit_scale": 40.0}, {"background_phrases": ("sky",)}):
        protocol = segmenter.protocol.updated(**change)
        with pytest.raises(MixreorgError, match="exports decode as GroupViT does"):
            ExportedSegmenter(exports / "onnx", protocol, threads=1)
        with pytest.raises(MixreorgError, match="exports decode as GroupViT does"):
            export_model(segmenter.model, tmp_path / "out", protocol=protocol)
    protocol = segmenter.protocol.updated(segment_similarity=0.9)
    with pytest.raises(MixreorgError, match="no embeddings to merge segments by"):
        export_model(segmenter.model, tmp_path / "out.onnx", classes=CLASSES, protocol=protocol)
    assert not list(tmp_path.iterdir())


def test_architectures_of_small_models_export_too(model, tmp_path) -> None:
    image = ImageEncoderConfig(
        **{
            **model.config.image.model_dump(),
            "stem": "conv",
            "assignment": "soft",
            "assignment_logits": "cosine",
            "centre_keys": True,
            "pre_assign_attention": False,
            "num_local_blocks": 1,
        }
    )
    small = type(model)(model.config.updated(image=image, projector_hidden=0), model.tokenizer)
    segmenter = Segmenter(small)
    export_model(small, tmp_path / "out")
    exported = ExportedSegmenter(tmp_path / "out", threads=1)
    for size in SIZES[:3]:
        assert (exported(photo(*size), CLASSES).label_map == segmenter(photo(*size), CLASSES).label_map).all()


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("size", [None, (56, 72)])
def test_local_blocks_see_the_same_windows_on_every_grid(model, tmp_path, to, size) -> None:
    """Also where the grid's sides are no multiples of the window's: here 7 x 9 patches, in windows of 2 x 2."""
    image = model.config.image.updated(num_local_blocks=1, local_window=2)
    local = type(model)(model.config.updated(image=image), model.tokenizer)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in local.parameters():  # as initialised, attention moves embeddings by less than the tolerance
            parameter.add_(torch.randn_like(parameter) * 0.2)
    segmenter = Segmenter(local, Segmenter(model).protocol.updated(short_side=56, window=72))
    export_model(local, tmp_path / "out", to, size=size, protocol=segmenter.protocol)
    exported = ExportedSegmenter(tmp_path / "out", threads=1)
    expected, found = (one.encode([photo(72, 56)]) for one in (segmenter, exported))
    assert found.assignment.shape[-2:] == (7, 9)
    for ours, theirs in (
        (found.assignment, expected.encoding.patch_assignment.reshape(found.assignment.shape)),
        (found.segment_embeddings, expected.segment_embeddings),
        (found.image_embedding, expected.image_embedding),
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_graphs_are_valid_and_say_nothing_of_the_machine(exports) -> None:
    for path in (exports / "onnx" / "image.onnx", exports / "onnx" / "text.onnx", exports / "baked.onnx"):
        graph = onnx.load(path)
        onnx.checker.check_model(graph, full_check=True)
        assert [(item.domain, item.version) for item in graph.opset_import] == [("", OPSET)]
        assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert b"/mixreorg/" not in path.read_bytes()
    shapes = {item.name: len(item.type.tensor_type.shape.dim) for item in graph.graph.output}
    assert shapes == {"segment_map": 3, "segment_scores": 3}


@pytest.mark.parametrize("to", TARGETS)
def test_a_fixed_size_takes_that_size_alone(segmenter, tmp_path, to) -> None:
    export_model(segmenter.model, tmp_path / "out", to, size=(64, 64))
    exported = ExportedSegmenter(tmp_path / "out", threads=1)
    assert (exported(photo(), CLASSES).label_map == segmenter(photo(), CLASSES).label_map).all()
    # So long that the limit of the long side makes its windows lower than 64.
    protocol = segmenter.protocol.updated(long_side=300)
    with pytest.raises(MixreorgError, match=r"windows of 64 x 30.*takes 64 x 64.*without --size"):
        ExportedSegmenter(tmp_path / "out", protocol, threads=1)(photo(400, 40), CLASSES)


@pytest.mark.parametrize("size", [(8, 64), (64, 9000)])
def test_sizes_that_cannot_be(model, tmp_path, size) -> None:
    with pytest.raises(MixreorgError, match="between two patches"):
        export_model(model, tmp_path / "out", size=size)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_halves_the_file(model, exports, tmp_path, precision) -> None:
    for to, suffix in TARGETS.items():
        path = tmp_path / f"half{suffix}"
        export_model(model, path, to, classes=CLASSES, precision=precision)
        weights = ".bin" if to == "openvino" else ".onnx"
        whole = (exports / f"baked{suffix}").with_suffix(weights).stat().st_size
        assert path.with_suffix(weights).stat().st_size < 0.75 * whole
        # The best score of a name may be that of a single patch; of this picture none changes its group where OpenVINO
        # computes in bfloat16.
        scores = ExportedSegmenter(path, threads=1)(photo(seed=1)).scores
        np.testing.assert_allclose(scores, ExportedSegmenter(exports / "baked.onnx")(photo(seed=1)).scores, atol=0.05)


def test_int8_is_calibrated_on_photos(model, exports, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        photo(64, 64, seed).save(tmp_path / "photos" / f"{seed}.png")
    path = tmp_path / "int8.onnx"
    export_model(model, path, classes=CLASSES, precision="int8", photos=tmp_path / "photos")
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("QuantizeLinear") > 10
    np.testing.assert_allclose(
        ExportedSegmenter(path, threads=1)(photo()).scores,
        ExportedSegmenter(exports / "baked.onnx", threads=1)(photo()).scores,
        atol=0.1,
    )


def test_int8_needs_photos(model, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for photos, message in ((None, "--photos"), (tmp_path / "empty", "no photos"), (tmp_path / "none", "not a folder")):
        with pytest.raises(MixreorgError, match=message):
            export_model(model, tmp_path / "out", precision="int8", photos=photos)
    with pytest.raises(MixreorgError, match="int8 alone"):
        export_model(model, tmp_path / "out", photos=tmp_path / "empty")


def test_baked_classes_are_the_only_ones(exports) -> None:
    baked = ExportedSegmenter(exports / "baked.onnx", threads=1)
    assert baked(photo()).class_names == ("dog", "cat", "car")
    with pytest.raises(MixreorgError, match="baked in \\(dog, cat, car\\)"):
        baked(photo(), "dog, tree")
    with pytest.raises(MixreorgError, match="no embeddings"):
        baked.encode([photo()])
    baked.protocol = baked.protocol.updated(shortlist=2)
    with pytest.raises(MixreorgError, match="shortlist baked in: 5"):
        baked(photo())
    with pytest.raises(MixreorgError, match="say which"):
        ExportedSegmenter(exports / "onnx", threads=1)(photo())


def test_paths_that_do_not_fit(model, exports, tmp_path) -> None:
    for out, classes, message in (
        (tmp_path / "out.xml", CLASSES, r"name it \*.onnx"),
        (tmp_path / "out.onnx", None, "name a folder"),
        (exports / "openvino", None, "another runtime"),
    ):
        with pytest.raises(MixreorgError, match=message):
            export_model(model, out, classes=classes)


def copy(exports: Path, target: Path) -> Path:
    shutil.copytree(exports, target)
    return target


@pytest.mark.parametrize("name", ["onnx/image.onnx", "onnx/text.onnx", "openvino/image.xml", "openvino/image.bin"])
def test_truncated_and_missing_files_are_named(exports, tmp_path, name) -> None:
    root = copy(exports, tmp_path / "copy")
    damaged, other = root / name, "damaged or of another version"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(MixreorgError, match=other):
        ExportedSegmenter(damaged.parent, threads=1)
    damaged.unlink()
    with pytest.raises(MixreorgError, match=r"missing|holds no export"):
        ExportedSegmenter(damaged.parent, threads=1)


def test_files_of_another_version(exports, tmp_path) -> None:
    graph = onnx.load(exports / "baked.onnx")
    path = tmp_path / "baked.onnx"

    graph.opset_import[0].version = 999
    onnx.save(graph, path)
    with pytest.raises(MixreorgError, match="another version"):
        ExportedSegmenter(path)

    graph.opset_import[0].version = OPSET
    manifest = next(item for item in graph.metadata_props if item.key == METADATA_KEY)
    manifest.value = json.dumps({**json.loads(manifest.value), "format": "mixreorg-export-0"})
    onnx.save(graph, path)
    with pytest.raises(MixreorgError, match="'mixreorg-export-0' and this version reads 'mixreorg-export-2'"):
        ExportedSegmenter(path)

    del graph.metadata_props[:]
    onnx.save(graph, path)
    with pytest.raises(MixreorgError, match="no manifest"):
        ExportedSegmenter(path)


def test_openvino_files_of_another_version(exports, tmp_path) -> None:
    path = copy(exports, tmp_path / "copy") / "baked.xml"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("mixreorg-export-2", "mixreorg-export-0"), encoding="utf-8")
    with pytest.raises(MixreorgError, match="'mixreorg-export-0' and this version reads 'mixreorg-export-2'"):
        ExportedSegmenter(path)
    path.write_text(re.sub(f"<{METADATA_KEY} value=[^>]*>", "", whole), encoding="utf-8")
    with pytest.raises(MixreorgError, match="no manifest"):
        ExportedSegmenter(path)
    path.write_text(re.sub(r'version="opset\d+"', 'version="opset999"', whole), encoding="utf-8")
    with pytest.raises(MixreorgError, match="another version"):
        ExportedSegmenter(path)


def test_parts_of_different_exports(exports, model, tmp_path) -> None:
    root = copy(exports, tmp_path / "copy")
    export_model(model, tmp_path / "other", protocol=ExportedSegmenter(root / "onnx").protocol.updated(shortlist=3))
    shutil.copy(tmp_path / "other" / "text.onnx", root / "onnx")
    with pytest.raises(MixreorgError, match="different exports"):
        ExportedSegmenter(root / "onnx")


def test_parts_of_different_models(exports, model, tmp_path) -> None:
    """Files of another model of the same architecture, which would compute without complaint."""
    other = deepcopy(model)
    with torch.no_grad():
        other.image_projector.out.weight.mul_(2)
    other.tokenizer = Tokenizer(model.tokenizer.merges[:-1], model.tokenizer.context_length)
    for to, name, message in (
        ("onnx", "text.onnx", "different exports"),
        ("onnx", "image.onnx", "different exports"),
        ("onnx", "tokenizer.json", r"tokenizer\.json is not the tokenizer of"),
        ("openvino", "image.bin", "different exports"),
    ):
        if not (tmp_path / to).is_dir():
            export_model(other, tmp_path / to, to)
        root = copy(exports, tmp_path / f"copy-{name}")
        shutil.copy(tmp_path / to / name, root / to)
        with pytest.raises(MixreorgError, match=message):
            ExportedSegmenter(root / to, threads=1)


@pytest.mark.parametrize(("to", "name"), [("onnx", "text.onnx"), ("openvino", "text.xml")])
def test_the_text_graph_is_no_model(exports, to, name) -> None:
    with pytest.raises(MixreorgError, match=rf"{name} is the text graph of an export; name its folder, .*{to}$"):
        ExportedSegmenter(exports / to / name)


def test_a_failed_export_leaves_no_folder(model, tmp_path) -> None:
    with disk_full_at(1000), pytest.raises(MixreorgError, match="cannot write"):
        export_model(model, tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())


def test_the_users_folder(exports, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(exports))
    assert find_export(Path("~/onnx")) == exports / "onnx" / "image.onnx"
    assert find_export(Path("none" * 100)) is None
    assert ExportedSegmenter("~/baked.onnx", threads=1).manifest.classes is not None


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Files cannot grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


@pytest.mark.parametrize(("to", "suffix"), TARGETS.items())
def test_a_full_disk_leaves_the_old_file(model, exports, tmp_path, to, suffix) -> None:
    root = copy(exports, tmp_path / "copy")
    path = root / f"baked{suffix}"
    before = {item: item.read_bytes() for item in root.glob("baked*")}
    with disk_full_at(100_000), pytest.raises(MixreorgError, match="cannot write"):
        export_model(model, path, to, classes=CLASSES)
    assert {item: item.read_bytes() for item in root.glob("*baked*")} == before


@pytest.mark.parametrize("to", TARGETS)
def test_a_full_disk_leaves_every_file_of_a_folder(model, exports, tmp_path, to) -> None:
    """Also those that would still have had room: parts of two exports do not fit each other."""
    folder = copy(exports, tmp_path / "copy") / to
    before = {item: item.read_bytes() for item in folder.iterdir()}
    largest = max(before, key=lambda item: len(before[item]))
    others = max(len(content) for item, content in before.items() if item != largest)
    with torch.no_grad():
        other = deepcopy(model)
        other.image_projector.out.weight.mul_(2)
    with disk_full_at(others + 1), pytest.raises(MixreorgError, match="cannot write"):
        export_model(other, folder, to)
    assert {item: item.read_bytes() for item in folder.iterdir()} == before


def test_folders_of_other_things_are_left_alone(model, tmp_path) -> None:
    save_model(model, tmp_path / "model")
    before = {item: item.read_bytes() for item in (tmp_path / "model").iterdir()}
    with pytest.raises(MixreorgError, match="is not empty and holds no export"):
        export_model(model, tmp_path / "model")
    assert {item: item.read_bytes() for item in (tmp_path / "model").iterdir()} == before


def test_files_of_other_things_are_left_alone(model, exports, tmp_path) -> None:
    foreign = onnx.helper.make_model(onnx.helper.make_graph([], "graph", [], []), producer_name="mixreorg")
    for name in ("baked.onnx", "folder/image.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        onnx.save(foreign, tmp_path / name)
    (tmp_path / "baked.xml").write_text("<playlist/>")
    (tmp_path / "film.bin").write_bytes(b"film")
    before = {item: item.read_bytes() for item in tmp_path.rglob("*.*")}
    for out, to, named in (
        ("baked.onnx", "onnx", "baked.onnx"),
        ("baked.xml", "openvino", "baked.xml"),
        ("film.xml", "openvino", "film.bin"),
    ):
        with pytest.raises(MixreorgError, match=rf"{named} was not written by mixreorg export.*remove it"):
            export_model(model, tmp_path / out, to, classes=CLASSES)
    with pytest.raises(MixreorgError, match="is not empty and holds no export"):
        export_model(model, tmp_path / "folder")
    assert {item: item.read_bytes() for item in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(("to", "suffix"), TARGETS.items())
def test_an_earlier_export_is_replaced(model, exports, tmp_path, to, suffix) -> None:
    root = copy(exports, tmp_path / "copy")
    export_model(model, root / f"baked{suffix}", to, classes=CLASSES[:2])
    assert ExportedSegmenter(root / f"baked{suffix}", threads=1).manifest.class_names == CLASSES[:2]
    export_model(model, root / to, to, size=(64, 64))
    assert ExportedSegmenter(root / to, threads=1).manifest.size == (64, 64)
    # As the message says that a damaged one is read with.
    graph = root / to / f"image{suffix}"
    graph.write_bytes(graph.read_bytes()[:100])
    export_model(model, root / to, to)
    assert ExportedSegmenter(root / to, threads=1).manifest.size is None


BLOCK_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, NoTorch())
"""


def without_torch(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCK_TORCH + code, *arguments], capture_output=True, text=True)


def test_no_torch_is_needed(segmenter, exports, tmp_path) -> None:
    expected = segmenter(photo(), CLASSES)
    photo().save(tmp_path / "photo.png")
    code = """
import numpy as np
from mixreorg.export.runtime import ExportedSegmenter
for number, source in enumerate(sys.argv[3:]):
    found = ExportedSegmenter(source, threads=1)(sys.argv[1], "dog, cat=cat|kitten, car")
    np.save(sys.argv[2] + str(number) + ".npy", found.label_map)
"""
    paths = [str(source) for source in sources(exports)]
    result = without_torch(code, str(tmp_path / "photo.png"), str(tmp_path / "labels"), *paths)
    assert result.returncode == 0, result.stderr
    for number in range(len(paths)):
        assert (np.load(tmp_path / f"labels{number}.npy") == expected.label_map).all()


def test_the_command_line_needs_no_torch_either(exports, tmp_path) -> None:
    photo().save(tmp_path / "photo.png")
    arguments = ["segment", str(tmp_path / "photo.png"), "--out", str(tmp_path / "masks"), "--model"]
    code = "from mixreorg.cli.main import main\nmain()"
    result = without_torch(code, *arguments, str(exports / "baked.onnx"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "masks" / "photo_labels.png").is_file()
    result = without_torch(code, *arguments, str(exports / "onnx"))
    assert (result.returncode, "has no classes of its own" in result.stderr) == (2, True)
    result = without_torch(code, *arguments, "scenes-tiny", "--classes", "dog")
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)
    assert "scenes-tiny is no export, and other models need torch" in " ".join(result.stderr.split())


def test_the_process_of_the_server_says_that_torch_is_missing() -> None:
    result = without_torch("from mixreorg.serve.worker import load\nload('scenes-tiny', 'cpu', 1, 10**6)")
    assert "MixreorgError: scenes-tiny is no export, and other models need torch" in result.stderr


@pytest.mark.parametrize(
    ("to", "precision", "library"),
    [
        ("onnx", "fp32", "onnx"),
        ("openvino", "fp32", "openvino"),
        ("onnx", "bf16", "ml_dtypes"),
        ("onnx", "int8", "onnxruntime"),
    ],
)
def test_a_missing_library_is_told_before_the_work(model, tmp_path, monkeypatch, to, precision, library) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    said: list[str] = []
    with pytest.raises(ModuleNotFoundError, match=library):
        export_model(model, tmp_path / "out", to, precision=precision, say=said.append)
    assert said == []


def test_the_command_writes_what_it_says(model, tmp_path, capsys) -> None:
    save_model(model, tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), str(tmp_path / "out"), "--size", "64", "--precision", "fp16"]
    app(arguments, standalone_mode=False)
    written = re.findall(r"^(.+?)  [\d.]+ MB$", capsys.readouterr().out, flags=re.MULTILINE)
    assert [Path(path).name for path in written] == ["tokenizer.json", "text.onnx", "image.onnx"]
    assert ExportedSegmenter(tmp_path / "out").manifest.size == (64, 64)
    for option, value in (("--size", "64x"), ("--to", "tflite"), ("--precision", "int4")):
        with pytest.raises(MixreorgError, match=option):
            app([*arguments[:3], option, value], standalone_mode=False)


FINER = {
    "tiles": {"tile_scales": (1.5,)},
    "flip": {"flip": True},
    "pamr": {"refine": "pamr"},
    "guided": {"refine": "guided"},
    "all": {"tile_scales": (1.5, 2), "flip": True, "refine": "pamr"},
}


@pytest.mark.parametrize("name", FINER)
def test_finer_masks_are_those_of_the_model(segmenter, exports, name) -> None:
    protocol = segmenter.protocol.updated(background_threshold=0.4, **FINER[name])
    expected = Segmenter(segmenter.model, protocol)(photo(100, 75), CLASSES)
    for source in sources(exports):
        found = ExportedSegmenter(source, protocol, threads=1)(photo(100, 75), CLASSES)
        assert (found.label_map == expected.label_map).mean() > 0.999
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_segments_are_merged_as_by_the_model_or_refused(segmenter, exports) -> None:
    protocol = segmenter.protocol.updated(segment_similarity=0.9, tile_scales=(1.5,))
    expected = Segmenter(segmenter.model, protocol)
    found = ExportedSegmenter(exports / "onnx", protocol, threads=1)
    np.testing.assert_allclose(
        found.encode([photo()]).segment_embeddings, expected.encode([photo()]).segment_embeddings.numpy(), atol=1e-4
    )
    assert (found(photo(), CLASSES).label_map == expected(photo(), CLASSES).label_map).all()
    with pytest.raises(MixreorgError, match="no embeddings to merge segments by"):
        ExportedSegmenter(exports / "baked.onnx", protocol, threads=1)(photo())
