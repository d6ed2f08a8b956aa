import copy
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from mixreorg.data.transforms import ImageTransformConfig
from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.text.noun_prompts import NounPrompts
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.config import DataConfig, EngineConfig, OptimConfig, TrainConfig
from mixreorg.train.engine import Engine, StepInputs
from mixreorg.train.optim import build_optimizer
from mixreorg.train.setup import build_objective

NAMES = ["dog", "cat", "car", "grass", "sand", "photo", "dog on the sand", "cat on the grass"]


@pytest.fixture
def config(tiny_config: DualEncoderConfig) -> TrainConfig:
    # At the published initialisation of a model this small, BatchNorm divides by next to nothing and a gradient is
    # mostly rounding.
    image = tiny_config.image.updated(init_std=0.15, group_token_std=1.0)
    return TrainConfig(
        model=tiny_config.updated(image=image),
        data=DataConfig(transform=ImageTransformConfig(image_size=32)),
        optim=OptimConfig(clip_norm=1e6),
        precision="fp32",
        batch_size=8,
    )


@pytest.fixture
def model(config: TrainConfig, tokenizer: Tokenizer) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(config.model, tokenizer)


def inputs(tokenizer: Tokenizer) -> StepInputs:
    torch.manual_seed(1)
    ids = tokenizer.encode([f"a {name}" for name in NAMES])
    words = torch.tensor([[0, 1], [2, -1], [-1, -1], [0, 2], [3, 1], [2, -1], [4, 0], [1, 3]])
    prompts = tokenizer.encode([f"a photo of a {NAMES[word]}." for word in words.flatten().tolist()])
    nouns = NounPrompts(prompts.view(8, 2, -1), words)
    return StepInputs(torch.randn(8, 3, 32, 32), ids, torch.arange(8) * 7919, nouns)


def gradients(config: TrainConfig, model: DualEncoder) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    """Gradients, buffers and logged numbers of one step."""
    assert model.tokenizer is not None
    if config.objective.multi_label.is_on:
        torch.manual_seed(0)
        model = DualEncoder(config.model.updated(multi_label=True), model.tokenizer)
    objective = build_objective(copy.deepcopy(model), config.objective)
    engine = Engine(config, "cpu")
    engine.prepare(objective, build_optimizer(objective, config.optim))
    terms = engine.step(inputs(model.tokenizer), 0, 0.0)
    found = {name: value.grad for name, value in objective.named_parameters() if value.grad is not None}
    logged = {name: float(value) for name, value in {**terms.terms, **terms.diagnostics}.items()}
    return found, dict(objective.named_buffers()), logged


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal up to rounding; a gradient that is zero in theory may be any rounding of the others."""
    assert found.keys() == expected.keys()
    total = torch.cat([value.flatten() for value in expected.values()]).norm()
    difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
    assert difference <= 1e-5 * total
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-4 * value.norm() + 1e-6 * total, name


OBJECTIVES = [
    GroupViTConfig(),
    MixReorgConfig(group_size=2),
    MixReorgConfig.from_dict({"group_size": 2, "combine": "gate", "candidates": "group", "mixed_group_tokens": "mean"}),
    MixReorgConfig.from_dict(
        {"group_size": 2, "combine": "none", "num_contextual_blocks": 0, "restored": {"weight": 0}}
    ),
    MixReorgConfig.from_dict(
        {"group_size": 2, "mixed_per_group": 1, "restored": {"weight": 0.0}, "patch_weights": "relevance"}
    ),
    GroupViTConfig(multi_label=MultiLabelConfig(weight=WeightSchedule())),
    MixReorgConfig(
        group_size=2, multi_label=MultiLabelConfig(weight=WeightSchedule(), repeated_nouns="positive", num_nouns=2)
    ),
    MixReorgConfig(
        group_size=2, candidates="nouns", multi_label=MultiLabelConfig(weight=WeightSchedule(), num_nouns=2)
    ),
    MixReorgConfig(group_size=2, text_to_patch=WeightSchedule()),
]


@pytest.mark.parametrize(
    "objective",
    OBJECTIVES,
    ids=["groupvit", "complete", "gate", "reduced", "fewer mixed", "nouns", "all", "mixed nouns", "texts' side"],
)
@pytest.mark.parametrize("chunk", [2, 4, 6])
def test_the_gradient_in_chunks_is_the_gradient_of_the_whole(
    config: TrainConfig, model: DualEncoder, objective: Any, chunk: int
) -> None:
    config = config.updated(objective=objective)
    whole, buffers, logged = gradients(config, model)
    chunked, own_buffers, own_logged = gradients(config.updated(engine=EngineConfig(chunk=chunk)), model)
    assert_close(chunked, whole)
    for name, value in buffers.items():
        # BatchNorm sees the whole batch once: the same statistics, counted once.
        torch.testing.assert_close(own_buffers[name], value, atol=1e-6, rtol=1e-5)
    assert own_logged == pytest.approx(logged, rel=1e-5)


@pytest.mark.parametrize("objective", [GroupViTConfig(), MixReorgConfig()], ids=["groupvit", "complete"])
def test_chunks_compute_alike_with_and_without_a_graph_in_bfloat16(
    config: TrainConfig, model: DualEncoder, objective: Any
) -> None:
    """Hard assignments turn the rounding of another kernel into other segments."""
    image = config.model.image.updated(assignment="hard")
    config = config.updated(objective=objective, precision="bf16", model=config.model.updated(image=image))
    torch.manual_seed(0)
    model = DualEncoder(config.model, model.tokenizer)
    whole, _, _ = gradients(config, model)
    chunked, _, _ = gradients(config.updated(engine=EngineConfig(chunk=4)), model)
    difference = sum(float((chunked[name] - value).square().sum()) for name, value in whole.items())
    assert difference**0.5 < 0.01 * sum(float(value.square().sum()) for value in whole.values()) ** 0.5


@pytest.mark.parametrize("chunk", [None, 4])
def test_recomputed_activations_give_the_same_gradient(
    config: TrainConfig, model: DualEncoder, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.updated(objective=MixReorgConfig())
    whole, _, _ = gradients(config, model)
    calls = []
    import mixreorg.models.layers as layers

    original = layers.checkpoint
    monkeypatch.setattr(layers, "checkpoint", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    engine = EngineConfig(activation_checkpointing=True, chunk=chunk)
    recomputed, _, _ = gradients(config.updated(engine=engine), model)
    assert calls
    assert_close(recomputed, whole)


def test_channels_last_changes_the_layout_and_not_the_gradient(config: TrainConfig, model: DualEncoder) -> None:
    image = config.model.image.updated(stem="conv")
    config = config.updated(model=config.model.updated(image=image), objective=MixReorgConfig())
    torch.manual_seed(0)
    model = DualEncoder(config.model, model.tokenizer)
    whole, _, _ = gradients(config, model)
    other, _, _ = gradients(config.updated(engine=EngineConfig(channels_last=True)), model)
    assert_close(other, whole)


def test_chunks_must_hold_whole_mixing_groups(config: TrainConfig) -> None:
    with pytest.raises(MixreorgError, match=r"engine.chunk 6 must be a multiple of objective.group_size 4"):
        config.updated(objective=MixReorgConfig(group_size=4), engine=EngineConfig(chunk=6))


@pytest.mark.parametrize(
    ("size", "address", "message"),
    [("2", None, "WORLD_SIZE=2 and has no MASTER_ADDR"), ("two", "localhost", "WORLD_SIZE=two, as no launcher")],
)
def test_what_a_launcher_left_behind_is_one_error(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, size: str, address: str | None, message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    if address is not None:
        monkeypatch.setenv("MASTER_ADDR", address)
    with pytest.raises(MixreorgError, match=f"{message}.*; unset WORLD_SIZE"):
        Engine(config, "cpu")


_JOIN = """
from mixreorg.distributed import rank, world_size
from mixreorg.train.config import TrainConfig
from mixreorg.train.engine import Engine
Engine(TrainConfig(precision="fp32"), "cpu")
print(rank(), world_size())
"""


def test_processes_of_an_mpi_launcher_join() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMPI_COMM_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _JOIN],
            env={**os.environ, **names, "OMPI_COMM_WORLD_RANK": number, "OMPI_COMM_WORLD_LOCAL_RANK": number},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in "01"
    ]
    assert [process.communicate(timeout=180)[0] for process in processes] == ["0 2\n", "1 2\n"]


def test_half_precision_needs_a_device_that_has_it(config: TrainConfig) -> None:
    with pytest.raises(MixreorgError, match="fp16 needs a CUDA device"):
        Engine(config.updated(precision="fp16"), "cpu")


# The compiler looks at inputs in ways that warn of themselves.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_blocks_share_their_code(
    config: TrainConfig, model: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks with and without stochastic depth, in image and text encoder: not one compilation for every block."""
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: plain(module, backend=count))
    torch.compiler.reset()
    whole, _, _ = gradients(config.updated(objective=MixReorgConfig()), model)
    compiled = config.updated(objective=MixReorgConfig(), engine=EngineConfig(compile=True))
    found, _, _ = gradients(compiled, model)
    assert_close(found, whole)
    assert 1 <= len(graphs) <= 6
