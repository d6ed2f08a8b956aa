"""``mixreorg reproduce``."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def reproduce(
    card: Annotated[Path, typer.Argument(help="card.json, or the run or checkpoint folder that holds it.")],
    out: Annotated[Path, typer.Option(help="New run folder; the same command goes on with a stopped one.")] = Path(
        "reproduced"
    ),
    data: Annotated[
        list[str] | None, typer.Option(help="Where the caption pairs are now, if not where the card says. Repeatable.")
    ] = None,
    evaluate: Annotated[
        Path | None, typer.Option(help="Where the evaluation split is now, if not where the card says.")
    ] = None,
    nouns: Annotated[
        Path | None, typer.Option(help="Where the multi-label loss's word list is now, if not where the card says.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Compare the first so many steps alone.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train although the data are not the card's.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to train.")] = "auto",
) -> None:
    """Run the training of a run card again and compare losses and metrics: exit code 0 if they agree, 1 if not."""
    from mixreorg.train.reproduce import reproduce as run_again
    from mixreorg.train.stopping import EXIT_CODES

    result = run_again(
        card, out, data=data or (), evaluate=evaluate, nouns=nouns, steps=steps, force=force, device=device
    )
    if result.stopped is not None:
        typer.echo("stopped before the end; the same command goes on with it", err=True)
        raise typer.Exit(EXIT_CODES[result.stopped])
    typer.echo("reproduced" if result.agrees else "not reproduced")
    if not result.agrees:
        raise typer.Exit(1)
