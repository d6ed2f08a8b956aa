"""Short real measurements: they must follow what is measured, not agree with a figure."""

import io
import itertools
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mixreorg.data.pairs import open_pairs
from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.recipes import recipe
from mixreorg.text.nouns import NounList
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.config import DataConfig, EngineConfig, TrainConfig
from mixreorg.train.planning.calibration import longest_caption, measure_reading, measure_step, shard_bytes
from mixreorg.train.planning.flops import flops_per_pair


@pytest.fixture
def config(tiny_config: DualEncoderConfig) -> TrainConfig:
    data = DataConfig(transform=ImageTransformConfig(image_size=32))
    return TrainConfig(model=tiny_config, data=data, batch_size=64, precision="fp32")


def test_steps_are_measured_at_two_batches(config: TrainConfig) -> None:
    threads = torch.get_num_threads()
    time = measure_step(config, 64, text_length=8, device="cpu")
    assert time.batches[0] == 8
    assert 16 <= time.batches[1] <= 64
    assert time.per_pair > 0
    assert time.fixed >= 0
    assert time.seconds(64) > time.seconds(8)
    assert torch.get_num_threads() == threads


def test_a_gradient_cache_is_reckoned(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mixreorg.train.planning.calibration._step_seconds", lambda _engine, _config, size, *_: 0.01 * size
    )
    cached = config.updated(engine=EngineConfig(chunk=4))
    plain = measure_step(config, 64, text_length=8, device="cpu")
    ratio = measure_step(cached, 64, text_length=8, device="cpu").per_pair / plain.per_pair
    assert plain.per_pair == pytest.approx(0.01)
    flops = [flops_per_pair(item, 64, text_length=8).total_train for item in (cached, config)]
    assert ratio == pytest.approx(flops[0] / flops[1])
    assert 1.2 < ratio < 1.4


def test_a_batch_smaller_than_what_is_tried(config: TrainConfig) -> None:
    time = measure_step(config.updated(batch_size=4), 4, text_length=8, device="cpu")
    assert time.batches == (4, 4)
    assert time.fixed == 0


def test_a_share_of_one_pair_is_reckoned_from_more(config: TrainConfig) -> None:
    # Which one process cannot train on: BatchNorm needs two.
    time = measure_step(config.updated(objective=GroupViTConfig()), 1, text_length=8, processes=64, device="cpu")
    assert time.batches in ((2, 2), (2, 4))
    assert 0 < time.seconds(1) <= time.seconds(2)


def test_noun_prompts_are_made_and_trained_on(
    config: TrainConfig, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nouns = GroupViTConfig(multi_label=MultiLabelConfig(weight=WeightSchedule()))
    config = config.updated(model=config.model.updated(multi_label=True), objective=nouns, batch_size=4)
    assert measure_step(config, 4, text_length=8, device="cpu").seconds(4) > 0
    # A plan without a word list is a plan; with one, its captions are searched.
    found: list[str] = []
    find = NounList.find
    monkeypatch.setattr(NounList, "find", lambda self, caption: found.append(caption) or find(self, caption))
    assert measure_reading(config, tokenizer).per_second > 5
    assert not found
    (tmp_path / "nouns.txt").write_text("dog\nhouse\n")
    data = config.data.updated(nouns=str(tmp_path / "nouns.txt"))
    assert measure_reading(config.updated(data=data), tokenizer).per_second > 5
    assert found


def test_larger_pictures_are_read_more_slowly(config: TrainConfig, tokenizer: Tokenizer) -> None:
    small = measure_reading(config, tokenizer).per_second
    large = measure_reading(recipe("groupvit_vits_cc12m"), tokenizer).per_second
    assert small > large > 5


def test_a_busy_machine_reads_no_slower_what_is_in_memory(
    config: TrainConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy() -> SimpleNamespace:
        # A picture takes a hundredth of a second of processor time, and a quarter by the clock.
        clock, processor = itertools.count(), itertools.count()
        return SimpleNamespace(
            perf_counter=lambda: 0.25 * next(clock),
            thread_time=lambda: 0.01 * next(processor),
        )

    monkeypatch.setattr("mixreorg.train.planning.calibration.time", busy())
    speed = measure_reading(config, tokenizer)
    assert speed.per_second == pytest.approx(100)
    assert speed.waiting == pytest.approx(25)
    # What comes from storage may have to be waited for: the clock counts.
    picture = io.BytesIO()
    Image.new("RGB", (40, 40)).save(picture, "PNG")
    write_shard(tmp_path, ["a dog"] * 3, picture.getvalue())
    source = open_pairs([str(tmp_path / "*.tar")])
    monkeypatch.setattr("mixreorg.train.planning.calibration.time", busy())
    speed = measure_reading(config, tokenizer, source)
    assert speed.per_second == pytest.approx(4)
    assert speed.waiting == pytest.approx(25)


def write_shard(folder: Path, captions: list[str], picture: bytes) -> None:
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, caption in enumerate(captions):
            for suffix, content in (("png", picture), ("txt", caption.encode())):
                path = folder / f"{number}.{suffix}"
                path.write_bytes(content)
                tar.add(path, path.name)


def test_captions_and_bytes_of_shards(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_shard(tmp_path, ["a dog"] * 30 + ["a photo of a dog on the grass and a cat and a car"], b"\x89PNG")
    specs = [str(tmp_path / "*.tar")]
    source = open_pairs(specs)
    short, long = (
        len(ids) for ids in tokenizer.encode_ids(["a dog", "a photo of a dog on the grass and a cat and a car"])
    )
    assert longest_caption(source, tokenizer, 1000) == long
    assert longest_caption(source, tokenizer, 1) == short
    assert shard_bytes(specs) == (tmp_path / "0.tar").stat().st_size
    (tmp_path / "captions.csv").write_text("image,caption\n0.png,a dog\n")
    assert shard_bytes([str(tmp_path / "captions.csv")]) is None
