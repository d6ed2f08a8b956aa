"""What devices can do at best: peak operations per second by precision, and memory."""

import os
import re
import sys
import time
from dataclasses import dataclass
from typing import Literal

import torch

from mixreorg.errors import MixreorgError

_MEASURING_SECONDS = 0.2
_GIB = 2**30
_TERA = 1e12


@dataclass(frozen=True)
class Kind:
    """A kind of accelerator."""

    title: str
    memory: int
    """Bytes that a process can see."""
    half: float
    """Dense operations per second of matrix products in half precision with float32 sums."""
    single: float
    """The same in float32; torch leaves TF32 off unless told otherwise."""
    has_bf16: bool = True

    def peak(self, precision: str) -> "Peak":
        """Peak in a precision of ``TrainConfig``; bfloat16 runs as float32 where it is missing."""
        if precision == "fp32" or (precision == "bf16" and not self.has_bf16):
            return Peak(self.single, "data sheet", is_half=False)
        return Peak(self.half, "data sheet", is_half=True)


def _kind(title: str, gib: float, half: float, single: float, *, has_bf16: bool = True) -> Kind:
    return Kind(title, int(gib * _GIB), half * _TERA, single * _TERA, has_bf16)


KINDS: dict[str, Kind] = {
    # NVIDIA V100 data sheet (SXM2): 125 TFLOPS tensor, 15.7 single.
    "v100-16": _kind("V100 16 GB", 15.8, 125, 15.7, has_bf16=False),
    "v100-32": _kind("V100 32 GB", 31.7, 125, 15.7, has_bf16=False),
    # NVIDIA T4 data sheet: 65 mixed precision, 8.1 single.
    "t4": _kind("T4", 14.6, 65, 8.1, has_bf16=False),
    # NVIDIA A100 data sheet: 312 (624 with sparsity), 19.5.
    "a100-40": _kind("A100 40 GB", 39.4, 312, 19.5),
    "a100-80": _kind("A100 80 GB", 79.2, 312, 19.5),
    # NVIDIA A10 data sheet: 125 (250 with sparsity), 31.2.
    "a10": _kind("A10", 22.1, 125, 31.2),
    # NVIDIA H100 data sheet: SXM 989 (1,979 with sparsity) and 67; PCIe 756 (1,513) and 51.
    "h100": _kind("H100 SXM", 79.2, 989, 67),
    "h100-pcie": _kind("H100 PCIe", 79.2, 756, 51),
    # NVIDIA H200 data sheet (SXM): the H100's figures with 141 GB.
    "h200": _kind("H200", 139.8, 989, 67),
    # NVIDIA L4 data sheet: 121 (242 with sparsity), 30.3.
    "l4": _kind("L4", 22.0, 121, 30.3),
    # NVIDIA L40S data sheet: 362 (733 with sparsity), 91.6.
    "l40s": _kind("L40S", 44.4, 362, 91.6),
    # NVIDIA GA102 white paper: half precision with float32 sums 71 and 155, single 35.6 and 38.7.
    "3090": _kind("RTX 3090", 23.6, 71, 35.6),
    "a6000": _kind("RTX A6000", 47.4, 155, 38.7),
    # NVIDIA Ada and Blackwell GeForce white papers: half precision with float32 sums 165 and 210, single 82.6 and 105.
    "4090": _kind("RTX 4090", 23.5, 165, 82.6),
    "5090": _kind("RTX 5090", 31.4, 210, 105),
    # AMD Instinct MI300X data sheet: 1,307 (2,615 with sparsity), 163.4.
    "mi300x": _kind("MI300X", 191.5, 1307, 163.4),
}
"""Kinds by the name that ``mixreorg plan --kind`` takes."""

# Words in the names that drivers report, the more exact ones first.
_NAMES = {
    "H100 PCIe": "h100-pcie",
    "H100": "h100",
    "H200": "h200",
    "A100": "a100-80",
    "V100": "v100-32",
    "L40S": "l40s",
    "L4": "l4",
    "A10": "a10",
    "T4": "t4",
    "RTX A6000": "a6000",
    "RTX 3090": "3090",
    "RTX 4090": "4090",
    "RTX 5090": "5090",
    "MI300X": "mi300x",
}


@dataclass(frozen=True)
class Peak:
    """Operations per second that a device can do at best."""

    flops: float
    source: Literal["data sheet", "measured"]
    """``measured``: by a short product of large matrices, which is a little below the true peak."""
    is_half: bool
    """Whether it is that of half precision."""


def peak_flops(device: torch.device, precision: str) -> Peak:
    """Peak of a device that is present: from its maker's data sheet where the device is known, else measured.

    Args:
        device: of this machine.
        precision: of ``TrainConfig``.
    """
    known = find_kind(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if known is not None:
        return known.peak(precision)
    return Peak(_measure(device, precision), "measured", is_half=precision != "fp32")


def find_kind(device_name: str) -> Kind | None:
    """The kind that a driver's name of a device stands for; its memory may be another variant's."""
    return next((KINDS[name] for words, name in _NAMES.items() if re.search(rf"\b{words}\b", device_name)), None)


def kind(name: str) -> Kind:
    """A kind by its name.

    Raises:
        MixreorgError: no such kind.
    """
    if name not in KINDS:
        raise MixreorgError(f"--kind {name}: not a device this knows; take one of {', '.join(KINDS)}, or 'this'")
    return KINDS[name]


def available_device() -> torch.device:
    """The device that training takes by itself on this machine."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_memory(device: torch.device) -> int | None:
    """Bytes of memory of a device that is present; for a CPU the machine's. None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _measure(device: torch.device, precision: str) -> float:
    """Best rate of a product of square matrices within a moment."""
    side = 1024 if device.type == "cpu" else 4096
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    _product_seconds(matrix)
    best, end = float("inf"), time.perf_counter() + _MEASURING_SECONDS
    while time.perf_counter() < end:
        best = min(best, _product_seconds(matrix))
    return 2 * side**3 / best


def _product_seconds(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    # The sum, read back, waits for the device.
    float((matrix @ matrix)[0, 0])
    return time.perf_counter() - start
