"""What chunks of a batch and activation checkpointing save, what they cost, and that the gradient stays the same.

ViT-S/16 in fp32 on a CPU, every setting in a process of its own. Memory is what the first step needs beyond weights,
gradients and AdamW's moments, measured twice: as bytes of tensors alive at once, which any run repeats exactly, and as
growth of the peak resident size, which holds the temporaries of the kernels and what the allocator cannot use too.
A setting is measured after the other. ``--out docs/results/gradient_cache.json`` replaces the results that
``docs/make_images.py`` draws; without it they are printed alone.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mixreorg
from harness import print_environment, print_table
from mixreorg.files import write_json
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.objective import Objective
from mixreorg.randomness import sample_keys
from mixreorg.recipes import recipe
from mixreorg.train.config import TrainConfig
from mixreorg.train.engine import Engine, StepInputs
from mixreorg.train.optim import build_optimizer
from mixreorg.train.setup import build_objective

METHODS = {"GroupViT": "groupvit_vits_cc12m", "MixReorg": "mixreorg_vits_cc12m"}
TEXT_LENGTH = 24


class TensorBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made under it, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = {_storage(tensor)._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = _storage(tensor)
                if storage._cdata not in given | self._known:
                    self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._known.add(storage._cdata)
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())

    def _drop(self, key: int, size: int) -> None:
        self._known.remove(key)
        self.alive -= size


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def configuration(job: dict[str, Any]) -> TrainConfig:
    """The run that a job describes; gradients are not clipped, so that they can be compared."""
    checkpointing = f"engine.activation_checkpointing={str(job['checkpointing']).lower()}"
    config = recipe(METHODS[job["method"]]).with_overrides(["precision=fp32", "optim.clip_norm=1e9", checkpointing])
    image = config.model.image.updated(image_size=job["side"])
    transform = config.data.transform.updated(image_size=job["side"])
    return config.updated(
        model=config.model.updated(image=image),
        data=config.data.updated(transform=transform),
        engine=config.engine.updated(chunk=job["chunk"]),
        batch_size=job["share"],
    )


def ready_engine(config: TrainConfig) -> Engine:
    """An engine whose gradients and moments take their place in memory already; all of them are zero."""
    torch.manual_seed(0)
    engine = Engine(config, "cpu")
    objective = build_objective(DualEncoder(config.model), config.objective)
    optimizer = build_optimizer(objective, config.optim)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    engine.prepare(objective, optimizer)
    return engine


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Memory of a first step, whose gradient goes to ``job["gradient"]``, and seconds of those after it."""
    config = configuration(job)
    engine = ready_engine(config)
    share, side, end_id = job["share"], job["side"], config.model.text.end_id
    token_ids = torch.randint(1, end_id - 1, (share, TEXT_LENGTH))
    token_ids[:, -1] = end_id
    inputs = StepInputs(torch.randn(share, 3, side, side), token_ids, sample_keys(0, torch.arange(share)))
    state = sum(parameter.numel() * 4 for parameter in engine.objective.parameters())
    before = _peak_resident()
    with TensorBytes() as tensors:
        engine.step(inputs, 0, 1e-4)
    resident = _peak_resident() - before
    np.save(job["gradient"], _gradient(engine.objective))
    times = []
    for step in range(1, 1 + job["steps"]):
        start = time.perf_counter()
        engine.step(inputs, step, 1e-4)
        times.append(time.perf_counter() - start)
    # The step made its own gradients; those that it found were gone by then.
    return {"tensors": tensors.peak - state, "resident": resident, "seconds": statistics.median(times)}


def _peak_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _gradient(objective: Objective) -> np.ndarray:
    parts = [parameter.grad.flatten() for parameter in objective.parameters() if parameter.grad is not None]
    return torch.cat(parts).numpy()


def in_process(job: dict[str, Any]) -> dict[str, float]:
    """Run ``measure`` in a fresh interpreter with one heap for all threads."""
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def compare(method: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every setting of one method, the whole share first: the others' gradients are compared with its own."""
    plain = [(chunk, False) for chunk in (None, *arguments.chunks)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        whole, other = Path(folder) / "whole.npy", Path(folder) / "other.npy"
        for chunk, checkpointing in plain + [(chunk, True) for chunk in (None, *arguments.checkpointed)]:
            row = {"method": method, "chunk": chunk, "checkpointing": checkpointing}
            job = {**row, "gradient": str(other if rows else whole), "steps": arguments.steps}
            job |= {"share": arguments.share, "side": arguments.side, "threads": arguments.threads}
            row |= in_process(job)
            row["difference"] = _difference(other, whole) if rows else 0.0
            rows.append(row)
            print(*row.values(), file=sys.stderr)
    return rows


def _difference(path: Path, reference: Path) -> float:
    """Norm of the difference of two gradients over the norm of the second."""
    expected = np.load(reference)
    return float(np.linalg.norm(np.load(path) - expected) / np.linalg.norm(expected))


def main() -> None:
    """Measure, print and, where asked, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=64, help="pairs per step")
    parser.add_argument("--side", type=int, default=112, help="pixels")
    parser.add_argument("--chunks", type=int, nargs="+", default=[32, 16, 8, 4])
    parser.add_argument("--checkpointed", type=int, nargs="+", default=[16, 4], help="chunks with checkpointing")
    parser.add_argument("--steps", type=int, default=3, help="timed steps per setting; their median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for the results; default: none")
    arguments = parser.parse_args()
    if arguments.job:
        job = json.loads(arguments.job)
        torch.set_num_threads(job["threads"])
        print(json.dumps(measure(job)))
        return
    torch.set_num_threads(arguments.threads)
    print_environment()
    rows = [row for method in METHODS for row in compare(method, arguments)]
    header = [
        "method",
        "chunk",
        "checkpointing",
        "MB, tensors",
        "MB, resident",
        "s/step",
        "time",
        "gradient differs by",
    ]
    whole = {row["method"]: row["seconds"] for row in reversed(rows) if row["chunk"] is None}
    table = []
    for row in rows:
        row["time_ratio"] = row["seconds"] / whole[row["method"]]
        chunk, checkpointing = row["chunk"] or "whole share", "yes" if row["checkpointing"] else "no"
        memory = [f"{row[name] / 1e6:.0f}" for name in ("tensors", "resident")]
        table.append([row["method"], chunk, checkpointing, *memory, row["seconds"], row["time_ratio"]])
        table[-1].append(f"{row['difference']:.1e}" if row["difference"] else "")
    print_table(header, table)
    if arguments.out is None:
        return
    versions = {"mixreorg": mixreorg.__version__, "torch": torch.__version__, "python": platform.python_version()}
    setting = {"share": arguments.share, "side": arguments.side, "threads": arguments.threads}
    write_json(arguments.out, {"versions": versions, **setting, "rows": rows})


if __name__ == "__main__":
    main()
