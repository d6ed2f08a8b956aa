"""Side-by-side timing: interleaved runs, medians, and the versions that were measured."""

import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy
import torch

import mixreorg


def median_seconds(variants: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Run every variant once per round, after one round of warming up; return each one's median."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def run_child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a child process prints; where it fails, this process shows its messages and ends."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}")
    return done.stdout


def require(*libraries: str) -> None:
    """End with one line where a library is missing that ``mixreorg`` itself does not need."""
    if missing := [name for name in libraries if importlib.util.find_spec(name) is None]:
        sys.exit(f"{', '.join(missing)} is missing: pip install 'mixreorg[bench]', or {' '.join(missing)} alone")


def print_environment() -> None:
    """Print what was measured on."""
    print(
        f"mixreorg {mixreorg.__version__}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} torch threads\n"
    )


def print_table(header: list[str], rows: list[list[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |")
    print()
