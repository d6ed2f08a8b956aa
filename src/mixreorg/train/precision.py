"""Whether a device computes in bfloat16: what ``precision: auto`` asks."""

import torch


def has_bf16(device_type: str) -> bool:
    """Whether matrix products in bfloat16 run in hardware; no where torch does not say.

    A processor without such instructions emulates bfloat16 tens of times slower than it computes in float32.

    Args:
        device_type: type of a ``torch.device`` of this machine.
    """
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))
