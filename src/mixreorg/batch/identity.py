"""What decides the results of a photo, so that a later run knows which it need not make again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixreorg.errors import MixreorgError
from mixreorg.export.runtime import IMAGE, TEXT, TOKENIZER, ExportedSegmenter, find_export
from mixreorg.segment.protocol import hash_values
from mixreorg.text.class_list import ClassName

if TYPE_CHECKING:
    from mixreorg.segment.segmenter import Segmenter


def listed(names: Sequence[ClassName]) -> list[list[str]]:
    """Class names as plain values: the name, then its phrases."""
    return [[item.name, *item.phrases] for item in names]


def model_identity(segmenter: "Segmenter | ExportedSegmenter", source: str) -> str:
    """Hexadecimal digits of the SHA-256 of a model's weights and architecture, or of an export's files.

    Args:
        segmenter: the loaded model.
        source: where it was loaded from.

    Raises:
        MixreorgError: an export that cannot be read.
    """
    if isinstance(segmenter, ExportedSegmenter):
        return _files_digest(source)
    from mixreorg.models.digest import model_digest  # it imports torch, which an export does without

    model = segmenter.model
    return hash_values({"weights": model_digest(model), "architecture": model.config.to_dict()})


def photo_identity(path: Path) -> dict[str, Any]:
    """Size in bytes and time of the last change of a photo; empty where it is missing."""
    try:
        facts = path.stat()
    except OSError:
        return {}
    return {"bytes": facts.st_size, "modified_ns": facts.st_mtime_ns}


def _files_digest(source: str) -> str:
    graph = find_export(Path(source))
    assert graph is not None  # it was loaded
    # Weights may lie beside the graph, as OpenVINO's .bin.
    names = {f"{graph.stem}.*", f"{TEXT}.*", TOKENIZER} if graph.stem == IMAGE else {f"{graph.stem}.*"}
    digest = hashlib.sha256()
    try:
        for path in sorted({path for name in names for path in graph.parent.glob(name)}):
            with path.open("rb") as stream:
                digest.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise MixreorgError(f"cannot read {source}: {error.strerror or error}") from error
    return digest.hexdigest()[:16]
