"""``mixreorg demo``."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for scenes, run, report.json and index.html.")] = Path("demo"),
    fast: Annotated[
        bool, typer.Option("--fast", help="Smoke test of every step in little more than a minute.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="Training processes of one thread each; default: one per core, at most 4.")
    ] = None,
) -> None:
    """Watch a model learn segmentation from captions alone: scenes, pre-training, evaluation, one page."""
    from mixreorg.demo.run import run_demo

    run_demo(out, fast=fast, processes=processes)
