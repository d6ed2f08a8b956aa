"""A whole video: overlay, counts, label maps, interruptions, and the command."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mixreorg.batch.identity import model_identity
from mixreorg.cli import main
from mixreorg.cli.video_command import video
from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import load_model_folder, save_model
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.results import Segmentation
from mixreorg.segment.segmenter import Segmenter
from mixreorg.video.container import VideoReader
from mixreorg.video.run import VideoJob, segment_video
from video_kit import label_bright, read_back, shades, write_clip

app = typer.Typer()
app.command()(video)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", shades(10))


def test_overlay_counts_and_label_maps(clip: Path, tmp_path: Path) -> None:
    job = VideoJob(label_bright, tmp_path / "out", "clip", labels=True)
    totals = segment_video(VideoReader(str(clip)), job, {"model": "m"})
    assert (totals.num_frames, totals.size, totals.interrupted) == (10, (64, 48), False)
    content = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert [item["area_share"] for item in content["classes"]] == pytest.approx([0.5, 0.5])
    assert content["changed_share"] == pytest.approx(1 / 9)
    assert content["made_by"] == {"model": "m"}
    drawn = read_back(tmp_path / "out" / "clip_overlay.mp4")
    assert [seconds for seconds, _ in drawn] == pytest.approx([number / 10 for number in range(10)], abs=0.002)
    assert drawn[0][1].shape[0] > 48  # the legend
    # Tinted by the class: red for the first, green for the second in VOC's colours.
    for _, pixels in (drawn[1], drawn[8]):
        assert pixels[:40, 20:40].std(axis=(0, 1)).max() < 6
    assert drawn[1][1][20, 30, 0] > drawn[1][1][20, 30, 1] + 40
    assert drawn[8][1][20, 30, 1] > drawn[8][1][20, 30, 0] + 40
    paths = sorted((tmp_path / "out" / "clip_labels").iterdir())
    assert [path.name for path in paths] == [f"{number:06d}.png" for number in range(10)]
    with Image.open(paths[9]) as labels:
        assert np.unique(np.asarray(labels)).tolist() == [1]


def test_every_second_frame_and_a_limit_keep_the_speed(clip: Path, tmp_path: Path) -> None:
    job = VideoJob(label_bright, tmp_path / "out", "clip", every=2, max_frames=3)
    assert segment_video(VideoReader(str(clip)), job, {}).num_frames == 3
    drawn = read_back(tmp_path / "out" / "clip_overlay.mp4")
    assert [seconds for seconds, _ in drawn] == pytest.approx([0, 0.2, 0.4], abs=0.002)


def test_label_maps_of_an_earlier_call_do_not_mix_with_these(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "clip_labels"
    segment_video(VideoReader(str(clip)), VideoJob(label_bright, tmp_path / "out", "clip", labels=True), {})
    (folder / "mine.png").write_bytes(b"")
    job = VideoJob(label_bright, tmp_path / "out", "clip", every=3, max_frames=3, labels=True)
    segment_video(VideoReader(str(clip)), job, {})
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "000003.png", "000006.png", "mine.png"]


def test_what_was_done_before_an_interruption_is_a_whole_video(clip: Path, tmp_path: Path) -> None:
    seen = []

    def interrupted(image: Image.Image) -> Segmentation:
        seen.append(image)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return label_bright(image)

    totals = segment_video(VideoReader(str(clip)), VideoJob(interrupted, tmp_path / "out", "clip"), {})
    assert totals.interrupted
    assert len(read_back(tmp_path / "out" / "clip_overlay.mp4")) == totals.num_frames == 4
    assert json.loads((tmp_path / "out" / "clip.json").read_text())["interrupted"]


def test_a_truncated_video_is_done_until_its_end_and_named(clip: Path, tmp_path: Path) -> None:
    class Truncated(VideoReader):
        def frames(self, every: int = 1):
            yield from list(super().frames(every))[:4]
            raise MixreorgError("the video clip.mp4 is truncated")

    with pytest.raises(MixreorgError, match=r"truncated; until there it is in .*clip_overlay\.mp4"):
        segment_video(Truncated(str(clip)), VideoJob(label_bright, tmp_path / "out", "clip"), {})
    assert len(read_back(tmp_path / "out" / "clip_overlay.mp4")) == 4


def test_nothing_is_left_where_nothing_could_be_done(clip: Path, tmp_path: Path) -> None:
    def refuse(image: Image.Image) -> Segmentation:
        raise MixreorgError("too thin")

    with pytest.raises(MixreorgError, match="too thin"):
        segment_video(VideoReader(str(clip)), VideoJob(refuse, tmp_path / "out", "clip"), {})
    assert list(tmp_path.glob("out/*")) == []


@pytest.fixture
def model(tmp_path: Path, tiny_model: DualEncoder) -> Path:
    save_model(tiny_model, tmp_path / "model", Protocol(name="small", short_side=32, window=32, stride=16).to_dict())
    return tmp_path / "model"


def test_the_command(clip: Path, model: Path, tmp_path: Path) -> None:
    options = ["--model", model, "--classes", "dog, cat", "--out", tmp_path / "out", "--background", 0.3]
    result = CliRunner().invoke(app, [str(item) for item in (clip, *options, "--every", 3)])
    assert result.exit_code == 0, result.output
    assert "4 frames, 0.9 s" in result.stdout
    content = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert [item["name"] for item in content["classes"]] == ["background", "dog", "cat"]
    made_by = content["made_by"]
    assert (made_by["classes"], made_by["options"]) == (
        [["dog", "dog"], ["cat", "cat"]],
        {"smoothing": 0.7, "every": 3},
    )
    assert made_by["model"] == model_identity(Segmenter(load_model_folder(model)), str(model))
    assert len(read_back(tmp_path / "out" / "clip_overlay.mp4")) == 4


def test_without_pyav_the_extra_is_named(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'av'", name="av")

    monkeypatch.setattr(VideoReader, "_open_file", missing)
    command = ["mixreorg", "video", str(clip), "--model", "m", "--classes", "dog", "--out", "out"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 2
    assert "pip install 'mixreorg[video]'" in capsys.readouterr().err
