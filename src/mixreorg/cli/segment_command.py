"""``mixreorg segment``."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixreorg.errors import MixreorgError

if TYPE_CHECKING:
    from mixreorg.batch.inputs import PhotoInput
    from mixreorg.batch.run import BatchJob
    from mixreorg.batch.summary import PhotoRow
    from mixreorg.segment.request import MaskRequest

_NEEDS_CLASSES = "this model has no classes of its own; name some, for example --classes 'dog, cat=cat|kitten, grass'"
_PLAIN = (bool, int, float, str, NoneType)
_NOT_SETTINGS = frozenset(
    {"photos", "model", "out", "classes", "negatives", "calibration", "device", "workers", "redo"}
)
"""Parameters of the command that do not decide the results, or are told apart by what they stand for."""


def segment(
    context: typer.Context,
    photos: Annotated[
        list[Path],
        typer.Argument(
            help="Photos (JPEG, PNG, WebP and what else Pillow reads), folders, patterns such as 'trip/**/*.jpg', or - "
            "for a list on standard input."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Model, checkpoint or run folder; scenes-tiny, which comes with the package; GroupViT of transformers "
            "or .pth; OWNER/NAME on the hub; or what mixreorg export wrote."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for label maps, overlays and JSON.")],
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class names: 'dog, cat=cat|kitten, grass', or @file.txt with one per line; "
            "needed unless they are baked into the model.",
            show_default=False,
        ),
    ] = None,
    negatives: Annotated[
        str | None,
        typer.Option(
            help="Names, written as --classes, that take pixels and are reported as background: 'sky, wall'.",
            show_default=False,
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            help="Threshold below which a pixel becomes background (it depends on model and names: GroupViT takes 0.95 "
            "on VOC), or auto: the calibration's, else one chosen on each photo. Default: the model's.",
            show_default=False,
        ),
    ] = None,
    abstain: Annotated[
        str | None,
        typer.Option(
            help="Presence score below which a class is not in the picture and gets no pixel, or auto: the "
            "calibration's. Default: every class may get pixels.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="What mixreorg calibrate wrote. Default: the file in the model's folder.", show_default=False
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Class prompt, for example 'a drawing of a {}.', or CLIP's sets: simple, subset (7), full (80). May "
            "be repeated; embeddings are averaged. Default: the model's.",
            show_default=False,
        ),
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            help="Resize photos to this short side in pixels, no longer than the model's protocol allows in "
            "proportion. Default: the protocol's."
        ),
    ] = None,
    whole: Annotated[
        bool | None, typer.Option("--whole/--windows", help="One window per photo, or sliding windows.")
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option(
            help="Look at tiles of the photo enlarged by these factors as well: '1.5' or '1.5,2'.", show_default=False
        ),
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Average with the mirrored photo.", show_default=False)
    ] = None,
    merge: Annotated[
        float | None,
        typer.Option(
            help="Give one name to segments of all windows whose embeddings have this cosine, for example 0.9.",
            show_default=False,
        ),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(help="Fit masks to the photo's edges: pamr, guided or none.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    workers: Annotated[
        int, typer.Option(help="Threads that read photos ahead, and as many that write; 0 for none.", min=0)
    ] = 2,
    redo: Annotated[bool, typer.Option("--redo", help="Make results again that are there already.")] = False,
) -> None:
    """Label every pixel of photos with one of the given class names.

    Writes PHOTO_labels.png (palette, class indices), PHOTO_overlay.png (with a legend) and PHOTO.json, and
    summary.json and summary.csv about all photos. Photos whose results are there, made by the same model, classes and
    options, are kept. Exit code: 0, 2 where a photo failed or the input is wrong, 130 after an interruption.
    """
    from mixreorg.batch.inputs import SUMMARY, find_photos
    from mixreorg.batch.run import BatchJob
    from mixreorg.files import require_writable
    from mixreorg.text.class_list import parse_class_list

    class_names = None if classes is None else parse_class_list(classes)
    request = {
        "negatives": None if negatives is None else parse_class_list(negatives),
        "background": _threshold("background", background),
        "abstain": _threshold("abstain", abstain),
    }
    options = {
        "short_side": short_side,
        "whole": whole,
        "templates": _templates(template),
        "tile_scales": None if tiles is None else _scales(tiles),
        "flip": flip,
        "segment_similarity": merge,
        "refine": refine,
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    segmenter = _load(model, device, chosen, calibration, needs_classes=class_names is None)
    found = find_photos(photos, out, sys.stdin.buffer)
    # What no photo can change is refused at once.
    require_writable(out / f"{SUMMARY}.json")
    checked = segmenter.request(class_names, **request)
    settings = {name: value for name, value in context.params.items() if name not in _NOT_SETTINGS}
    made_by = _made_by(segmenter, model, checked, settings)
    job = BatchJob(lambda image: segmenter(image, class_names, **request), out, made_by, workers)
    _run(job, found, redo)


def _made_by(segmenter: Any, model: str, request: "MaskRequest", settings: dict[str, Any]) -> dict[str, Any]:
    """Plain values that decide the results: whichever options the command has, and what they stand for."""
    import mixreorg
    from mixreorg.batch.identity import listed, model_identity
    from mixreorg.segment.protocol import hash_values

    return {
        "mixreorg": mixreorg.__version__,
        "model": model_identity(segmenter, model),
        "classes": listed(request.classes),
        "negatives": listed(request.negatives),
        "calibration": None if request.calibration is None else hash_values(request.calibration.to_dict()),
        "protocol": segmenter.protocol.hash(),
        "options": {name: value if isinstance(value, _PLAIN) else str(value) for name, value in settings.items()},
    }


def _run(job: "BatchJob", photos: "list[PhotoInput]", redo: bool) -> None:
    """Do all photos, show how it goes, write the summary."""
    from mixreorg.batch.inputs import PhotoInput
    from mixreorg.batch.run import kept_rows, segment_photos
    from mixreorg.batch.summary import PhotoRow, printable, write_summary
    from mixreorg.console import plain_console
    from mixreorg.data.progress import progress_bars

    rows = {} if redo else kept_rows(job, photos)
    if rows:
        typer.echo(
            f"{len(rows)} of {len(photos)} photos are done already, by the same model, classes and options; "
            "--redo makes them again",
            err=True,
        )
    missing = [photo for photo in photos if photo not in rows]
    echo = _until_nobody_reads(typer.echo)
    # Under a progress bar rich would send what is printed to the bar's stream, also where it goes to a file.
    output = None if sys.stdout.isatty() else sys.stdout
    interrupted = False
    with progress_bars(plain_console(stderr=True) if len(missing) > 1 else None, decimals=1) as progress:
        bar = progress.add_task("photos", total=len(missing))

        def report(photo: PhotoInput, row: PhotoRow) -> None:
            rows[photo] = row
            progress.advance(bar)
            if row.error is None:
                echo(f"{row.photo}: {row.shares()} -> {printable(str(job.out / row.results))}_overlay.png", file=output)
            else:
                typer.echo(f"error: {row.error}", err=True)

        try:
            segment_photos(job, missing, report)
        except KeyboardInterrupt:
            interrupted = True
    done = [rows[photo] for photo in photos if photo in rows]
    write_summary(job.out, job.made_by, done, len(photos))
    _finish(done, len(photos), interrupted)


def _until_nobody_reads(echo: Callable[..., None]) -> Callable[..., None]:
    """``echo`` that falls silent when its reader has gone (``| head``): the photos are still wanted."""
    gone = False

    def print_line(*arguments: Any, **options: Any) -> None:
        nonlocal gone
        if gone:
            return
        try:
            echo(*arguments, **options)
        except BrokenPipeError:
            gone = True
            # What is left in the buffer would raise the same when Python ends.
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())

    return print_line


def _finish(rows: "Sequence[PhotoRow]", num_photos: int, interrupted: bool) -> None:
    """Name what failed, and leave with the exit code."""
    failed = [row for row in rows if row.error is not None]
    if failed:
        typer.echo(f"{len(failed)} of {num_photos} photos failed; the others are done:", err=True)
        for row in failed:
            typer.echo(f"  {row.photo}", err=True)
    if interrupted:
        typer.echo(f"interrupted; {len(rows)} of {num_photos} photos are done; the same command goes on", err=True)
        raise typer.Exit(130)
    if failed:
        raise typer.Exit(2)


def _scales(text: str) -> list[float]:
    """Numbers separated by commas; none of an empty text."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise MixreorgError(
            f"--tiles takes factors above 1, separated by commas, for example 1.5,2; not {text!r}"
        ) from None


def _load(model: str, device: str, options: dict[str, Any], calibration: Path | None, *, needs_classes: bool) -> Any:
    """A segmenter of either kind; an exported model is used without importing torch."""
    from mixreorg.export.backends import needing_torch, require_cpu
    from mixreorg.export.runtime import ExportedSegmenter, find_export
    from mixreorg.segment.protocol import Protocol

    def changed(protocol: Protocol) -> Protocol:
        return protocol.changed(options, "segment options")

    if find_export(Path(model)) is not None:
        require_cpu(device)
        exported = ExportedSegmenter(model, changed, calibration=calibration)
        if needs_classes and exported.manifest.classes is None:
            raise MixreorgError(_NEEDS_CLASSES)
        return exported
    if needs_classes:
        raise MixreorgError(_NEEDS_CLASSES)
    with needing_torch(model):
        from mixreorg.interop.loading import load_model
        from mixreorg.segment.segmenter import Segmenter, default_protocol

    loaded = load_model(model, device)
    return Segmenter(loaded, changed(default_protocol(loaded)), calibration=calibration)


def _threshold(option: str, text: str | None) -> float | str | None:
    """The value of an option that is a number or ``auto``; its range is checked later."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise MixreorgError(f"--{option} {text!r} is no threshold; give a number from 0 to 1, or auto") from None


def _templates(values: list[str] | None) -> list[str] | None:
    """Templates of the options: sets by name, others as they are."""
    if not values:
        return None
    from mixreorg.text.templates import TEMPLATES

    sets: Mapping[Any, tuple[str, ...]] = TEMPLATES
    return [template for value in values for template in sets.get(value, (value,))]
