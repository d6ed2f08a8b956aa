"""What an exported file says of itself: kept inside the file, so that it cannot get lost."""

import json
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import model_validator

from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.segment.protocol import Protocol
from mixreorg.text.class_list import ClassName

_FAMILY = "mixreorg-export-"
FORMAT = f"{_FAMILY}2"
METADATA_KEY = "mixreorg"
"""Name of the manifest among the metadata of an ONNX file, and in the runtime information of an OpenVINO one."""
BIN_KEY = "mixreorg_bin"
"""Name of the SHA-256 of OpenVINO's file of weights in the runtime information of the description."""

Runtime = Literal["onnx", "openvino"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SUFFIXES: dict[Runtime, str] = {"onnx": ".onnx", "openvino": ".xml"}


def holds_manifest(path: Path) -> bool:
    """Whether a graph's file was written by this package, in whatever version; no library is asked.

    Raises:
        MixreorgError: it cannot be read.
    """
    try:
        # Every manifest names its format, in ONNX's metadata as in OpenVINO's.
        return _FAMILY.encode() in path.read_bytes()
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error


class BakedClass(StrictConfig):
    """A class whose embeddings are part of the file."""

    name: str
    """Name in results."""
    phrases: tuple[str, ...]
    """Phrases that were embedded."""


class ExportManifest(StrictConfig):
    """Everything the runtime needs beside the graph."""

    format: str = FORMAT
    """Version of the layout of the files."""
    version: str
    """Version of mixreorg that wrote the file."""
    weights: str
    """Identifies the weights of the whole model, so that graphs of different models are not taken for one."""
    tokenizer: str | None
    """Identifies the tokenizer of a free-vocabulary export; None with baked classes, which need none."""
    precision: Precision
    """How weights are stored; ``int8``: how products are computed, too."""
    size: tuple[int, int] | None
    """Height and width that the image graph takes; None for any."""
    patch_size: int
    """Side of a patch in pixels."""
    logit_scale: float
    """Factor on cosine similarities, exponentiated and clamped."""
    protocol: Protocol
    """The model's own protocol, the runtime's default."""
    model: str = ""
    """Digest of the model's weights, by which calibrations know it; empty in files that do not say."""
    classes: tuple[BakedClass, ...] | None
    """Classes of a file with baked classes; None for free vocabulary."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.patch_size < 1 or (self.size is not None and min(self.size) < self.patch_size):
            raise ValueError(f"size {self.size} is smaller than a patch of {self.patch_size}")
        return self

    @property
    def class_names(self) -> tuple[ClassName, ...] | None:
        """The baked classes as the rest of the package names them."""
        if self.classes is None:
            return None
        return tuple(ClassName(item.name, item.phrases) for item in self.classes)

    def to_json(self) -> str:
        """The manifest as it is kept in a file."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None, source: str) -> "ExportManifest":
        """Read a manifest.

        Raises:
            MixreorgError: none there, or one of another version.
        """
        try:
            values: Any = json.loads(text or "")
        except (ValueError, RecursionError):
            raise MixreorgError(
                f"{source} was not made by `mixreorg export` (it has no manifest); export the model again"
            ) from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else None
            raise MixreorgError(
                f"{source} has the format {found!r} and this version reads {FORMAT!r}; export the model again"
            )
        return cls.from_dict(values, source=source)
