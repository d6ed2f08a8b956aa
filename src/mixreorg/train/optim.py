"""Parameter groups and the learning-rate schedule."""

import math

import torch
from torch import nn

from mixreorg.train.config import OptimConfig

# Tokens and embeddings that are not weights of a linear map; norms, biases and scales are found by their shape.
_NO_DECAY = ("position_embedding", "group_tokens")


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and convolutions only, as GroupViT trains."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        is_plain = parameter.ndim < 2 or name.endswith(_NO_DECAY)
        (plain if is_plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    device = next(module.parameters()).device.type
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=device in ("cpu", "cuda"))


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """Learning rate of a step (from 0): linear from ``warmup_lr``, then a cosine to ``final_lr``."""
    if step < config.warmup_steps:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
