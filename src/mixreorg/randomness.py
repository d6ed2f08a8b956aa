"""Random numbers that are pure functions of a key.

A training step draws everything (order, augmentation, mixing, gumbel noise, drop path) from keys made of
(seed, epoch or step, sample), never from the state of a generator. The same sample therefore meets the same
noise whatever the worker, the process or the number of processes.
"""

import math

import numpy as np
import torch

_MASK = (1 << 64) - 1
# The constants of the splitmix64 generator (Steele et al., 2014), as signed 64-bit integers where torch needs them.
_GAMMA = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def make_key(*parts: int | str) -> int:
    """Fold integers and names into one non-negative 63-bit key; the order of the parts matters."""
    key = 0x243F6A8885A308D3
    for part in parts:
        values = part.encode() if isinstance(part, str) else int(part).to_bytes(16, "little", signed=True)
        for start in range(0, len(values), 8):
            key = _mix_int(key ^ int.from_bytes(values[start : start + 8], "little"))
    return key >> 1


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator whose whole stream is fixed by the key parts."""
    return np.random.Generator(np.random.PCG64(make_key(*parts)))


def sample_keys(seed: int, sample_ids: torch.Tensor) -> torch.Tensor:
    """Keys of the noise that samples meet in one visit; ``[B]`` int64 ids to ``[B]`` int64 keys.

    Args:
        seed: of the run.
        sample_ids: one number per (epoch, sample).
    """
    return _mix_tensor(_mix_tensor(sample_ids.to(torch.int64)) ^ make_key(seed, "sample"))


def name_key(name: str) -> torch.Tensor:
    """The name of a use as :func:`keyed_uniform` takes it too: a scalar int64 tensor, which compiled code can share."""
    return torch.tensor(make_key(name))


def keyed_uniform(keys: torch.Tensor, name: str | torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Uniform numbers in the open interval (0, 1), one independent stream per key.

    Args:
        keys: ``[B]`` int64, one key per sample.
        name: which use of the key this is ("gumbel.0", "drop_path.3"), or its :func:`name_key` on the device of
            ``keys``: other names give other numbers.
        shape: shape per sample.

    Returns:
        ``[B, *shape]`` float32 on the device of ``keys``; 24 random bits per number.
    """
    count = math.prod(shape)
    counter = torch.arange(count, device=keys.device, dtype=torch.int64)
    state = keys[:, None] ^ (make_key(name) if isinstance(name, str) else name)
    bits = _mix_tensor(_mix_tensor(state) + counter * _signed(_GAMMA))
    uniform = ((bits >> 40) & 0xFFFFFF).to(torch.float32).add_(0.5).mul_(2.0**-24)
    # Float32 has no room for the half in the upper half of the numbers, and rounds that of the last one up to 1, whose
    # Gumbel noise is infinite and whose share of a list lies behind its end.
    return uniform.clamp_(max=1 - 2.0**-24).view(len(keys), *shape)


def _mix_int(value: int) -> int:
    value = (value + _GAMMA) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def _mix_tensor(value: torch.Tensor) -> torch.Tensor:
    value = value + _signed(_GAMMA)
    value = (value ^ _shift_right(value, 30)) * _signed(_FIRST)
    value = (value ^ _shift_right(value, 27)) * _signed(_SECOND)
    return value ^ _shift_right(value, 31)


def _shift_right(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift: torch's own shift of int64 copies the sign bit."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
