import pytest
import torch

from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.recipes import recipe
from mixreorg.train.config import EngineConfig, TrainConfig
from mixreorg.train.planning.costs import Numerics
from mixreorg.train.planning.flops import encoder_costs
from mixreorg.train.planning.memory import count_parameters, estimate_memory
from mixreorg.train.setup import build_objective


def with_engine(config: TrainConfig, chunk: int | None, checkpointing: bool) -> TrainConfig:
    return config.updated(engine=EngineConfig(chunk=chunk, activation_checkpointing=checkpointing))


def test_parameters_are_those_of_the_model(tiny_config: DualEncoderConfig) -> None:
    objective = MixReorgConfig(combine="gate")
    config = recipe("scenes_mixreorg").updated(
        model=tiny_config,
        objective=objective,
        data=recipe("scenes_mixreorg").data.updated(
            transform=recipe("scenes_mixreorg").data.transform.updated(image_size=32)
        ),
    )
    module = build_objective(DualEncoder(tiny_config), objective)
    counts = count_parameters(config)
    assert counts.total == sum(parameter.numel() for parameter in module.parameters())
    text = sum(parameter.numel() for parameter in module.model.text_encoder.parameters())
    assert counts.by_part["text encoder"] == text
    assert counts.by_part["mixed branch"] == sum(p.numel() for n, p in module.named_parameters() if "progressive" in n)
    assert counts.multiplied == sum(
        child.weight.numel() for child in module.modules() if isinstance(child, torch.nn.Linear | torch.nn.Conv2d)
    )


def test_known_components_at_full_scale() -> None:
    config = recipe("mixreorg_vits_cc12m")
    memory = estimate_memory(config, "cuda", 512, devices=8)
    assert memory.weights == memory.gradients == 4 * count_parameters(config).total
    assert memory.moments == 2 * memory.weights
    assert memory.images == 512 * 3 * 224**2 * 5
    assert memory.total == pytest.approx(
        memory.weights + memory.gradients + memory.moments + memory.images + memory.activations
        + memory.workspace + memory.runtime
    )  # fmt: skip


def test_memory_falls_with_the_chunk_and_with_checkpointing() -> None:
    config = recipe("mixreorg_vits_cc12m")
    totals = [estimate_memory(with_engine(config, chunk, False), "cuda", 512).total for chunk in (None, 256, 64, 16)]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 5 * totals[2]
    recomputed = estimate_memory(with_engine(config, None, True), "cuda", 512)
    assert recomputed.activations < 0.5 * estimate_memory(config, "cuda", 512).activations
    whole = estimate_memory(with_engine(config, 512, False), "cuda", 512)
    assert whole == estimate_memory(config, "cuda", 512)


def test_noun_prompts_take_memory_of_their_own() -> None:
    config = recipe("groupvit_vits_gcc_yfcc")
    config = config.updated(model=config.model.updated(multi_label=True))
    plain = recipe("groupvit_vits_cc12m")
    for chunk, checkpointing in ((None, False), (64, False), (64, True)):
        more, less = (
            estimate_memory(with_engine(run, chunk, checkpointing), "cuda", 512).activations for run in (config, plain)
        )
        assert 1.01 * less < more < 1.6 * less
    numerics = Numerics.of(config.precision, "cuda")
    costs = encoder_costs(config, numerics)
    assert 0 < costs["noun prompts"].saved < 1.5 * costs["text encoder"].saved
    assert count_parameters(config).total == count_parameters(plain).total + 1


def test_half_precision_keeps_less_than_twice_half() -> None:
    config = recipe("groupvit_vits_cc12m")
    single = estimate_memory(config.with_overrides(["precision=fp32"]), "cuda", 256).activations
    half = estimate_memory(config, "cuda", 256).activations
    assert 0.5 * single < half < 0.75 * single
