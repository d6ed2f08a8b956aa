"""Two training processes of one thread against one process of one and of two threads: pairs per second."""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from harness import print_environment, print_table, run_child
from mixreorg.data.scenes import easy, generate_scenes
from mixreorg.text.tokenizer import Tokenizer


def rate(folder: Path, name: str, processes: int, threads: int, batch_size: int, steps: int) -> float:
    """Median pairs per second of a short run."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command += ["mixreorg", "train", "--recipe", "scenes_mixreorg", "--data", str(folder / "scenes/train/*.tar")]
    command += ["--out", str(folder / name), "--device", "cpu", "--set", f"steps={steps}", "--set", "log_every=10"]
    command += ["--set", f"data.tokenizer={folder / 'tokenizer.json'}", "--set", f"batch_size={batch_size}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    run_child(command, environment)
    records = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
    return statistics.median(float(record["train/pairs_per_second"]) for record in records[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print_environment()
    layouts = {
        "1 process, 1 thread, batch 64": (1, 1, 64),
        "1 process, 2 threads, batch 64": (1, 2, 64),
        "2 processes, 1 thread, batch 64": (2, 1, 64),
        "1 process, 1 thread, batch 128": (1, 1, 128),
        "2 processes, 1 thread, batch 128": (2, 1, 128),
    }
    rates: dict[str, list[float]] = {name: [] for name in layouts}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        generate_scenes(easy(), folder / "scenes", 5000, 2, 2, workers=2)
        captions = (f"a photo of a {label}." for label in easy().classes)
        Tokenizer.train(captions, vocab_size=1024, context_length=32).save(folder / "tokenizer.json")
        for number in range(arguments.rounds):
            for layout, (processes, threads, batch_size) in layouts.items():
                name = f"{number}-{processes}-{threads}-{batch_size}"
                rates[layout].append(rate(folder, name, processes, threads, batch_size, arguments.steps))
    medians = {layout: statistics.median(values) for layout, values in rates.items()}
    rows: list[list[object]] = []
    for layout, value in medians.items():
        alone = medians[f"1 process, 1 thread, batch {layouts[layout][2]}"]
        rows.append([layout, value, value / alone])
    print_table(["layout", "pairs/s", "ratio"], rows)


if __name__ == "__main__":
    main()
