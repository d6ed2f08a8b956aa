"""A tiny model and its exports, made once."""

from pathlib import Path

import pytest
import torch
from export_kit import CLASSES, TARGETS

from mixreorg.export.exporter import export_model
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.tokenizer import Tokenizer


@pytest.fixture(scope="package")
def model(tokenizer: Tokenizer) -> DualEncoder:
    torch.manual_seed(0)
    text = {"vocab_size": tokenizer.vocab_size, "context_length": tokenizer.context_length, "end_id": tokenizer.end_id}
    config = DualEncoderConfig(
        image=ImageEncoderConfig(
            image_size=32,
            patch_size=8,
            width=32,
            num_heads=2,
            depths=(2, 1, 1),
            num_group_tokens=(6, 3),
            num_segments=(6, 3),
        ),
        text=TextEncoderConfig(**text, width=32, depth=1, num_heads=2),
        embed_dim=16,
        projector_hidden=48,
    )
    return DualEncoder(config, tokenizer)


@pytest.fixture(scope="package")
def segmenter(model: DualEncoder) -> Segmenter:
    return Segmenter(model)


@pytest.fixture(scope="package")
def exports(model: DualEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx/``, ``openvino/`` (free vocabulary), ``baked.onnx``, ``baked.xml``."""
    root = tmp_path_factory.mktemp("exports")
    for to, suffix in TARGETS.items():
        export_model(model, root / to, to)
        export_model(model, root / f"baked{suffix}", to, classes=CLASSES)
    return root
