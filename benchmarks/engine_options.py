"""What the engine's options are worth on a CPU: seconds per step of the complete MixReorg on ViT-S/16.

Every variant lives in a process of its own, since precision belongs to a process, and the processes take steps in
turn. A first step compiles, with an empty cache; torch compiles a block anew for every kind of input and gives up after
so many graphs, so the graphs are counted.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from harness import median_seconds, print_environment, print_table
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.randomness import sample_keys
from mixreorg.recipes import mixreorg_vits_cc12m
from mixreorg.train.config import TrainConfig
from mixreorg.train.engine import Engine, StepInputs
from mixreorg.train.optim import build_optimizer
from mixreorg.train.setup import build_objective

TEXT_LENGTH = 24


@dataclass(frozen=True)
class Variant:
    """One set of options, and the variant that it is compared with."""

    name: str
    base: str
    settings: tuple[str, ...] = ()
    fused: bool = True
    """Whether AdamW is one kernel over all parameters."""


VARIANTS = (
    Variant("bf16", "bf16"),
    Variant("fp32", "bf16", ("precision=fp32",)),
    Variant("bf16, AdamW not fused", "bf16", fused=False),
    Variant("bf16, channels last", "bf16", ("engine.channels_last=true",)),
    Variant("bf16, conv stem", "bf16, conv stem", ("model.image.stem=conv",)),
    Variant(
        "bf16, conv stem, channels last", "bf16, conv stem", ("model.image.stem=conv", "engine.channels_last=true")
    ),
    Variant("bf16, compiled", "bf16", ("engine.compile=true",)),
    Variant("fp32, compiled", "fp32", ("precision=fp32", "engine.compile=true")),
)


@dataclass(frozen=True)
class Size:
    """What a step works on."""

    batch: int
    side: int
    threads: int


class Runner:
    """A variant in a process of its own that takes a step whenever it is asked."""

    def __init__(self, variant: Variant, size: Size) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, variant, size), daemon=True)
        self._process.start()
        self._connection.recv()
        start = time.perf_counter()
        self.graphs = self.step()
        """Graphs that the first step compiled."""
        self.first = time.perf_counter() - start
        """Seconds of the first step."""

    def step(self) -> int:
        """Let it take a step; the number of graphs compiled so far."""
        self._connection.send(True)
        return int(self._connection.recv())

    def close(self) -> None:
        """End the process."""
        self._connection.send(False)
        self._process.join()


def configuration(variant: Variant, size: Size) -> TrainConfig:
    """The run of a variant."""
    config = mixreorg_vits_cc12m().with_overrides(list(variant.settings))
    image = config.model.image.updated(image_size=size.side)
    transform = config.data.transform.updated(image_size=size.side)
    return config.updated(
        model=config.model.updated(image=image), data=config.data.updated(transform=transform), batch_size=size.batch
    )


def _serve(connection: Connection, variant: Variant, size: Size) -> None:
    torch.set_num_threads(size.threads)
    torch.manual_seed(0)
    config = configuration(variant, size)
    engine = Engine(config, "cpu")
    objective = build_objective(DualEncoder(config.model), config.objective)
    optimizer = build_optimizer(objective, config.optim)
    for group in optimizer.param_groups:
        group["fused"] = variant.fused
    engine.prepare(objective, optimizer)
    end_id = config.model.text.end_id
    token_ids = torch.randint(1, end_id - 1, (size.batch, TEXT_LENGTH))
    token_ids[:, -1] = end_id
    images = torch.randn(size.batch, 3, size.side, size.side)
    inputs = StepInputs(images, token_ids, sample_keys(0, torch.arange(size.batch)))
    connection.send(0)
    step = 0
    while connection.recv():
        engine.step(inputs, step, 1e-4)
        step += 1
        connection.send(_compiled_graphs() if config.engine.compile else 0)


def _compiled_graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="VARIANT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=112, help="pixels")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_environment()
    size = Size(arguments.batch, arguments.side, arguments.threads)
    variants = {variant.name: variant for variant in VARIANTS if variant.name in arguments.only}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        runners = {name: Runner(variant, size) for name, variant in variants.items()}
        seconds = median_seconds({name: runner.step for name, runner in runners.items()}, arguments.rounds)
        for runner in runners.values():
            runner.close()
    rows: list[list[object]] = []
    for name, variant in variants.items():
        ratio = seconds[name] / seconds[variant.base] if variant.base in seconds else ""
        rows.append([name, seconds[name], variant.base, ratio, runners[name].first, runners[name].graphs or ""])
    print_table(["variant", "s/step", "compared with", "time ratio", "first step, s", "graphs"], rows)


if __name__ == "__main__":
    main()
