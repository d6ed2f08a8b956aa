"""Weights in half precision, and products in 8 bits."""

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError

if TYPE_CHECKING:
    from onnx import ModelProto

SMALL = 1024
"""Tensors of fewer values stay in float32: biases, norms, scales."""


PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Operators that int8 computes in 8 bits, where one side is a weight."""


def store_in_half(model: "ModelProto", *, bf16: bool) -> None:
    """Store large weights in 16 bits, in place; the graph casts them back when it is loaded and computes in float32.

    Products in float16 are not available on most CPUs, so the gain is the size of the file.

    Args:
        model: a float32 graph.
        bf16: bfloat16 instead of float16. Values beyond float16's range are left in float32 either way.
    """
    import ml_dtypes
    import onnx
    from onnx import helper, numpy_helper

    target = np.dtype(ml_dtypes.bfloat16 if bf16 else np.float16)
    kind = onnx.TensorProto.BFLOAT16 if bf16 else onnx.TensorProto.FLOAT16
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < SMALL or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        half = helper.make_tensor(f"{name}.half", kind, values.shape, values.astype(target).tobytes(), raw=True)
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT))
    # Nodes stand in the order of their execution.
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


_QUANTISATION = {
    # A tensor that is zero on every photo would get the scale 0.
    "MinimumRealRange": 1e-4,
    # Sums stay in float32: what follows them (norms, residuals) is not computed in 8 bits anyway.
    "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
}


def quantise(
    model: "ModelProto", name: str, batches: Iterator[npt.NDArray[np.uint8]], keep: tuple[str, ...]
) -> "ModelProto":
    """Static 8-bit quantisation of all products with weights, scales measured on the given windows.

    Args:
        model: a float32 graph.
        name: of its input.
        batches: windows ``[B, 3, H, W]`` to calibrate on.
        keep: parts of names of products that stay in float32.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library is not typed
        def get_next(self) -> dict[str, Any] | None:
            batch = next(batches, None)
            return None if batch is None else {name: batch}

    # The library divides by ranges of zero before it looks for them.
    with TemporaryDirectory() as folder, np.errstate(invalid="ignore", divide="ignore"):
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        # It warns that the graph was not prepared by a tool of its own, which is optional.
        logging.disable(logging.WARNING)
        try:
            onnx.save(model, source)
            quantize_static(
                source,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=_products(model, keep),
                per_channel=True,
                # Seven bits per weight: sums of two 8-bit products overflow 16 bits on CPUs without VNNI.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=_QUANTISATION,
            )
        except OSError as error:
            raise MixreorgError(f"cannot quantise: {error.strerror or error} in {folder}; make room there") from error
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def _products(model: "ModelProto", keep: tuple[str, ...]) -> list[str]:
    """Names of the products that have weights, but for those that are to stay in float32."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in PRODUCTS
        and node.input[1] in weights
        # Products of no layer are those with the classes.
        and not node.name.startswith("/MatMul")
        and not any(part in node.name for part in keep)
    ]
