import pytest
import torch

from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.train.config import OptimConfig
from mixreorg.train.optim import build_optimizer, learning_rate


def test_the_schedule_follows_the_formula() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=10, warmup_lr=0.1, final_lr=0.2)
    assert learning_rate(0, 110, config) == pytest.approx(0.1)
    assert learning_rate(5, 110, config) == pytest.approx(0.55)
    assert learning_rate(10, 110, config) == pytest.approx(1.0)
    assert learning_rate(60, 110, config) == pytest.approx(0.6)
    assert learning_rate(110, 110, config) == pytest.approx(0.2)
    # It does not rise again where a run goes on.
    assert learning_rate(160, 110, config) == pytest.approx(0.2)


def test_norms_biases_positions_group_tokens_and_scales_do_not_decay(tiny_model: DualEncoder) -> None:
    optimizer = build_optimizer(tiny_model, OptimConfig(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(tiny_model.named_parameters())
    assert len(decay) == len(named)
    for name, parameter in named.items():
        is_plain = parameter.ndim < 2 or "position_embedding" in name or "group_tokens" in name
        assert decay[id(parameter)] == (0.0 if is_plain else 0.3), name
    assert decay[id(tiny_model.logit_scale)] == 0.0
    assert decay[id(tiny_model.image_encoder.patch_embedding.proj.weight)] == 0.3  # type: ignore[index]


def test_one_step_equals_plain_adamw(tiny_model: DualEncoder) -> None:
    config = OptimConfig(lr=0.01, weight_decay=0.1, betas=(0.8, 0.9))
    weight = tiny_model.text_projector.out.weight
    reference = torch.nn.Parameter(weight.detach().clone())
    weight.grad = torch.randn_like(weight)
    reference.grad = weight.grad.clone()
    build_optimizer(tiny_model, config).step()
    torch.optim.AdamW([reference], lr=0.01, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-8).step()
    torch.testing.assert_close(weight, reference)
