"""What can be evaluated: our models, and any function that labels photos."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.eval.confusion import IntArray
from mixreorg.eval.embedding_cache import cached_class_embeddings
from mixreorg.eval.evaluate import evaluate_split, label_photo, read_pair
from mixreorg.eval.protocols import ResolvedProtocol
from mixreorg.eval.result import Details, SplitResult
from mixreorg.eval.split import EvalSplit, label_names
from mixreorg.models.digest import model_digest
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.protocol import hash_values
from mixreorg.segment.segmenter import Segmenter

Predict = Callable[[Image.Image, tuple[str, ...]], npt.NDArray[Any]]
"""A photo and the label names (background first where there is one) to labels ``[H, W]`` of the photo's size."""


@dataclass(frozen=True)
class Measure:
    """What an evaluation counts."""

    thresholds: tuple[float, ...] = ()
    """Background thresholds of the curve."""
    threshold: float | None = None
    """Background threshold of the labels that the details are about."""
    detail: bool = True
    """Count details."""


class Evaluator(Protocol):
    """Counts parts of a split and labels single photos."""

    def evaluate(self, split: EvalSplit, stems: Sequence[str], measure: Measure) -> SplitResult:
        """Counts of these photos."""

    def label(self, split: EvalSplit, photo: Image.Image, threshold: float | None) -> IntArray:
        """Labels ``[H, W]`` of a photo, as the details count them."""

    def identity(self) -> dict[str, Any]:
        """What results say about the model; plain values."""


class SegmenterEvaluator:
    """Evaluates a model of this package."""

    def __init__(
        self, model: DualEncoder, protocol: ResolvedProtocol, *, window_batch: int, cache: Path | None = None
    ) -> None:
        """Prepare a model.

        Args:
            model: with tokenizer.
            protocol: gives sizes, templates and phrases.
            window_batch: windows encoded at once.
            cache: folder of class embeddings; none are kept without it.
        """
        self.segmenter = Segmenter(model, protocol.segmentation, window_batch)
        if cache is not None:
            cached_class_embeddings(self.segmenter, protocol.class_names(), cache)

    def evaluate(self, split: EvalSplit, stems: Sequence[str], measure: Measure) -> SplitResult:
        """Counts of these photos."""
        return evaluate_split(
            self.segmenter,
            split,
            measure.thresholds,
            detail=measure.detail,
            threshold=measure.threshold,
            stems=stems,
        )

    def label(self, split: EvalSplit, photo: Image.Image, threshold: float | None) -> IntArray:
        """Labels ``[H, W]`` of a photo."""
        return label_photo(self.segmenter, photo, split.classes, threshold)

    def identity(self) -> dict[str, Any]:
        """Digests of weights and architecture, and how many parameters there are.

        What a model computes is not in its weights alone: the number of heads or the assignment leave no tensor.
        """
        model = self.segmenter.model
        return {
            "weights": model_digest(model),
            "architecture": hash_values(model.config.to_dict()),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }


class FunctionEvaluator:
    """Evaluates a function that labels photos; how it does so, it answers for itself."""

    def __init__(self, predict: Predict, name: str, source: str) -> None:
        """Take a function.

        Args:
            predict: photo and label names to labels.
            name: what messages and results call it.
            source: digest of the file that it comes from.
        """
        self.predict, self.name, self.source = predict, name, source

    def evaluate(self, split: EvalSplit, stems: Sequence[str], measure: Measure) -> SplitResult:
        """Counts of these photos: those of the labels alone, for there are no segments, scores or thresholds.

        Raises:
            ValueError: background without a threshold: there is no other way to call the function.
        """
        names = label_names(split)
        if split.has_background and measure.threshold is None:
            raise ValueError("a function labels background as well; it cannot be counted without")
        details = Details(len(names), split.has_background, measure.threshold)
        result = SplitResult.empty(tuple(item.name for item in split.classes), (), details)
        for stem in stems:
            photo, mask = read_pair(split, stem)
            details.add(stem, mask, self.label(split, photo, measure.threshold))
            result.num_images += 1
        return result

    def label(self, split: EvalSplit, photo: Image.Image, threshold: float | None) -> IntArray:
        """Labels ``[H, W]`` of a photo.

        Raises:
            MixreorgError: the function returns something else.
        """
        names = label_names(split)
        labels = np.asarray(self.predict(photo, names))
        if labels.shape != (photo.height, photo.width) or not np.issubdtype(labels.dtype, np.integer):
            raise MixreorgError(
                f"{self.name} returned {labels.dtype} of shape {labels.shape} for a photo of {photo.width} x "
                f"{photo.height}; it must return integers of shape [height, width]"
            )
        if labels.min() < 0 or labels.max() >= len(names):
            raise MixreorgError(
                f"{self.name} returned labels from {labels.min()} to {labels.max()}; there are {len(names)} names, "
                "so labels go from 0 to the last of them"
            )
        return labels.astype(np.int64)

    def identity(self) -> dict[str, Any]:
        """That the labels are the function's own, and which version of its file; what that calls is not seen."""
        return {"function": self.name, "code": self.source}


def is_function_spec(model: str) -> bool:
    """Whether a model is given as ``module:function`` or ``file.py:function``."""
    module, colon, function = model.rpartition(":")
    return bool(colon) and function.isidentifier() and (module.endswith(".py") or _is_dotted(module))


def load_function(spec: str, protocol: ResolvedProtocol, device: str | torch.device) -> FunctionEvaluator:
    """Load an adapter: ``function(protocol, device)`` prepares a model and returns what labels photos.

    Args:
        spec: ``package.module:function`` or ``path/to/file.py:function``.
        protocol: which the adapter is to follow.
        device: where its model goes.

    Raises:
        MixreorgError: no such file, module or function, or it returns nothing that can be called.
    """
    module_name, _, name = spec.rpartition(":")
    module = _import_file(Path(module_name)) if module_name.endswith(".py") else _import_module(module_name)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise MixreorgError(f"{module_name} has no function {name!r}; write MODEL as file.py:function")
    predict = factory(protocol, device)
    if not callable(predict):
        raise MixreorgError(f"{spec} returned a {type(predict).__name__}; it must return a function that labels photos")
    return FunctionEvaluator(predict, spec, _source_digest(module))


def _source_digest(module: ModuleType) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a module's file; empty for one without."""
    path = Path(module.__file__ or "")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise MixreorgError(f"the adapter {path} does not exist")
    # A name of its own: an adapter clip.py may import the library clip.
    name = f"_mixreorg_adapter_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise MixreorgError(f"there is no module {name!r}; write MODEL as file.py:function") from error
        raise
