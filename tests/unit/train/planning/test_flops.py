import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.recipes import recipe
from mixreorg.text.noun_prompts import NounPrompts
from mixreorg.train.config import DataConfig, EngineConfig, TrainConfig
from mixreorg.train.planning.costs import Numerics
from mixreorg.train.planning.flops import encoder_costs, flops_per_pair, loss_costs, noun_length
from mixreorg.train.planning.memory import count_parameters
from mixreorg.train.setup import build_objective

OBJECTIVES: dict[str, GroupViTConfig | MixReorgConfig] = {
    "groupvit": GroupViTConfig(),
    "reduced": MixReorgConfig(num_contextual_blocks=0, combine="none", restored=WeightSchedule(weight=0.0)),
    "one mixed image": MixReorgConfig(restored=WeightSchedule(weight=0.0), mixed_per_group=1),
    "complete": MixReorgConfig(),
    "gate": MixReorgConfig(combine="gate"),
    "cross attention": MixReorgConfig(combine="cross_attention"),
    "cross entropy": MixReorgConfig(mixed_form="cross_entropy"),
    "binary": MixReorgConfig(mixed_form="binary_cross_entropy"),
    "mixed nouns": MixReorgConfig(candidates="nouns", multi_label=MultiLabelConfig(weight=WeightSchedule())),
    "captions' side": MixReorgConfig(text_to_patch=WeightSchedule()),
    "nouns' side": MixReorgConfig(
        text_to_patch=WeightSchedule(),
        text_to_patch_texts="nouns",
        multi_label=MultiLabelConfig(weight=WeightSchedule()),
    ),
    "texts' side alone": MixReorgConfig(
        mixed=WeightSchedule(weight=0.0), restored=WeightSchedule(weight=0.0), text_to_patch=WeightSchedule()
    ),
    "dice in the group": MixReorgConfig(mixed_form="dice", candidates="group"),
    "restored alone": MixReorgConfig(mixed=WeightSchedule(weight=0.0)),
    "nouns": GroupViTConfig(multi_label=MultiLabelConfig(weight=WeightSchedule())),
    "nouns and mixing": MixReorgConfig(multi_label=MultiLabelConfig(weight=WeightSchedule(), num_nouns=2)),
}
BATCH, LENGTH = 8, 16


def tiny(objective: GroupViTConfig | MixReorgConfig, model: DualEncoderConfig) -> TrainConfig:
    data = DataConfig(transform=ImageTransformConfig(image_size=model.image.image_size))
    model = model.updated(multi_label=objective.multi_label.is_on)
    return TrainConfig(model=model, objective=objective, data=data, batch_size=8)


def scenes(objective: GroupViTConfig | MixReorgConfig) -> TrainConfig:
    config = recipe("scenes_groupvit")
    model = config.model.updated(multi_label=objective.multi_label.is_on)
    return config.updated(model=model, objective=objective, batch_size=BATCH)


def vit_s(objective: GroupViTConfig | MixReorgConfig) -> TrainConfig:
    return tiny(objective, DualEncoderConfig(image=ImageEncoderConfig(image_size=64)))


def inputs(
    config: TrainConfig, batch: int = BATCH
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, NounPrompts | None]:
    side, loss = config.model.image.image_size, config.objective.multi_label
    nouns = None
    if loss.is_on:
        words = torch.arange(batch * loss.num_nouns).view(batch, loss.num_nouns)
        nouns = NounPrompts(texts(config, *words.shape, noun_length(config)), words)
    keys = torch.arange(batch) * 7919
    return torch.randn(batch, 3, side, side), texts(config, batch, LENGTH), keys, config.steps, nouns


def texts(config: TrainConfig, *shape: int) -> torch.Tensor:
    token_ids = torch.randint(1, config.model.text.end_id, shape)
    token_ids[..., -1] = config.model.text.end_id
    return token_ids


def counted(config: TrainConfig, *, backward: bool = True) -> tuple[float, float]:
    """Operations per pair of a real forward pass, and of forward and backward, as torch counts them."""
    objective = build_objective(DualEncoder(config.model), config.objective).train()
    # Torch counts the operations of attention only where it is made of matrix products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        terms = objective(*inputs(config))
        forward = counter.get_total_flops()
        if backward:
            terms.total.backward()
    return forward / BATCH, counter.get_total_flops() / BATCH


@pytest.mark.parametrize("name", OBJECTIVES)
def test_operations_of_a_small_model_are_those_that_torch_counts(name: str) -> None:
    flops = flops_per_pair(scenes(OBJECTIVES[name]), BATCH, text_length=LENGTH)
    forward, train = counted(scenes(OBJECTIVES[name]))
    assert flops.forward_total == pytest.approx(forward, rel=0.002)
    # The first convolution sends no gradient back to the images, which three times the forward pass overlooks.
    assert flops.model_train == pytest.approx(train, rel=0.01)


@pytest.mark.parametrize("name", ["groupvit", "reduced", "complete"])
def test_operations_of_a_vit_s_are_those_that_torch_counts(name: str) -> None:
    flops = flops_per_pair(vit_s(OBJECTIVES[name]), BATCH, text_length=LENGTH)
    forward, _ = counted(vit_s(OBJECTIVES[name]), backward=False)
    assert flops.forward_total == pytest.approx(forward, rel=0.002)


def test_local_blocks_without_group_tokens_count(tiny_config: DualEncoderConfig) -> None:
    model = tiny_config.updated(image=tiny_config.image.updated(num_local_blocks=2, local_window=2))
    config = tiny(MixReorgConfig(num_contextual_blocks=2), model)
    forward, _ = counted(config)
    assert flops_per_pair(config, BATCH, text_length=LENGTH).forward_total == pytest.approx(forward, rel=0.01)


def test_recomputation_counts_blocks_or_encoders(tiny_config: DualEncoderConfig) -> None:
    config = tiny(MixReorgConfig(), tiny_config)
    plain = flops_per_pair(config, 8)
    cached = flops_per_pair(config.updated(engine=EngineConfig(chunk=4)), 8)
    checkpointed = flops_per_pair(config.updated(engine=EngineConfig(activation_checkpointing=True)), 8)
    losses = sum(plain.forward[name] for name in ("projectors", "contrastive loss", "mixed loss", "restored loss"))
    assert plain.recomputed == 0
    assert cached.recomputed == pytest.approx(plain.forward_total - losses)
    assert 0.2 * plain.forward_total < checkpointed.recomputed < cached.recomputed
    assert flops_per_pair(config.updated(engine=EngineConfig(chunk=8)), 8).recomputed == 0
    assert cached.total_train == cached.model_train + cached.recomputed


def test_every_process_projects_the_whole_batch(tiny_config: DualEncoderConfig) -> None:
    config = tiny(GroupViTConfig(), tiny_config)
    one, two = flops_per_pair(config, 64), flops_per_pair(config, 64, devices=2)
    assert two.forward["projectors"] == pytest.approx(2 * one.forward["projectors"])
    assert two.forward["stage 1"] == one.forward["stage 1"]
    assert two.forward["contrastive loss"] == one.forward["contrastive loss"]


def saved_bytes(config: TrainConfig, batch: int) -> int:
    """Bytes that autograd keeps in a real forward pass: each storage once, without parameters and images."""
    objective = build_objective(DualEncoder(config.model), config.objective).train()
    arguments = inputs(config, batch)
    known = {parameter.untyped_storage().data_ptr() for parameter in objective.parameters()}
    known.add(arguments[0].untyped_storage().data_ptr())
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.precision == "bf16"),
    ):
        objective(*arguments)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def expected_bytes(config: TrainConfig, batch: int) -> float:
    numerics = Numerics.of(config.precision, "cpu")
    encoders = sum(cost.saved for cost in encoder_costs(config, numerics, LENGTH).values())
    losses = sum(cost.saved for cost in loss_costs(config, numerics, batch, batch).values())
    copies = 2 * count_parameters(config).multiplied if config.precision == "bf16" else 0
    return batch * encoders + losses + copies


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_kept_bytes_of_a_small_model_are_those_that_autograd_keeps(name: str, precision: str) -> None:
    config = scenes(OBJECTIVES[name]).with_overrides([f"precision={precision}"])
    assert expected_bytes(config, BATCH) == pytest.approx(saved_bytes(config, BATCH), rel=0.005)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["groupvit", "complete"])
def test_kept_bytes_of_a_vit_s_are_those_that_autograd_keeps(name: str, precision: str) -> None:
    config = vit_s(OBJECTIVES[name]).with_overrides([f"precision={precision}"])
    assert expected_bytes(config, BATCH) == pytest.approx(saved_bytes(config, BATCH), rel=0.003)


@pytest.mark.parametrize("name", ["complete", "cross entropy", "binary", "dice in the group", "nouns"])
def test_kept_bytes_of_the_losses_grow_with_the_square_of_the_batch(name: str) -> None:
    config = scenes(OBJECTIVES[name]).with_overrides(["precision=fp32"])
    assert expected_bytes(config, 64) == pytest.approx(saved_bytes(config, 64), rel=0.01)
