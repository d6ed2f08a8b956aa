"""`mixreorg serve` under load: requests from many clients at once, with and without batches, and of an export.

Three servers of one model stand side by side, one with `--max-batch 1` and one of the model's ONNX export; rounds of
requests go to them in turn. Server and clients share the machine. Memory is what both processes of a server hold
(VmRSS), read after each round.
"""

import argparse
import asyncio
import io
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from harness import print_environment, print_table
from mixreorg.export.exporter import export_model
from mixreorg.interop.loading import load_model

CLASSES = (
    "dog, cat, car, apple, tree, house, fish, bird, bus, airplane, boat, flower, horse, cow, pig, chicken, umbrella, "
    "book, ball, clock, mushroom, cup, heart, star"
)


@dataclass
class Server:
    address: str
    process: subprocess.Popen[str]
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


@contextmanager
def serving(model: str, max_batch: int, errors: Path) -> Iterator[Server]:
    """A server in a process of its own."""
    command = [sys.executable, "-m", "mixreorg", "serve", "--model", model, "--port", "0", "--max-batch"]
    with errors.open("w") as log:
        process = subprocess.Popen([*command, str(max_batch)], stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout
        announced = re.search(r"http://[\d.:]+", process.stdout.readline())
        if not announced:
            raise SystemExit(errors.read_text())
        try:
            yield Server(announced[0], process)
        finally:
            process.terminate()
            process.wait()


def photos(side: int, count: int = 32) -> list[bytes]:
    """Different JPEGs of one size."""
    encoded = []
    for seed in range(count):
        blocks = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(blocks).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


async def load(server: Server, num_requests: int, num_clients: int, files: list[bytes], answer: str) -> None:
    """Clients that each send their next request as soon as they have an answer."""
    numbers = iter(range(num_requests))
    limits = httpx.Limits(max_connections=num_clients)
    async with httpx.AsyncClient(base_url=server.address, timeout=120, limits=limits, trust_env=False) as client:

        async def ask() -> None:
            for number in numbers:
                photo = ("photo.jpg", files[number % len(files)])
                start = time.perf_counter()
                response = await client.post(
                    "/segment", files={"photo": photo}, data={"classes": CLASSES, "answer": answer}
                )
                server.seconds.append(time.perf_counter() - start)
                server.statuses[response.status_code] = server.statuses.get(response.status_code, 0) + 1

        start = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(num_clients)))
    server.rates.append(num_requests / (time.perf_counter() - start))
    server.memory.append(resident_mib(server.process.pid))


def resident_mib(process_id: int) -> float:
    """Of a process and those that it started."""
    task = Path(f"/proc/{process_id}")
    own = re.search(r"VmRSS:\s+(\d+) kB", (task / "status").read_text())
    children = (task / "task" / str(process_id) / "children").read_text().split()
    return (int(own[1]) / 1024 if own else 0) + sum(resident_mib(int(child)) for child in children)


def batch_size(server: Server) -> float:
    """Mean photos per batch, as the server counts them."""
    text = httpx.get(f"{server.address}/metrics", trust_env=False).text
    total, batches = (
        float(re.search(rf"^mixreorg_batch_photos_{name} (\S+)$", text, re.M)[1]) for name in ("sum", "count")
    )
    return total / batches


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="what mixreorg segment --model takes")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256, help="of the photos, in pixels")
    parser.add_argument("--answer", default="json", choices=["json", "labels", "overlay"])
    arguments = parser.parse_args()
    print_environment()
    libraries = ("fastapi", "uvicorn", "gradio", "httpx", "onnxruntime")
    print(", ".join(f"{name} {version(name)}" for name in libraries), end="\n\n")
    files = photos(arguments.side)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        export_model(load_model(arguments.model), folder / "exported")
        kinds = {
            "batches of up to 8": (arguments.model, 8),
            "batches of up to 1": (arguments.model, 1),
            "export, batches of up to 8": (str(folder / "exported"), 8),
        }
        servers = {
            name: stack.enter_context(serving(model, size, folder / "log.txt")) for name, (model, size) in kinds.items()
        }
        for server in servers.values():  # the class names are encoded, and the code is warm
            asyncio.run(load(server, arguments.clients, arguments.clients, files, arguments.answer))
            server.rates.clear()
            server.seconds.clear()
        for _ in range(arguments.rounds):
            for server in servers.values():
                asyncio.run(load(server, arguments.requests, arguments.clients, files, arguments.answer))
        rows = []
        for name, server in servers.items():
            cuts = statistics.quantiles(server.seconds, n=100)
            memory = " ".join(f"{value:.0f}" for value in server.memory)
            statuses = ", ".join(f"{count} x {status}" for status, count in sorted(server.statuses.items()))
            rows.append(
                [name, statistics.median(server.rates), cuts[49], cuts[98], batch_size(server), memory, statuses]
            )
    header = ["server", "requests/s", "p50, s", "p99, s", "photos per batch", "MiB after each round", "answers"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
