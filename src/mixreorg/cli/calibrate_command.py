"""``mixreorg calibrate``."""

from pathlib import Path
from typing import Annotated

import typer

from mixreorg.errors import MixreorgError


def calibrate(
    model: Annotated[str, typer.Argument(help="Model, checkpoint or run folder, or name.", show_default=False)],
    data: Annotated[
        Path, typer.Option(help="Photos with masks in VOC layout, with a classes.txt.", show_default=False)
    ],
    split: Annotated[str, typer.Option(help="Split to choose on; never the one to report results on.")] = "val",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write. Default: calibration.json in the model's folder.", show_default=False),
    ] = None,
    max_images: Annotated[
        int | None, typer.Option(help="Only the first so many photos.", show_default=False, min=1)
    ] = None,
    window_batch: Annotated[int, typer.Option(help="Windows encoded at once.", min=1)] = 8,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Choose the thresholds for --abstain auto and --background auto on a held-out split.

    Asks for all classes of the data in every photo, and writes how presence scores are made, the thresholds, and what
    they do on that split. The file holds for this model and the protocol saved with it alone.
    """
    from mixreorg.console import plain_console
    from mixreorg.data.progress import progress_bars
    from mixreorg.eval.calibrate import calibrate as calibrate_model
    from mixreorg.eval.voc_split import open_voc_split
    from mixreorg.files import exists, require_writable
    from mixreorg.interop.loading import load_model
    from mixreorg.models.folder import resolve_model_folder
    from mixreorg.segment.calibration import CALIBRATION_FILE
    from mixreorg.segment.segmenter import Segmenter

    if split.startswith("test"):
        raise MixreorgError(f"the split {split!r} is there to report results on; calibrate on another, such as val")
    if out is None and not (exists(Path(model)) and Path(model).is_dir()):
        raise MixreorgError(f"{model!r} is not a folder that a calibration could be put into; say where with --out")
    path = out or resolve_model_folder(Path(model)) / CALIBRATION_FILE
    require_writable(path)
    opened = open_voc_split(data, split, max_images)
    segmenter = Segmenter(load_model(model, device), window_batch=window_batch)
    with progress_bars(plain_console(stderr=True), decimals=1) as progress:
        bar = progress.add_task(f"calibrating on {split}", total=2 * len(opened.stems))
        calibration = calibrate_model(
            segmenter, opened, data.resolve().name, lambda photos: progress.update(bar, advance=photos)
        )
    calibration.save(path)
    names = {"false_presence": "absent classes shown", "missed_presence": "present classes missed", "miou": "mIoU"}
    for name, text in names.items():
        before, after = (calibration.measured.get(f"{when}_{name}", float("nan")) for when in ("before", "after"))
        typer.echo(f"{text}: {before:.1f} % -> {after:.1f} %")
    typer.echo(
        f"presence threshold {calibration.presence_threshold:.3g}, background threshold "
        f"{calibration.abstaining_background_threshold:g} with abstention, {calibration.background_threshold:g} "
        f"without, on {calibration.describe()} -> {path}"
    )
