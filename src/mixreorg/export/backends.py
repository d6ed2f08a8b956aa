"""ONNX Runtime and OpenVINO behind one interface: named arrays in, named arrays out."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError
from mixreorg.export.manifest import BIN_KEY, METADATA_KEY, ExportManifest
from mixreorg.files import exists

Array = npt.NDArray[Any]


class Graph(Protocol):
    """A loaded graph."""

    manifest: ExportManifest
    """What the file says of itself."""

    def run(self, name: str, values: Array, outputs: Sequence[str]) -> list[Array]:
        """Feed the one input ``name`` and return the named outputs."""


def require_cpu(device: str) -> None:
    """Refuse another device than the one that exports run on.

    Raises:
        MixreorgError: it is another.
    """
    if device != "cpu":
        raise MixreorgError(f"an exported model runs on the CPU, not on {device!r}; leave --device out")


@contextmanager
def needing_torch(model: str) -> Iterator[None]:
    """Say what to do where torch is missing for a model that is no export; imports go inside.

    Raises:
        MixreorgError: it is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MixreorgError(
            f"{model} is no export, and other models need torch; name what mixreorg export wrote, or install torch"
        ) from error


def load_graph(path: Path, threads: int | None = None) -> Graph:
    """Load ``*.onnx`` with ONNX Runtime, ``*.xml`` with OpenVINO, for the CPU.

    OpenVINO computes in bfloat16 where the export asks for it and the CPU has it, and in float32 otherwise, whatever
    the CPU would prefer.

    Args:
        path: the file.
        threads: of one run; None for one per core.

    Raises:
        MixreorgError: not an export, missing, truncated, or of a version that the installed library does not read.
    """
    if not (exists(path) and path.is_file()):
        raise MixreorgError(f"{path} is missing; export the model again")
    if path.suffix == ".onnx":
        return _OnnxGraph(path, threads)
    if not path.with_suffix(".bin").is_file():
        raise MixreorgError(f"{path.with_suffix('.bin')} is missing: OpenVINO keeps its weights there; copy both files")
    return _OpenVinoGraph(path, threads)


class _OnnxGraph:
    def __init__(self, path: Path, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # errors; they are raised as well
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library has a type of its own for every kind of failure
            raise _unreadable(path, "onnxruntime", onnxruntime.__version__, error) from error
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.manifest = ExportManifest.from_json(metadata.get(METADATA_KEY), str(path))

    def run(self, name: str, values: Array, outputs: Sequence[str]) -> list[Array]:
        found: list[Array] = self._session.run(list(outputs), {name: values})
        return found


class _OpenVinoGraph:
    def __init__(self, path: Path, threads: int | None) -> None:
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(path)
            metadata = model.get_rt_info(METADATA_KEY).value if model.has_rt_info(METADATA_KEY) else None
        except Exception as error:  # RuntimeError with the place in the library's sources
            raise _unreadable(path, "openvino", openvino.__version__, error) from error
        self.manifest = ExportManifest.from_json(metadata, str(path))
        with path.with_suffix(".bin").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not model.has_rt_info(BIN_KEY) or model.get_rt_info(BIN_KEY).value != found:
            raise MixreorgError(
                f"{path.with_suffix('.bin')} and {path} are of different exports; export the model again"
            )
        bf16 = self.manifest.precision == "bf16" and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:
            raise _unreadable(path, "openvino", openvino.__version__, error) from error

    def run(self, name: str, values: Array, outputs: Sequence[str]) -> list[Array]:
        found = self._compiled({name: values})
        # Copies: OpenVINO writes the next result into the same memory.
        return [np.array(found[output]) for output in outputs]


def _unreadable(path: Path, library: str, version: str, error: Exception) -> MixreorgError:
    reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return MixreorgError(
        f"{path} cannot be loaded by {library} {version}: it is damaged or of another version ({reason}); "
        f"export the model again, or take another version of {library}"
    )
