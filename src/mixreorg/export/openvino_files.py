"""ONNX graphs as OpenVINO's pair of files."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mixreorg.errors import MixreorgError
from mixreorg.export.manifest import BIN_KEY, METADATA_KEY, ExportManifest

if TYPE_CHECKING:
    from onnx import ModelProto


def openvino_files(model: "ModelProto", path: Path, manifest: ExportManifest) -> dict[Path, bytes]:
    """Contents of the weights (``*.bin``) and of the description (``*.xml``).

    Args:
        model: an ONNX graph.
        path: of the description; it is the last of the two, so that a description stands for whole weights.
        manifest: kept in the description.

    Raises:
        MixreorgError: there is no room for temporary files.
    """
    import openvino

    converted = openvino.Core().read_model(model.SerializeToString())
    converted.set_rt_info(manifest.to_json(), METADATA_KEY)
    # OpenVINO writes both files itself, under one name, and not in one step: into a folder of its own first.
    with TemporaryDirectory() as folder:
        made = Path(folder) / "graph.xml"
        try:
            half = manifest.precision == "fp16"
            openvino.save_model(converted, made, compress_to_fp16=half)
            # The description says which weights are its own: those of another model may have the same size.
            converted.set_rt_info(hashlib.sha256(made.with_suffix(".bin").read_bytes()).hexdigest(), BIN_KEY)
            openvino.save_model(converted, made, compress_to_fp16=half)
            # It does not always notice that a disk is full; files that are not whole cannot be read back.
            openvino.Core().read_model(made)
            weights, description = made.with_suffix(".bin").read_bytes(), made.read_bytes()
        except (RuntimeError, OSError) as error:
            raise MixreorgError(f"cannot write {path}: OpenVINO failed in {folder}; is that disk full?") from error
    return {path.with_suffix(".bin"): weights, path: description}
