"""Exports in ``mixreorg segment``: told apart by their files, used without torch."""

import shutil
import subprocess
import sys
from pathlib import Path

from mixreorg.batch.identity import model_identity
from mixreorg.export.runtime import ExportedSegmenter


def identity(path: Path) -> str:
    return model_identity(ExportedSegmenter(path), str(path))


def test_an_export_is_known_by_its_files(exports: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exports / "openvino", copy)
    (copy / "notes.txt").write_text("no part of it")
    identities = [identity(exports / name) for name in ("onnx", "openvino", "baked.onnx")]
    assert len(set(identities)) == 3
    assert identity(copy) == identities[1]
    segmenter = ExportedSegmenter(copy)
    weights = bytearray((copy / "text.bin").read_bytes())
    weights[-1] ^= 1
    (copy / "text.bin").write_bytes(weights)
    assert model_identity(segmenter, str(copy)) != identities[1]


def test_batches_do_not_import_torch() -> None:
    code = (
        "import sys, mixreorg.batch.run, mixreorg.batch.identity, mixreorg.batch.inputs; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
