"""What ``mixreorg plan`` says against real short runs on a CPU: seconds per step and peak memory.

Every run is a process of its own: one tries some steps, as the plan does, another trains. Memory is the growth of the
peak resident size since the imports; the allocator is left as it is, so that a heap that does not shrink counts.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from harness import print_environment, print_table, run_child
from mixreorg.data.scenes import easy, generate_scenes
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.randomness import sample_keys
from mixreorg.recipes import recipe
from mixreorg.train.config import TrainConfig
from mixreorg.train.engine import Engine, StepInputs
from mixreorg.train.optim import build_optimizer
from mixreorg.train.planning.calibration import measure_step
from mixreorg.train.planning.memory import estimate_memory
from mixreorg.train.setup import build_objective

TEXT_LENGTH = 24
MODELS = {
    "groupvit": ("scenes_groupvit", "groupvit_vits_cc12m"),
    "mixreorg": ("scenes_mixreorg", "mixreorg_vits_cc12m"),
}


def configuration(job: dict[str, Any]) -> TrainConfig:
    """The run that a job describes."""
    config = recipe(job["recipe"]).with_overrides([f"precision={job['precision']}", *job["set"]])
    if job["side"] is not None:
        image = config.model.image.updated(image_size=job["side"])
        transform = config.data.transform.updated(image_size=job["side"])
        config = config.updated(model=config.model.updated(image=image), data=config.data.updated(transform=transform))
    return config.updated(batch_size=job["batch"])


def train(job: dict[str, Any]) -> dict[str, float]:
    """Some steps of training: median seconds of all but the first, growth of the peak resident size."""
    config = configuration(job)
    engine = Engine(config, "cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    objective = build_objective(DualEncoder(config.model), config.objective)
    engine.prepare(objective, build_optimizer(objective, config.optim))
    side, batch, end_id = config.model.image.image_size, config.batch_size, config.model.text.end_id
    times = []
    for step in range(job["steps"]):
        images = torch.randn(batch, 3, side, side)
        token_ids = torch.randint(0, end_id, (batch, TEXT_LENGTH))
        token_ids[:, -1] = end_id
        start = time.perf_counter()
        engine.step(StepInputs(images, token_ids, sample_keys(0, torch.arange(batch) + step * batch)), step, 1e-4)
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(times[1:]), "memory": (peak - before) * 1024}


def calibrate(job: dict[str, Any]) -> dict[str, float]:
    """What the plan would say of the same."""
    config = configuration(job)
    seconds = measure_step(config, config.batch_size, text_length=TEXT_LENGTH, device="cpu").seconds(config.batch_size)
    memory = estimate_memory(config, "cpu", config.batch_size, text_length=TEXT_LENGTH)
    return {"seconds": seconds, "memory": memory.total - memory.runtime}


def in_process(function: str, job: dict[str, Any]) -> dict[str, float]:
    """Run ``train`` or ``calibrate`` in a fresh interpreter."""
    command = [sys.executable, __file__, "--job", json.dumps([function, job])]
    result: dict[str, float] = json.loads(run_child(command))
    return result


def whole_run(threads: int) -> list[object]:
    """A row for the commands ``plan`` and ``train`` on the scenes, with reading and the memory of the whole process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_scenes(easy(), folder / "scenes", 2000, 2, 2)

        def mixreorg(command: str, *more: str) -> str:
            arguments = [sys.executable, "-m", "mixreorg", command, *more, "--data", str(folder / "scenes/train/*.tar")]
            return run_child(arguments, environment)

        says = json.loads(mixreorg("plan", "scenes_mixreorg", "--json"))
        settings = ("--set", "steps=40", "--set", "log_every=10", "--device", "cpu")
        mixreorg("train", "--recipe", "scenes_mixreorg", "--out", str(folder / "run"), *settings)
        records = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()][1:]
    seconds = 64 / statistics.median(record["train/pairs_per_second"] for record in records)
    memory = max(record["train/memory_gib"] for record in records) * 2**30
    row: list[object] = ["scenes_mixreorg, plan and train commands"]
    for says_, is_ in ((says["seconds_per_step"]["likely"], seconds), (says["memory"]["total"] / 1e6, memory / 1e6)):
        row += [says_, is_, f"{100 * (says_ / is_ - 1):+.0f} %"]
    return row


def jobs(only: str | None) -> list[tuple[str, dict[str, Any]]]:
    """All cases, by name."""
    found: list[tuple[str, dict[str, Any]]] = []
    for method, (scenes, full) in MODELS.items():
        for precision in ("fp32", "bf16"):
            sizes = [(scenes, None, 64, 12), (full, 64, 24, 4), (full, 112, 12, 4)]
            for name, side, batch, steps in sizes:
                job = {"recipe": name, "side": side, "batch": batch, "precision": precision, "steps": steps, "set": []}
                size = "scenes 64 px" if side is None else f"ViT-S {side} px"
                found.append((f"{size}, {method}, {precision}, {batch} pairs", job))
        for label, options in (
            ("checkpointing", ["engine.activation_checkpointing=true"]),
            ("chunks of 8", ["engine.chunk=8"]),
        ):
            job = {"recipe": full, "side": 64, "batch": 24, "precision": "bf16", "steps": 4, "set": options}
            found.append((f"ViT-S 64 px, {method}, bf16, 24 pairs, {label}", job))
    return [(name, job) for name, job in found if only is None or only in name]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--only", help="cases whose name has this in it")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each sort per case, alternating")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.job:
        function, job = json.loads(arguments.job)
        torch.set_num_threads(job["threads"])
        print(json.dumps((train if function == "train" else calibrate)(job)))
        return
    torch.set_num_threads(arguments.threads)
    print_environment()
    rows: list[list[object]] = []
    for name, job in jobs(arguments.only):
        job["threads"] = arguments.threads
        rounds = [(in_process("calibrate", job), in_process("train", job)) for _ in range(arguments.rounds)]
        says, is_ = (
            {key: statistics.median(item[key] for item in side) for key in side[0]}
            for side in zip(*rounds, strict=True)
        )
        rows.append([name])
        for key, unit in (("seconds", 1.0), ("memory", 1e6)):
            error = f"{100 * (says[key] / is_[key] - 1):+.0f} %"
            rows[-1] += [says[key] / unit, is_[key] / unit, error]
        print(*rows[-1], file=sys.stderr)
    if arguments.only is None or arguments.only in "commands":
        rows.append(whole_run(arguments.threads))
    header = ["run", "s/step, plan", "s/step", "error", "MB, plan", "MB", "error"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
