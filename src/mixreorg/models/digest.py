"""Which weights and which architecture a model has, as a few characters."""

import hashlib
import json
from typing import Any

import torch
from torch import nn


def model_digest(model: nn.Module) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all weights and buffers, their names and types."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def config_digest(values: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of plain values, for example of a model's configuration.

    What a model computes is not in its weights alone: the number of heads or the assignment leave no tensor.
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
