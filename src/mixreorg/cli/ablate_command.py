"""``mixreorg ablate``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mixreorg.errors import MixreorgError


def ablate(
    files: Annotated[
        list[Path],
        typer.Argument(help="The ablation, YAML or JSON; with --report and --join result files.", metavar="FILE..."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for worlds, runs, results.json, results.csv and index.html.")],
    workers: Annotated[int, typer.Option(help="Runs at once, each with its share of the cores or a GPU.")] = 1,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to train.")] = "auto",
    only: Annotated[list[str] | None, typer.Option(help="Run this row alone. Repeatable.", metavar="ROW")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Run this seed alone. Repeatable.", metavar="SEED")] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Run nothing: write page, CSV and Markdown from results.json files.")
    ] = False,
    join: Annotated[
        bool,
        typer.Option(
            "--join",
            help="Run nothing: make one results.json, and its page, of those of one ablation that ran in several "
            "places. Title, notes and labels are those of the last file.",
        ),
    ] = False,
) -> None:
    """Train a grid of configurations with several seeds, measure each and compare them.

    The same command goes on with one that was stopped. Exit code 1: a run failed.
    """
    if report and join:
        raise MixreorgError("--report shows result files one after the other, --join makes one of them: give either")
    if (report or join) and (only or seed):
        raise MixreorgError("--only and --seed choose what is run; --report and --join run nothing: leave them out")
    if len(files) != 1 and not (report or join):
        raise MixreorgError(f"{len(files)} files: give one ablation, or add --report or --join to read result files")
    from mixreorg.ablate.run import join_ablations, report_ablations, run_ablation
    from mixreorg.console import plain_console
    from mixreorg.train.stopping import EXIT_CODES

    console = plain_console(stderr=True)
    if report or join:
        page = (join_ablations if join else report_ablations)(files, out)
        console.print(f"page {page}", highlight=False, markup=False, soft_wrap=True)
        return
    outcome = run_ablation(
        files[0], out, workers=workers, device=device, only=only or (), seeds=seed or (), console=console
    )
    console.print(f"page {outcome.page}", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        names = "; ".join(outcome.failed)
        console.print(f"failed: {names}", style="red", highlight=False, markup=False, soft_wrap=True)
    if outcome.stopped is not None:
        console.print("stopped; the same command goes on", highlight=False)
        raise typer.Exit(EXIT_CODES[outcome.stopped])
    if outcome.failed:
        raise typer.Exit(1)
