"""Protocols as data: the published numbers, what their hashes depend on, and the rules for thresholds."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.registry import benchmark
from mixreorg.eval.protocols import PROTOCOLS, EvaluationProtocol, find_protocol, protocol_names, resolve_protocol
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.background_sweep import sweep_background
from mixreorg.segment.class_maps import WindowScores, decode_windows
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.sliding_window import merge_windows
from mixreorg.segment.window_plan import plan_windows
from mixreorg.text.class_list import ClassName


@dataclass(frozen=True)
class FakeSplit:
    name: str = "voc21/val"
    classes: tuple[ClassName, ...] = (ClassName("dog"), ClassName("cat"))
    has_background: bool = True
    stems: tuple[str, ...] = ("1",)

    def photo_path(self, stem: str) -> Path:
        return Path(stem)

    def read_mask(self, stem: str) -> np.ndarray:
        return np.zeros((1, 1), dtype=np.int32)


@pytest.mark.parametrize(
    ("name", "benchmark", "expected"),
    [
        ("groupvit", "voc12", (448, 448, 224, 0.95, 1)),
        ("groupvit", "context60", (448, 448, 224, 0.35, 1)),
        ("groupvit", "coco_object", (448, 448, 224, 0.95, 1)),
        ("segclip", "voc21", (224, 224, 224, 0.80, 1)),
        ("segclip", "coco_object", (224, 224, 224, 0.65, 1)),
        ("tcl", "context60", (448, 448, 224, 0.5, 9)),
        ("sclip", "voc21", (336, 224, 112, 0.1, 80)),
    ],
)
def test_published_numbers(name: str, benchmark: str, expected: tuple[float, ...]) -> None:
    resolved = resolve_protocol(PROTOCOLS[name], benchmark, FakeSplit())
    used = resolved.segmentation
    assert (used.short_side, used.window, used.stride, resolved.threshold, len(used.templates)) == expected
    assert used.background_threshold is None
    assert resolved.threshold_rule == "published"


def test_sclip_has_its_own_decoding_scales_and_background_words() -> None:
    voc = resolve_protocol(PROTOCOLS["sclip"], "voc21", FakeSplit()).segmentation
    assert (voc.decoding, voc.logit_scale, len(voc.background_phrases)) == ("softmax", 65, 26)
    plain = replace(FakeSplit(), has_background=False)
    city = resolve_protocol(PROTOCOLS["sclip"], "cityscapes", plain).segmentation
    assert (city.short_side, city.logit_scale, city.background_phrases) == (560, 40, ())
    assert resolve_protocol(PROTOCOLS["sclip"], "coco_stuff", plain).segmentation.short_side == 448


def test_every_protocol_reads_back_from_its_own_json(tmp_path: Path) -> None:
    assert protocol_names() == ("groupvit", "segclip", "tcl", "sclip", "scenes")
    for name in protocol_names():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(find_protocol(name).to_dict()))
        assert find_protocol(str(path)) == find_protocol(name)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(MixreorgError, match="must be one JSON object"):
        find_protocol(str(tmp_path / "list.json"))
    with pytest.raises(MixreorgError, match="'groupvitt' is not a protocol; take groupvit, segclip"):
        find_protocol("groupvitt")


def test_protocol_files_that_would_not_mean_what_they_say_are_refused() -> None:
    values = find_protocol("groupvit").to_dict()
    rules = {"voc12": {"background_threshold": 0.3}}
    own = EvaluationProtocol.from_dict({**values, "rules": rules})
    assert resolve_protocol(own, "voc21", FakeSplit()).threshold == 0.3
    with pytest.raises(MixreorgError, match="two rules for voc21"):
        EvaluationProtocol.from_dict({**values, "rules": {**rules, "voc21": {}}})
    with pytest.raises(MixreorgError, match="'voc13' is not a benchmark"):
        EvaluationProtocol.from_dict({**values, "rules": {"voc13": {}}})
    segmentation = {**values["segmentation"], "background_threshold": 0.5}
    with pytest.raises(MixreorgError, match="leave background_threshold out here"):
        EvaluationProtocol.from_dict({**values, "segmentation": segmentation})


def test_background_phrases_of_an_own_protocol_are_kept() -> None:
    groupvit = PROTOCOLS["groupvit"]
    own = groupvit.updated(segmentation=groupvit.segmentation.updated(background_phrases=("sky",)))
    assert resolve_protocol(own, "voc21", FakeSplit()).segmentation.background_phrases == ("sky",)
    plain = replace(FakeSplit(), has_background=False)
    assert resolve_protocol(own, "voc20", plain).segmentation.background_phrases == ()
    named = own.updated(naming="sclip")
    assert len(resolve_protocol(named, "voc21", FakeSplit()).segmentation.background_phrases) == 26


def test_a_class_that_is_a_background_phrase_is_refused_but_in_published_lists() -> None:
    groupvit = PROTOCOLS["groupvit"]
    own = groupvit.updated(segmentation=groupvit.segmentation.updated(background_phrases=("sky", "Kitten")))
    split = replace(FakeSplit(), classes=(ClassName("dog"), ClassName("cat", ("cat", "kitten"))))
    for name in ("voc_folder", "voc21"):
        with pytest.raises(MixreorgError, match="'kitten' is a phrase of the class 'cat' and one of the protocol's"):
            resolve_protocol(own, name, split, threshold=0.5)
    assert resolve_protocol(own, "voc20", replace(split, has_background=False)).segmentation.background_phrases == ()
    table = benchmark("coco_object").table
    coco = replace(FakeSplit(), name="coco_object/val", classes=table.class_names("sclip"))
    assert "bed" in resolve_protocol(PROTOCOLS["sclip"], "coco_object", coco).segmentation.background_phrases
    assert "bed, a class of COCO-Object and a background word" in PROTOCOLS["sclip"].source


def test_hashes_depend_on_what_decides_the_labels() -> None:
    groupvit = PROTOCOLS["groupvit"]
    resolved = resolve_protocol(groupvit, "voc21", FakeSplit())
    assert resolved.hash() == "ca2171e81e84"
    others = [
        resolve_protocol(groupvit.updated(version=2), "voc21", FakeSplit()),
        resolve_protocol(PROTOCOLS["segclip"], "voc21", FakeSplit()),
        resolve_protocol(groupvit, "voc21", FakeSplit(), threshold=0.9),
        resolve_protocol(groupvit, "voc21", FakeSplit(), calibrate_on="train"),
        resolve_protocol(groupvit, "voc21", replace(FakeSplit(), name="voc21/train")),
        resolve_protocol(groupvit, "voc21", replace(FakeSplit(), classes=(ClassName("dog"), ClassName("cat", ("x",))))),
    ]  # fmt: skip
    assert len({item.hash() for item in (resolved, *others)}) == len(others) + 1
    calibrated = others[3]
    assert calibrated.threshold is None
    assert replace(calibrated, threshold=0.4).hash() == calibrated.hash()
    assert replace(calibrated, threshold=0.4).describe() == "background threshold 0.4 chosen on train"
    assert others[2].describe() == "background threshold 0.9, given by hand"
    assert resolved.describe() == "background threshold 0.95, the protocol's"


def test_thresholds_are_never_chosen_on_the_evaluated_split() -> None:
    groupvit, split = PROTOCOLS["groupvit"], FakeSplit()
    with pytest.raises(MixreorgError, match="cannot be chosen on voc21/val, the split that is evaluated"):
        resolve_protocol(groupvit, "voc21", split, calibrate_on="val")
    with pytest.raises(MixreorgError, match="either given or calibrated"):
        resolve_protocol(groupvit, "voc21", split, threshold=0.5, calibrate_on="train")
    with pytest.raises(MixreorgError, match="has no background threshold for voc21/val; give one with --background"):
        resolve_protocol(PROTOCOLS["scenes"], "voc21", split)
    plain = replace(split, name="ade150/val", has_background=False)
    with pytest.raises(MixreorgError, match="ade150/val has no background"):
        resolve_protocol(groupvit, "ade150", plain, threshold=0.5)
    resolved = resolve_protocol(groupvit, "ade150", plain)
    assert (resolved.threshold_rule, resolved.threshold, resolved.describe()) == ("none", None, "no background")
    with pytest.raises(MixreorgError, match="rules"):
        EvaluationProtocol.from_dict({**groupvit.to_dict(), "rules": {"voc21": {"background_threshold": 2.0}}})


def test_softmax_decoding_takes_the_best_phrase_of_each_class() -> None:
    torch.manual_seed(0)
    segments, image = torch.randn(1, 3, 5), torch.randn(1, 5)
    phrases, owners = torch.randn(4, 5), torch.tensor([0, 1, 1, 2])
    assignment = torch.rand(1, 3, 4).softmax(dim=1)
    scores = decode_windows(
        assignment, (2, 2), (4, 4), segments, image, phrases, owners, logit_scale=2.0, decoding="softmax", shortlist=1
    ).segment_scores[0]
    expected = (2 * segments[0] @ phrases.T).softmax(dim=-1)
    assert torch.allclose(scores, torch.stack([expected[:, 0], expected[:, 1:3].amax(dim=1), expected[:, 3]], dim=1))


def test_background_phrases_compete_and_the_threshold_applies_to_the_photo(tiny_model: DualEncoder) -> None:
    protocol = Protocol(
        name="test",
        short_side=32,
        window=32,
        stride=16,
        decoding="softmax",
        logit_scale=3.0,
        background_phrases=("sky", "wall"),
    )
    photo = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    classes = [ClassName("dog"), ClassName("cat"), ClassName("car")]
    listed = Segmenter(tiny_model, protocol)
    everything = listed(photo, [ClassName("nothing", ("sky", "wall")), *classes])
    plan = plan_windows(protocol, 56, 40)
    output = listed.encode([Image.fromarray(photo)])
    rival = listed.decode_with_rival(output, plan, classes)
    merged = merge_windows(rival, plan, 40, 56)
    assert (merged.label_map.numpy() == everything.label_map).all()
    middle = float(merged.best_scores.median())
    expected = np.where(merged.best_scores.numpy() < middle, 0, everything.label_map)
    segmentation = Segmenter(tiny_model, protocol.updated(background_threshold=middle))(photo, classes)
    assert segmentation.class_names == ("background", "dog", "cat", "car")
    assert (segmentation.label_map == expected).all()
    plain = listed.decode(output, plan, classes)
    assert isinstance(plain, WindowScores)
    foreground, swept = sweep_background(plain, plan, 40, 56, [0.0, middle], rival)
    assert (foreground.numpy() == listed(photo, classes).label_map).all()
    (_, free), (_, cut) = list(swept)
    assert (free.numpy() == everything.label_map).all()
    assert (cut.numpy() == expected).all()
