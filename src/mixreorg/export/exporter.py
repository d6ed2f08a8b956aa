"""From a model to exported files."""

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from mixreorg import __version__
from mixreorg.errors import MixreorgError
from mixreorg.export.graphs import MAX_SIDE, BakedGraph, ImageGraph, TextGraph, image_onnx, text_onnx
from mixreorg.export.manifest import (
    METADATA_KEY,
    SUFFIXES,
    BakedClass,
    ExportManifest,
    Precision,
    Runtime,
    holds_manifest,
)
from mixreorg.export.openvino_files import openvino_files
from mixreorg.export.precision import quantise, store_in_half
from mixreorg.export.runtime import (
    BAKED_OUTPUTS,
    IMAGE,
    IMAGE_OUTPUTS,
    PIXELS,
    TEXT,
    TEXT_OUTPUTS,
    TOKEN_IDS,
    TOKENIZER,
    check_protocol,
    check_window,
    cut_windows,
)
from mixreorg.files import write_together
from mixreorg.models.digest import model_digest
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.calibration import CALIBRATION_FILE
from mixreorg.segment.photos import read_photo
from mixreorg.segment.protocol import Protocol, hash_values
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.window_plan import plan_windows
from mixreorg.text.class_list import ClassName

if TYPE_CHECKING:
    from onnx import ModelProto

FLOAT_PARTS = ("/assign/q_proj", "/assign/k_proj", "/image_projector/")
"""Parts of a graph whose products stay in float32 under int8: they decide arg maxima, and take little time."""
MAX_PHOTOS = 100
"""Photos that calibration reads at most, evenly spread over those given."""
_HALF = ("fp16", "bf16")
_PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def export_model(
    model: DualEncoder,
    out: Path,
    to: Runtime = "onnx",
    *,
    classes: tuple[ClassName, ...] | None = None,
    size: tuple[int, int] | None = None,
    precision: Precision = "fp32",
    photos: Path | None = None,
    protocol: Protocol | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Write a model as files that :class:`~mixreorg.export.runtime.ExportedSegmenter` reads without torch.

    Args:
        model: with its tokenizer; used on the CPU.
        out: without ``classes`` a folder, which gets an image graph, a text graph and the tokenizer; with them the
            one file (for OpenVINO: two) that holds everything.
        to: ``onnx`` or ``openvino``.
        classes: to bake in.
        size: height and width of the windows that the image graph takes, which makes it faster; by default any.
        precision: ``fp16`` and ``bf16`` store weights in half the space; ``int8`` also computes in 8 bits.
        photos: folder of photos to measure the scales of ``int8`` on.
        protocol: of the export; by default the model's.
        say: told what is being done.

    Returns:
        The files, written whole or not at all, the image graph last.

    Raises:
        MixreorgError: a protocol that exports do not follow, a size or a path that cannot be, ``int8`` without photos,
            or files that cannot be written.
        ModuleNotFoundError: a library of the extra ``export`` is missing.
    """
    if model.tokenizer is None:
        raise ValueError("a model is exported with its tokenizer, and this one has none")
    segmenter = Segmenter(model.cpu(), protocol)
    check_protocol(segmenter.protocol, baked=classes is not None)
    patch = model.config.image.patch_size
    _check_size(size, patch)
    path = _image_path(out, to, classes is not None)
    _require_libraries(to, precision)
    if (precision == "int8") != (photos is not None):
        raise MixreorgError("int8 is calibrated on photos, and nothing else is: give --photos FOLDER with int8 alone")
    manifest = ExportManifest(
        version=__version__,
        weights=_fingerprint(model),
        tokenizer=hash_values(model.tokenizer.to_dict()) if classes is None else None,
        precision=precision,
        size=size,
        patch_size=patch,
        logit_scale=float(model.scale.detach()),
        protocol=segmenter.protocol,
        model=model_digest(model),
        classes=None if classes is None else tuple(BakedClass(name=i.name, phrases=i.phrases) for i in classes),
    )
    batches = list(_calibration(photos, manifest, path)) if photos is not None else None
    side = min(segmenter.protocol.window, segmenter.protocol.short_side)
    say("tracing the image encoder")
    graph, outputs = _image_graph(segmenter, classes)
    image = image_onnx(graph, PIXELS, outputs, size, side)
    files: dict[Path, bytes] = {}
    if classes is None:
        say("tracing the text encoder")
        files[path.parent / TOKENIZER] = json.dumps(model.tokenizer.to_dict(), ensure_ascii=False).encode()
        text = text_onnx(TextGraph(model), TOKEN_IDS, TEXT_OUTPUTS)
        files |= _files(_reduced(text, precision), path.with_stem(TEXT), manifest)
        if model.inference_calibration is not None:
            files[path.parent / CALIBRATION_FILE] = json.dumps(model.inference_calibration).encode()
    if batches is not None:
        say(f"calibrating on {len(batches)} batches of windows")
        image = quantise(image, PIXELS, iter(batches), FLOAT_PARTS)
    files |= _files(_reduced(image, precision), path, manifest)
    # Parts of two exports would not fit each other.
    write_together(files)
    return list(files)


def _require_libraries(to: Runtime, precision: Precision) -> None:
    """Import what will be needed at last, so that what is missing is not told after minutes of work."""
    needed = {
        "onnx": True,
        "openvino": to == "openvino",
        "ml_dtypes": precision in _HALF,
        "onnxruntime": precision == "int8",
    }
    for library in (name for name, is_needed in needed.items() if is_needed):
        importlib.import_module(library)


def _fingerprint(model: DualEncoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _image_graph(segmenter: Segmenter, classes: tuple[ClassName, ...] | None) -> tuple[ImageGraph, tuple[str, ...]]:
    if classes is None:
        return ImageGraph(segmenter.model), IMAGE_OUTPUTS
    embeddings, owners = segmenter.class_embeddings(classes)
    with torch.inference_mode(False):
        graph = BakedGraph(segmenter.model, embeddings.clone(), owners.tolist(), segmenter.protocol.shortlist)
    return graph, BAKED_OUTPUTS


def _reduced(model: "ModelProto", precision: Precision) -> "ModelProto":
    if precision in _HALF:
        store_in_half(model, bf16=precision == "bf16")
    return model


def _files(model: "ModelProto", path: Path, manifest: ExportManifest) -> dict[Path, bytes]:
    """Contents of the files of one graph."""
    if path.suffix == SUFFIXES["openvino"]:
        return openvino_files(model, path, manifest)
    model.producer_name, model.producer_version = "mixreorg", manifest.version
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, manifest.to_json()
    return {path: model.SerializeToString()}


def _check_size(size: tuple[int, int] | None, patch: int) -> None:
    if size is not None and not (2 * patch <= min(size) and max(size) <= MAX_SIDE):
        raise MixreorgError(
            f"size {size[0]}x{size[1]}: sides must lie between two patches ({2 * patch} pixels) and {MAX_SIDE}"
        )


def _image_path(out: Path, to: Runtime, baked: bool) -> Path:
    suffix = SUFFIXES[to]
    if not baked:
        if out.suffix in SUFFIXES.values() or (out.exists() and not out.is_dir()):
            raise MixreorgError(f"{out}: an export without classes is a folder of files; name a folder")
        other = next(out / f"{IMAGE}{item}" for item in SUFFIXES.values() if item != suffix)
        if other.exists():
            raise MixreorgError(
                f"{out} already holds an export for another runtime ({other.name}); name another folder"
            )
        image = out / f"{IMAGE}{suffix}"
        # One will do: of an export that is damaged, the message on reading says to export the model again.
        is_export = any(graph.is_file() and holds_manifest(graph) for graph in (image, image.with_stem(TEXT)))
        if out.is_dir() and any(out.iterdir()) and not is_export:
            # A model folder has a tokenizer.json, too, and it may be another's.
            raise MixreorgError(f"{out} is not empty and holds no export; name another folder, or empty it")
        return image
    if out.suffix != suffix or out.is_dir():
        raise MixreorgError(f"{out}: an export with classes to {to} is one file; name it *{suffix}")
    # OpenVINO's weights go beside it; those of another file must not be lost either.
    for file in (out, out.with_suffix(".bin")) if to == "openvino" else (out,):
        if file.exists() and not (out.is_file() and holds_manifest(out)):
            raise MixreorgError(
                f"{file} was not written by mixreorg export, so it is not replaced; name another file, or remove it"
            )
    return out


def _calibration(folder: Path, manifest: ExportManifest, target: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Windows of the photos in a folder, cut as the protocol says."""
    if not folder.is_dir():
        raise MixreorgError(f"{folder} is not a folder of photos to calibrate on")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PHOTO_SUFFIXES)
    if not paths:
        raise MixreorgError(f"{folder} holds no photos to calibrate on")
    step = max(1, len(paths) / MAX_PHOTOS)
    for index in range(min(len(paths), MAX_PHOTOS)):
        image = read_photo(paths[int(index * step)])
        plan = plan_windows(manifest.protocol, image.width, image.height)
        check_window(manifest, manifest.protocol, image, plan, target)
        yield cut_windows(image, plan)
