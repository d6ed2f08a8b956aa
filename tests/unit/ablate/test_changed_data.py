"""Runs on data that exist: the report holds none that was trained on other pairs."""

import json
from pathlib import Path

import pytest
import torch
from ablation_kit import spec_values
from PIL import Image
from rich.console import Console

from mixreorg.ablate import measuring
from mixreorg.ablate import run as ablation
from mixreorg.ablate.grid import plan
from mixreorg.ablate.results import read_results
from mixreorg.ablate.spec import read_spec
from mixreorg.data.pairs import open_pairs
from mixreorg.errors import MixreorgError
from mixreorg.text.nouns import NounList
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.card import RunFacts, make_card


def write_pairs(folder: Path, *captions: str) -> Path:
    folder.mkdir()
    Image.new("RGB", (12, 8)).save(folder / "photo.png")
    lines = [json.dumps({"image": "photo.png", "caption": caption}) for caption in captions]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def write_spec(path: Path, data: Path) -> Path:
    world = {"data": [str(data)], "evaluation": str(path.parent / "voc")}
    rows = {"groupvit": {"recipe": "scenes_groupvit", "world": "own"}}
    measure = {"splits": [{"name": "val", "split": "val"}], "mixed_scenes": 0}
    values = spec_values(worlds={"own": world}, seeds=[0], rows=rows, measure=measure)
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output folder with a run that was trained on the pairs in ``pairs``, and a queue that runs nothing."""
    voc = tmp_path / "voc"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(voc / "JPEGImages" / "0.jpg")
    Image.new("L", (8, 8)).save(voc / "SegmentationClass" / "0.png")
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("0\n")
    (voc / "classes.txt").write_text("background\ndog")
    pairs = write_pairs(tmp_path / "pairs", "a dog", "a cat")
    (run,) = plan(read_spec(write_spec(tmp_path / "spec.json", pairs)))
    folder = tmp_path / "out" / run.folder
    folder.mkdir(parents=True)
    (folder / ablation.CONFIG).write_text(json.dumps(run.config.to_dict()))
    source = open_pairs(pairs)
    facts = RunFacts(source.fingerprint(), len(source), torch.device("cpu"))
    card = make_card(run.config, facts, step=12, seconds=1.0, metrics={}, scaler=None, losses={})
    (folder / "card.json").write_text(json.dumps(card.to_dict()))
    monkeypatch.setattr(ablation, "run_jobs", lambda *arguments: None)
    return tmp_path / "out"


def go_on(spec: Path, out: Path) -> None:
    ablation.run_ablation(spec, out, device="cpu", console=Console(quiet=True))


def test_other_pairs_are_refused_wherever_they_lie(out: Path, tmp_path: Path) -> None:
    other = write_spec(tmp_path / "other.json", write_pairs(tmp_path / "other", "a dog", "a cat", "a car"))
    message = r"groupvit, seed 0: .*seed-0 .*other caption pairs than those of world own: 2 then, 3 now"
    with pytest.raises(MixreorgError, match=message):
        go_on(other, out)
    (tmp_path / "pairs" / "captions.jsonl").write_text('{"image": "photo.png", "caption": "a bird"}')
    with pytest.raises(MixreorgError, match=r"2 then, 1 now, .* give the row another name"):
        go_on(tmp_path / "spec.json", out)
    assert not (out / "results.json").exists()


def test_pairs_may_move(out: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs").rename(tmp_path / "moved")
    go_on(write_spec(tmp_path / "moved.json", tmp_path / "moved"), out)
    assert [run.num_pairs for run in read_results(out / "results.json").runs] == [2]


def test_a_run_that_never_began_may_have_changed(out: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    values = json.loads(spec.read_text())
    values["rows"]["groupvit"]["set"] = {"optim.lr": 0.002}
    spec.write_text(json.dumps(values))
    with pytest.raises(MixreorgError, match=r"holds a run with another optim\.lr"):
        go_on(spec, out)
    (run,) = plan(read_spec(spec))
    (out / run.folder / "card.json").unlink()
    go_on(spec, out)


def test_evaluation_data_that_changed_are_measured_again(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ablation, "run_jobs", lambda jobs, *_: asked.extend(job.name for job in jobs))
    monkeypatch.setattr(ablation, "is_trained", lambda *_: True)
    monkeypatch.setattr(measuring, "checkpoints_of", lambda run: {})
    (run,) = plan(read_spec(tmp_path / "spec.json"))
    go_on(tmp_path / "spec.json", out)
    assert asked == ["groupvit, seed 0"]
    job = json.loads((out / run.folder / ablation.JOB).read_text())
    measured = {"job": job, "steps": {}, "checkpoints": {}}
    (out / run.folder / measuring.MEASURED).write_text(json.dumps(measured))
    go_on(tmp_path / "spec.json", out)
    assert asked == ["groupvit, seed 0"]
    Image.new("L", (8, 8), 1).save(tmp_path / "voc" / "SegmentationClass" / "0.png", compress_level=0)
    go_on(tmp_path / "spec.json", out)
    assert asked == ["groupvit, seed 0"] * 2


def test_another_tokenizer_or_word_list_is_refused(out: Path, tmp_path: Path) -> None:
    spec, words, nouns = tmp_path / "spec.json", tmp_path / "words.json", tmp_path / "nouns.txt"
    values = json.loads(spec.read_text())
    values["worlds"]["own"] |= {"tokenizer": str(words), "nouns": str(nouns)}
    values["rows"]["groupvit"]["recipe"] = "scenes_groupvit_multilabel"
    spec.write_text(json.dumps(values))
    Tokenizer.train(["a dog", "a dog"], 520).save(words)
    nouns.write_text("dog\ncat")
    (run,) = plan(read_spec(spec))
    folder = out / run.folder
    (folder / ablation.CONFIG).write_text(json.dumps(run.config.to_dict()))
    data = open_pairs(tmp_path / "pairs").fingerprint()
    facts = RunFacts(data, 2, torch.device("cpu"), NounList.from_file(nouns).fingerprint())
    card = make_card(run.config, facts, step=12, seconds=1.0, metrics={}, scaler=None, losses={})
    (folder / "card.json").write_text(json.dumps(card.to_dict()))
    copy = folder / "checkpoints" / "step-00000012" / "tokenizer.json"
    Tokenizer.from_file(words).save(copy)
    go_on(spec, out)
    Tokenizer.train(["a cat", "a cat"], 520).save(words)
    with pytest.raises(MixreorgError, match=r"groupvit, seed 0: .*another tokenizer than .*words\.json is now"):
        go_on(spec, out)
    Tokenizer.from_file(copy).save(words)
    nouns.write_text("dog")
    with pytest.raises(MixreorgError, match=r"another word list than .*nouns\.txt is now; restore what it was trained"):
        go_on(spec, out)
