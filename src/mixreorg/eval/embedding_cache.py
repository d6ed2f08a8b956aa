"""Class embeddings on disk, so that evaluations of one model encode their class names once."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mixreorg.errors import MixreorgError
from mixreorg.eval.array_files import read_arrays, write_arrays
from mixreorg.models.digest import model_digest
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.protocol import hash_values
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.class_list import ClassName, flatten_phrases


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/mixreorg/class_embeddings``, or under ``~/.cache`` where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixreorg" / "class_embeddings"


def cached_class_embeddings(segmenter: Segmenter, classes: Sequence[ClassName], folder: Path) -> bool:
    """Give a segmenter the embeddings of all phrases from the cache, or encode them and put them there.

    The file is named after all that decides the embeddings: weights and architecture of the text side and the token
    ids of every prompt, so tokenizer, templates and phrases. A damaged file is made again; where none can be written,
    the next evaluation encodes again.

    Args:
        segmenter: its model needs a tokenizer.
        classes: of the evaluation.
        folder: of the cache; created if missing.

    Returns:
        Whether they came from the cache.
    """
    phrases = tuple(dict.fromkeys((*flatten_phrases(classes)[0], *segmenter.protocol.background_phrases)))
    key = text_digest(
        segmenter.model, [item.format(phrase) for phrase in phrases for item in segmenter.protocol.templates]
    )
    path = folder / f"{key}.npz"
    known = _read(path, phrases)
    if known is not None:
        segmenter.remember(phrases, torch.from_numpy(known))
        return True
    embeddings, _ = segmenter.class_embeddings([ClassName(phrase) for phrase in phrases])
    segmenter.remember(phrases, embeddings)
    with contextlib.suppress(MixreorgError):
        write_arrays(path, {"phrases": np.array(phrases), "embeddings": embeddings.float().cpu().numpy()})
    return False


def text_digest(model: DualEncoder, prompts: Sequence[str]) -> str:
    """The same of what decides embeddings of prompts: weights and architecture of the text side, tokenizer by its ids.

    Raises:
        MixreorgError: the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise MixreorgError("the model has no tokenizer, so it cannot read class names")
    text_side = nn.ModuleDict({"encoder": model.text_encoder, "projector": model.text_projector})
    digest = hashlib.sha256(f"{model_digest(text_side)} {hash_values(model.config.text.to_dict())}".encode())
    digest.update(model.tokenizer.encode(prompts).numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path, phrases: tuple[str, ...]) -> npt.NDArray[np.float32] | None:
    try:
        arrays = read_arrays(path)
    except MixreorgError:
        return None
    embeddings = arrays.get("embeddings")
    if embeddings is None or tuple(arrays.get("phrases", np.array([])).tolist()) != phrases:
        return None
    return embeddings if len(embeddings) == len(phrases) and np.isfinite(embeddings).all() else None
