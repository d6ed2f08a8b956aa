"""Side-by-side timing: interleaved runs, medians, and the versions that were measured."""

import os
import platform
import statistics
import time
from collections.abc import Callable

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
