"""Scenes drawn, encoded and written per second, by preset and number of processes."""

import argparse
import tempfile
import time
from pathlib import Path

from harness import print_environment, print_table
from mixreorg.data.scenes import generate_scenes, preset


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print_environment()
    rows: list[list[object]] = []
    for name, share in (("easy", 1.0), ("medium", 0.5), ("hard", 0.1)):
        count = int(arguments.scenes * share)
        for workers in arguments.workers:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                generate_scenes(preset(name), Path(folder) / "scenes", count, 2, 2, workers=workers)
                rows.append([name, preset(name).image_size, workers, count, count / (time.perf_counter() - start)])
    print_table(["preset", "px", "processes", "scenes", "scenes/s"], rows)


if __name__ == "__main__":
    main()
