"""``mixreorg compare``."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of mixreorg eval, the baseline first: FOLDER, or LABEL=FOLDER,FOLDER,... for several seeds.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for comparison.html (forest plots), .md and .json.", show_default=False),
    ] = None,
    resamples: Annotated[int, typer.Option(help="Draws of the bootstrap.", min=100)] = 1000,
) -> None:
    """Compare evaluations, paired by photo and over seeds; results of different protocols are refused."""
    from mixreorg.eval.compare import compare as compare_evaluations
    from mixreorg.eval.compare import parse_contender
    from mixreorg.eval.report.comparison import comparison_markdown, write_comparison

    columns = compare_evaluations([parse_contender(run) for run in runs], resamples=resamples)
    typer.echo(comparison_markdown(columns), nl=False)
    if out is not None:
        write_comparison(columns, out)
        typer.echo(f"\ncomparison: {out / 'comparison.html'}", err=True)
