"""``mixreorg ablate``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mixreorg.errors import MixreorgError


def ablate(
    files: Annotated[
        list[Path], typer.Argument(help="The ablation, YAML or JSON; with --report result files.", metavar="FILE...")
    ],
    out: Annotated[Path, typer.Option(help="Folder for worlds, runs, results.json, results.csv and index.html.")],
    workers: Annotated[int, typer.Option(help="Runs at once, each with its share of the cores or a GPU.")] = 1,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to train.")] = "auto",
    only: Annotated[list[str] | None, typer.Option(help="Run this row alone. Repeatable.", metavar="ROW")] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Run nothing: write page, CSV and Markdown from results.json files.")
    ] = False,
) -> None:
    """Train a grid of configurations with several seeds, measure each and compare them.

    The same command goes on with one that was stopped. Exit code 1: a run failed.
    """
    if len(files) != 1 and not report:
        raise MixreorgError(f"{len(files)} files: give one ablation, or add --report to read result files")
    from rich.console import Console

    from mixreorg.ablate.run import report_ablations, run_ablation
    from mixreorg.train.stopping import EXIT_CODES

    console = Console(stderr=True)
    if report:
        console.print(f"page {report_ablations(files, out)}", highlight=False, markup=False, soft_wrap=True)
        return
    outcome = run_ablation(files[0], out, workers=workers, device=device, only=only or (), console=console)
    console.print(f"page {outcome.page}", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        names = "; ".join(outcome.failed)
        console.print(f"failed: {names}", style="red", highlight=False, markup=False, soft_wrap=True)
    if outcome.stopped is not None:
        console.print("stopped; the same command goes on", highlight=False)
        raise typer.Exit(EXIT_CODES[outcome.stopped])
    if outcome.failed:
        raise typer.Exit(1)
