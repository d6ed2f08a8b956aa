import pytest
import torch

from mixreorg.errors import MixreorgError
from mixreorg.train.planning.hardware import KINDS, device_memory, find_kind, kind, peak_flops


@pytest.mark.parametrize(
    ("device_name", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10", "a10"),
        ("Tesla V100-SXM2-16GB", "v100-32"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_names_of_drivers(device_name: str, expected: str) -> None:
    assert find_kind(device_name) == KINDS[expected]


def test_an_unknown_or_merely_similar_name_is_no_kind() -> None:
    assert find_kind("NVIDIA A10G") is None
    assert find_kind("NVIDIA L40") is None


def test_peaks_follow_the_precision() -> None:
    assert kind("a100-80").peak("bf16").flops == 312e12
    assert kind("a100-80").peak("fp32").flops == 19.5e12
    # No bfloat16 units: torch runs it at the speed of float32.
    assert kind("v100-32").peak("bf16") == kind("v100-32").peak("fp32")
    assert kind("v100-32").peak("fp16").flops == 125e12


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(MixreorgError, match=r"--kind a1000: .*a100-80.*'this'"):
        kind("a1000")


def test_a_cpu_is_measured() -> None:
    peak = peak_flops(torch.device("cpu"), "fp32")
    assert peak.source == "measured"
    assert not peak.is_half
    assert 1e9 < peak.flops < 1e14


def test_the_memory_of_this_machine() -> None:
    memory = device_memory(torch.device("cpu"))
    assert memory is None or memory > 2**28
