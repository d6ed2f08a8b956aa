"""Fixtures that many tests share: tiny models, shards made on the fly, the optional real samples."""

import os
import signal
from pathlib import Path

# Before torch is loaded, and for the processes that tests start: models this small are slower with more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig
from mixreorg.text.tokenizer import Tokenizer

# Shells start background jobs with SIGINT ignored, which children inherit: tests of interrupts would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real samples beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the real samples in ../shared")
    return SHARED


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A small vocabulary learned from a few captions."""
    captions = [f"a photo of a {name} on the {place}." for name in ("dog", "cat", "car") for place in ("grass", "sand")]
    return Tokenizer.train(captions, vocab_size=600, context_length=24)


@pytest.fixture(scope="session")
def tiny_config(tokenizer: Tokenizer) -> DualEncoderConfig:
    """A published-style GroupViT in miniature: hard assignment, pre-assign attention, BatchNorm projectors."""
    return DualEncoderConfig(
        image=ImageEncoderConfig(
            image_size=32,
            patch_size=8,
            width=32,
            num_heads=2,
            depths=(3, 1, 1),
            num_group_tokens=(6, 3),
            num_segments=(6, 3),
        ),
        text=TextEncoderConfig(
            vocab_size=tokenizer.vocab_size,
            context_length=tokenizer.context_length,
            end_id=tokenizer.end_id,
            width=32,
            depth=2,
            num_heads=2,
        ),
        embed_dim=16,
        projector_hidden=48,
    )


@pytest.fixture
def tiny_model(tiny_config: DualEncoderConfig, tokenizer: Tokenizer) -> DualEncoder:
    """A random tiny model with its tokenizer."""
    torch.manual_seed(0)
    return DualEncoder(tiny_config, tokenizer)


@pytest.fixture
def varied_model(tiny_config: DualEncoderConfig, tokenizer: Tokenizer) -> DualEncoder:
    """Random weights that nevertheless share an image out among several segments of different scores."""
    image = tiny_config.image.updated(assignment_logits="cosine", centre_keys=True, group_token_std=1.0)
    torch.manual_seed(0)
    model = DualEncoder(tiny_config.updated(image=image), tokenizer)
    with torch.no_grad():
        model.logit_scale.fill_(4.0)
    return model
