"""``mixreorg data prepare``: make an evaluation data set ready and say what is wrong with it."""

from pathlib import Path
from typing import Annotated

import typer

_EXIT_CODES = (
    "NAME: voc21 (or voc12), voc20, context60, context59, coco_object, coco_stuff, ade150, cityscapes; voc_folder or "
    "ade_folder for own data with a class list.",
    "Exit code 0: as it should be.",
    "Exit code 1: doubtful, for example another number of photos than the official split has.",
    "Exit code 2: results would be wrong: masks of another size, colours or unknown labels in masks, missing files; "
    "or a wrong command.",
)


def prepare(
    name: Annotated[str, typer.Argument(help="Benchmark.", show_default=False)],
    root: Annotated[
        Path, typer.Argument(help="Folder of the data set, or one that holds it among others.", show_default=False)
    ],
    split: Annotated[str, typer.Option(help="Name of the split.")] = "val",
    check: Annotated[bool, typer.Option("--check", help="Write nothing, only look.")] = False,
    sample: Annotated[
        int | None,
        typer.Option(help="Masks whose labels are read, evenly spread over the split; 0 for all.", min=0),
    ] = 200,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="PASCAL Context: folder of the official .mat files; default: trainval beside the photos.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="Own data: class list; default: classes.txt in the folder.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads of a conversion; default: one per core.", show_default=False, min=1)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write masks again that are there.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for the report as JSON.", show_default=False)] = None,
) -> None:
    """Convert the masks of a benchmark where that is needed, and check photos and masks."""
    # Imported here: these load numpy, which the help of other commands does not need.
    from mixreorg.console import plain_console
    from mixreorg.eval.benchmarks.console import print_prepared
    from mixreorg.eval.benchmarks.prepare import PrepareOptions
    from mixreorg.eval.benchmarks.prepare import prepare as prepare_benchmark
    from mixreorg.files import write_json

    options = PrepareOptions(split, check, sample or None, labels, classes, workers, overwrite)
    try:
        prepared = prepare_benchmark(name, root, options, plain_console(stderr=True))
    except KeyboardInterrupt:
        typer.echo("interrupted; written masks stay, so the next call goes on from there", err=True)
        raise typer.Exit(130) from None
    print_prepared(prepared, plain_console())
    if out is not None:
        write_json(out, prepared.report.to_dict())
        typer.echo(f"report: {out}")
    raise typer.Exit(prepared.report.exit_code)


# A line break in a docstring would be one in the help.
prepare.__doc__ = "\n\n".join((str(prepare.__doc__), *_EXIT_CODES))
