"""A little world on disk: caption shards, a split in VOC layout, and a configuration that trains in seconds."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.models.dual_encoder import DualEncoderConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.segment.protocol import Protocol
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.config import DataConfig, EvaluationConfig, OptimConfig, TrainConfig

COLOURS = {"dog": (200, 60, 40), "cat": (40, 180, 60), "car": (50, 70, 210)}


def picture(name: str, seed: int) -> tuple[Image.Image, np.ndarray]:
    """A coloured rectangle on grey noise, and its mask."""
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 160, (32, 32, 3))
    top, left = random.integers(0, 14, 2)
    box = np.s_[top : top + 16, left : left + 16]
    pixels[box] = np.array(COLOURS[name]) + random.integers(-20, 20, (16, 16, 3))
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[box] = list(COLOURS).index(name) + 1
    return Image.fromarray(pixels.astype(np.uint8)), mask


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """``shards/*.tar`` (one sample damaged), ``voc`` with a split ``val``, ``tokenizer.json``."""
    root = tmp_path_factory.mktemp("world")
    names = [list(COLOURS)[index % 3] for index in range(96)]
    (root / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(root / "shards" / f"{shard:05d}.tar", "w") as tar:
            for index in range(shard * 48, (shard + 1) * 48):
                buffer = io.BytesIO()
                picture(names[index], index)[0].save(buffer, "PNG")
                image = b"not a picture" if index == 7 else buffer.getvalue()
                for suffix, data in (("png", image), ("txt", f"a photo of a {names[index]}.".encode())):
                    info = tarfile.TarInfo(f"{index:05d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    voc = root / "voc"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    for index in range(6):
        image, mask = picture(list(COLOURS)[index % 3], 1000 + index)
        image.save(voc / "JPEGImages" / f"{index}.jpg", quality=95)
        Image.fromarray(mask).save(voc / "SegmentationClass" / f"{index}.png")
    (voc / "ImageSets/Segmentation/val.txt").write_text("\n".join(map(str, range(6))))
    (voc / "classes.txt").write_text("\n".join(["background", *COLOURS]))
    tokenizer.save(root / "tokenizer.json")
    (root / "captions.json").write_text(json.dumps(names))
    return root


@pytest.fixture
def train_config(world: Path, tiny_config: DualEncoderConfig) -> TrainConfig:
    """Twelve steps of MixReorg on the little world."""
    return TrainConfig(
        model=tiny_config,
        objective=MixReorgConfig(),
        optim=OptimConfig(lr=1e-3, warmup_steps=2),
        data=DataConfig(
            train=(str(world / "shards" / "*.tar"),),
            tokenizer=str(world / "tokenizer.json"),
            transform=ImageTransformConfig(image_size=32, crop_scale=(0.6, 1.0)),
            num_workers=0,
        ),
        evaluation=EvaluationConfig(root=str(world / "voc"), every=4),
        protocol=Protocol(name="test", short_side=32, window=32, stride=32, whole=True),
        batch_size=8,
        steps=12,
        precision="fp32",
        log_every=1,
        checkpoint_every=4,
    )
