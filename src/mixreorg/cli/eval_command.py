"""``mixreorg eval``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mixreorg.models.dual_encoder import DualEncoder

_NOTES = (
    "MODEL is a run, checkpoint or model folder, scenes-tiny, or file.py:function of an adapter: function(protocol, "
    "device) returns what takes a photo and the label names and returns labels.",
    "Writes report.json, report.md, report.html and photos.npz into the folder --out, or with several benchmarks into "
    "one folder each. A stopped run goes on by --resume.",
)


def evaluate(
    model: Annotated[str, typer.Argument(help="Model, or file.py:function of an adapter.", show_default=False)],
    benchmark: Annotated[
        str,
        typer.Option(
            help="voc12 (or voc21), voc20, context60, context59, coco_object, coco_stuff, ade150, cityscapes, "
            "voc_folder, ade_folder; several with commas.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path, typer.Option(help="Folder of the data set, or one that holds all of them.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("evaluation"),
    protocol: Annotated[
        str, typer.Option(help="groupvit, segclip, tcl, sclip, scenes; model: the model's own; or a .json file.")
    ] = "groupvit",
    split: Annotated[str, typer.Option(help="Split to evaluate.")] = "val",
    background: Annotated[
        float | None, typer.Option(help="Background threshold. Default: the published one.", min=0, max=1)
    ] = None,
    calibrate_on: Annotated[
        str | None, typer.Option(help="Choose the threshold by mIoU on this other split.", show_default=False)
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Own data: class list; default: classes.txt in the folder.", show_default=False)
    ] = None,
    max_images: Annotated[
        int | None, typer.Option(help="Only the first so many photos: a trial.", show_default=False, min=1)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only look at model, protocol and data, and write nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder --out holds.")] = False,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    window_batch: Annotated[int, typer.Option(help="Windows encoded at once.", min=1)] = 8,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Evaluate a model zero-shot on benchmarks, and write reports that explain the result."""
    from mixreorg.console import plain_console
    from mixreorg.eval.benchmarks.console import print_prepared
    from mixreorg.eval.embedding_cache import default_cache_dir
    from mixreorg.eval.run import EvalOptions, check_evaluation, run_evaluation

    options = EvalOptions(
        model=model,
        benchmarks=tuple(name.strip() for name in benchmark.split(",") if name.strip()),
        data=data,
        out=out,
        protocol=protocol,
        split=split,
        threshold=background,
        calibrate_on=calibrate_on,
        classes=classes,
        max_images=max_images,
        device=device,
        workers=workers,
        window_batch=window_batch,
        resume=resume,
        cache=default_cache_dir(),
    )
    console = plain_console(stderr=True)
    if check:
        reports = check_evaluation(options, load_any_model, console)
        for prepared in reports:
            print_prepared(prepared, plain_console())
        raise typer.Exit(max(prepared.report.exit_code for prepared in reports))
    try:
        run_evaluation(options, load_any_model, console)
    except KeyboardInterrupt:
        typer.echo("interrupted; go on by --resume", err=True)
        raise typer.Exit(130) from None


def load_any_model(model: str, device: str) -> "DualEncoder":
    """Load a model of whatever origin."""
    import mixreorg

    return mixreorg.load_model(model, device)


# A line break in a docstring would be one in the help.
evaluate.__doc__ = "\n\n".join((str(evaluate.__doc__), *_NOTES))
