"""What an index on disk saves, beside webdataset's indexed reader (wids): opening, random reads, memory.

Every variant runs in a process of its own, in turn with the others: open the same shards, then read the same random
samples, image bytes and caption without decoding. Needs wids: ``pip install 'mixreorg[bench]'``.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness import print_environment, print_table, require, run_child

Read = Callable[[int], int]
IMAGE_BYTES, TEXT_BYTES, METADATA_BYTES = 20_000, 60, 500


def write_shards(folder: Path, num_shards: int, samples: int) -> None:
    """Shards in img2dataset's layout, of random bytes: nothing here decodes them."""
    import io
    import tarfile

    random = np.random.default_rng(0)
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as archive:
            for sample in range(samples):
                caption = f"caption {shard} {sample}".ljust(TEXT_BYTES)
                for suffix, content in (
                    ("jpg", random.bytes(IMAGE_BYTES)),
                    ("json", json.dumps({"caption": caption}).ljust(METADATA_BYTES).encode()),
                    ("txt", caption.encode()),
                ):
                    member = tarfile.TarInfo(f"{shard:05}{sample:04}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def open_ours(folder: Path) -> tuple[int, Read]:
    """Our source; with whatever index lies beside the shards."""
    from mixreorg.data.parts import open_parts
    from mixreorg.data.problems import Problems
    from mixreorg.data.shard_cache import ShardCache

    shards = open_parts(sorted(folder.glob("*.tar")), Problems(), None, ShardCache(folder, 0))
    ends = np.cumsum([len(shard) for shard in shards])

    def read(index: int) -> int:
        number = int(np.searchsorted(ends, index, "right"))
        image, caption = shards[number].read(index - int(ends[number - 1] if number else 0))
        return len(image) + len(caption)

    return int(ends[-1]), read


def open_wids(folder: Path, lru_size: int = 10) -> tuple[int, Read]:
    """The reader of wids, given the list of shards and numbers of samples that it needs."""
    import wids

    shards = json.loads((folder / "wids.json").read_text())
    dataset = wids.ShardListDataset(shards, transformations=lambda sample: sample, keep=True, lru_size=lru_size)

    def read(index: int) -> int:
        sample = dataset[index]
        return len(sample[".jpg"].read()) + len(sample[".txt"].read().decode().strip())

    return len(dataset), read


VARIANTS: dict[str, Callable[[Path], tuple[int, Read]]] = {
    "mixreorg, index on disk": open_ours,
    "mixreorg, no index": open_ours,
    "wids, 10 shards kept open (its default)": open_wids,
    "wids, every shard kept open": lambda folder: open_wids(folder, lru_size=1000),
}


def anonymous_bytes() -> int:
    """Memory that is no file's: mapped shards can be dropped by the system at any time. Linux only."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def measure(name: str, folder: Path, num_reads: int) -> None:
    """Run one variant and print its figures as JSON."""
    # Programs in memory are nobody's index.
    for module in ("torch.utils.data", "mixreorg.data.parts", "rich.progress", "wids"):
        importlib.import_module(module)
    before = anonymous_bytes()
    start = time.perf_counter()
    length, read = VARIANTS[name](folder)
    opened = time.perf_counter()
    total = sum(read(index) for index in np.random.default_rng(1).integers(0, length, num_reads).tolist())
    end = time.perf_counter()
    memory = (anonymous_bytes() - before) / length
    print(json.dumps([opened - start, end - opened, memory, length, total]))


def run(name: str, folder: Path, num_reads: int) -> list[float]:
    """One variant in a fresh process."""
    for index in folder.glob("*.index"):
        index.rename(index.with_suffix(".hidden"))
    if name.endswith("on disk"):
        for index in folder.glob("*.hidden"):
            index.rename(index.with_suffix(".index"))
    command = [sys.executable, __file__, "--variant", name, "--folder", str(folder), "--reads", str(num_reads)]
    environment = {**os.environ, "WIDS_CACHE": str(folder / "wids")}
    figures: list[float] = json.loads(run_child(command, environment).splitlines()[-1])
    return figures


def write_indexes(folder: Path, samples: int) -> float:
    """Our indexes, and the shard list of wids; seconds per shard of ours."""
    from mixreorg.data.problems import Problems
    from mixreorg.data.shard_index import write_index

    shards = sorted(folder.glob("*.tar"))
    start = time.perf_counter()
    for shard in shards:
        write_index(shard, Problems())
    seconds = (time.perf_counter() - start) / len(shards)
    (folder / "wids.json").write_text(json.dumps([{"url": str(shard), "nsamples": samples} for shard in shards]))
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--samples", type=int, default=5000, help="samples per shard")
    parser.add_argument("--reads", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        measure(arguments.variant, arguments.folder, arguments.reads)
        return
    require("wids")
    print_environment()
    print(f"wids {importlib.metadata.version('wids')}; {arguments.shards} shards of {arguments.samples} samples\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, arguments.shards, arguments.samples)
        print(f"writing an index: {write_indexes(folder, arguments.samples):.3g} s per shard\n")
        results = {variant: [] for variant in VARIANTS}
        for _ in range(arguments.rounds):
            for variant, figures in results.items():
                figures.append(run(variant, folder, arguments.reads))
    assert len({(figures[3], figures[4]) for rounds in results.values() for figures in rounds}) == 1
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in results.items()
    }
    base = medians["mixreorg, index on disk"]
    rows: list[list[object]] = [
        [
            name,
            seconds[0],
            1e6 * seconds[1] / arguments.reads,
            seconds[0] + seconds[1],
            (seconds[0] + seconds[1]) / (base[0] + base[1]),
            seconds[2],
        ]
        for name, seconds in medians.items()
    ]
    header = ["reader", "opening, s", "µs per read", "both, s", "ratio", "private bytes per sample"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
