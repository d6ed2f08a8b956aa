"""MixReorg's training step over GroupViT's, in time and in counted FLOPs.

The aim: a ratio of times within 1.10 of the ratio of FLOPs.
"""

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness import median_seconds, print_environment, print_table
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig, GroupViTObjective
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.recipes import scenes_mixreorg

COMPLETE = MixReorgConfig()
REDUCED = MixReorgConfig(num_contextual_blocks=0, combine="none", restored=WeightSchedule(weight=0.0))


def measure(size: str, config: DualEncoderConfig, batch: int, precision: str, rounds: int) -> list[list[object]]:
    """Rows of the table for one size."""
    torch.manual_seed(0)
    side, text = config.image.image_size, config.text
    images = torch.randn(batch, 3, side, side)
    ids = torch.randint(1, text.end_id - 1, (batch, 16))
    ids[:, -1] = text.end_id
    keys = torch.arange(batch) * 7919

    def step(objective: torch.nn.Module) -> None:
        objective.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            terms = objective(images, ids, keys, 0)
        terms.total.backward()

    objectives = {
        "GroupViT": GroupViTObjective(DualEncoder(config), GroupViTConfig()),
        "MixReorg, reduced": MixReorgObjective(DualEncoder(config), REDUCED),
        "MixReorg, complete": MixReorgObjective(DualEncoder(config), COMPLETE),
    }
    flops = {}
    for name, objective in objectives.items():
        objective.train()
        with FlopCounterMode(display=False) as counter:
            step(objective)
        flops[name] = counter.get_total_flops()
    seconds = median_seconds({name: lambda o=objective: step(o) for name, objective in objectives.items()}, rounds)
    base = "GroupViT"
    rows: list[list[object]] = []
    for name in objectives:
        time_ratio, flop_ratio = seconds[name] / seconds[base], flops[name] / flops[base]
        rate = batch / seconds[name]
        rows.append(
            [size, precision, name, rate, flops[name] / batch / 1e9, time_ratio, flop_ratio, time_ratio / flop_ratio]
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_environment()
    rows = []
    for precision in ("fp32", "bf16"):
        rows += measure("scenes, 64 px, batch 64", scenes_mixreorg().model, 64, precision, arguments.rounds)
        rows += measure("ViT-S, 224 px, batch 8", DualEncoderConfig(), 8, precision, arguments.rounds)
    header = ["model", "precision", "objective", "pairs/s", "GFLOP/pair", "time ratio", "FLOP ratio", "time / FLOP"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
