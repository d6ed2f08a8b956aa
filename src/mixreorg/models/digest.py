"""Which weights a model has, as a few characters."""

import hashlib

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
