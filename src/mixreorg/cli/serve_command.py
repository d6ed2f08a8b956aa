"""``mixreorg serve``."""

import math
from typing import Annotated

import typer

from mixreorg.errors import MixreorgError


def serve(
    model: Annotated[
        str, typer.Option(help="Model, checkpoint or run folder; export; GroupViT weights; name of a bundled model.")
    ] = "scenes-tiny",
    host: Annotated[
        str, typer.Option(help="Address to listen at. 0.0.0.0 is all of the machine's: anybody may then ask.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free one.")] = 8000,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    page: Annotated[bool, typer.Option("--page/--no-page", help="With the page, or the HTTP API alone.")] = True,
    max_megabytes: Annotated[float, typer.Option(help="Largest body of a request, in MiB.")] = 16,
    max_megapixels: Annotated[float, typer.Option(help="Largest photo, in millions of pixels.")] = 25,
    max_classes: Annotated[int, typer.Option(help="Most classes of a request, at most 255.")] = 100,
    max_seconds: Annotated[float, typer.Option(help="Longest time to an answer.")] = 30,
    max_waiting: Annotated[int, typer.Option(help="Most requests that wait; the next one is refused.")] = 64,
    max_batch: Annotated[int, typer.Option(help="Most photos that the model works on at once.")] = 8,
) -> None:
    """Serve a page and an HTTP API on this machine: photo and class names in, masks out.

    Needs the extra web. Nothing is fetched from other machines.
    """
    from mixreorg.serve.limits import Limits
    from mixreorg.serve.run import serve as run_server

    values = {
        "max_bytes": _count("--max-megabytes", max_megabytes, 2**20),
        "max_pixels": _count("--max-megapixels", max_megapixels, 1e6),
        "max_classes": max_classes,
        "max_seconds": max_seconds,
        "max_waiting": max_waiting,
        "max_batch": max_batch,
    }
    limits = Limits.from_dict(values, source="serve options")

    def announce(address: str) -> None:
        what = f"{address} (page), {address}/docs (API)" if page else f"{address}/docs (API)"
        typer.echo(f"{model} is served at {what}; Ctrl-C ends it")

    run_server(model, host=host, port=port, device=device, limits=limits, page=page, announce=announce)


def _count(option: str, value: float, unit: float) -> int:
    """A limit in bytes or pixels from one in millions of them."""
    if not math.isfinite(value * unit):
        raise MixreorgError(f"{option} {value:g}: a limit is a finite number; give a smaller one")
    return round(value * unit)
