"""ONNX graphs as OpenVINO's pair of files."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mixreorg.export.manifest import METADATA_KEY, ExportManifest
from mixreorg.files import write_atomically

if TYPE_CHECKING:
    from onnx import ModelProto


def write_openvino(model: "ModelProto", path: Path, manifest: ExportManifest) -> None:
    """Write ``path`` (``*.xml``) and the weights beside it (``*.bin``), each whole or not at all.

    Args:
        model: an ONNX graph.
        path: of the description; replaced last, so that a description stands for whole weights.
        manifest: kept in the description.

    Raises:
        MixreorgError: the files cannot be written.
    """
    import openvino

    converted = openvino.Core().read_model(model.SerializeToString())
    converted.set_rt_info(manifest.to_json(), METADATA_KEY)
    with TemporaryDirectory() as folder:
        # OpenVINO writes both files itself, under one name, and does not say when a disk is full: into a folder of
        # its own first, where its result can be read back.
        made = Path(folder) / "graph.xml"
        openvino.save_model(converted, made, compress_to_fp16=manifest.precision == "fp16")
        weights, description = made.with_suffix(".bin").read_bytes(), made.read_bytes()
    write_atomically(path.with_suffix(".bin"), lambda temporary: _write(temporary, weights))
    write_atomically(path, lambda temporary: _write(temporary, description))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
