"""``mixreorg video``."""

from pathlib import Path
from typing import Annotated

import typer

from mixreorg.errors import MixreorgError


def video(
    source: Annotated[str, typer.Argument(help="Video file, or with --camera the device: /dev/video0, 0, video=NAME.")],
    model: Annotated[str, typer.Option(help="Model, as for `mixreorg segment`; an exported one is for photos alone.")],
    classes: Annotated[str, typer.Option(help="Class names: 'dog, cat=cat|kitten, grass', or @file.txt.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    smoothing: Annotated[
        float | None,
        typer.Option(help="Weight of the past in the scores: 0 for none, below 1. Default: 0.7.", min=0, max=0.999),
    ] = None,
    every: Annotated[int, typer.Option(help="Segment and show one of so many frames.", min=1)] = 1,
    max_frames: Annotated[
        int | None, typer.Option(help="Stop after so many segmented frames.", min=1, show_default=False)
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Write the label map of every segmented frame.")] = False,
    camera: Annotated[bool, typer.Option("--camera", help="The source is a camera; Ctrl-C ends.")] = False,
    background: Annotated[
        float | None,
        typer.Option(help="Threshold below which a pixel becomes background. Default: the model's."),
    ] = None,
    short_side: Annotated[
        int | None, typer.Option(help="Resize frames to this short side in pixels. Default: the model's protocol.")
    ] = None,
    whole: Annotated[
        bool | None, typer.Option("--whole/--windows", help="One window per frame, or sliding windows.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Label every pixel of a video's frames with one of the given class names, smoothed over time.

    Writes VIDEO_overlay.mp4 (without sound) and VIDEO.json. Exit code: 0, 2 where the input is wrong, damaged or
    truncated, 130 after an interruption; what was read until then is written.
    """
    from contextlib import closing

    import mixreorg
    from mixreorg.batch.identity import listed, model_identity
    from mixreorg.console import plain_console
    from mixreorg.data.progress import progress_bars
    from mixreorg.export.runtime import find_export
    from mixreorg.interop.loading import load_model
    from mixreorg.segment.segmenter import Segmenter
    from mixreorg.text.class_list import parse_class_list
    from mixreorg.video.container import VideoReader
    from mixreorg.video.run import VideoJob, segment_video
    from mixreorg.video.smoothing import DEFAULT_SMOOTHING, FrameLabeller

    class_names = parse_class_list(classes)
    if find_export(Path(model)) is not None:
        raise MixreorgError(f"{model} is an exported model, which segments photos alone; give the model itself")
    stem = Path(source).stem.replace("=", "-") if camera else Path(source).stem
    weight = DEFAULT_SMOOTHING if smoothing is None else smoothing
    with closing(VideoReader(source, camera=camera)) as reader:
        segmenter = Segmenter(load_model(model, device))
        options = {"background_threshold": background, "short_side": short_side, "whole": whole}
        chosen = {name: value for name, value in options.items() if value is not None}
        segmenter.protocol = segmenter.protocol.changed(chosen, "video options")
        labeller = FrameLabeller(segmenter, class_names, weight)
        job = VideoJob(labeller, out, stem, every, max_frames, labels)
        made_by = {
            "mixreorg": mixreorg.__version__,
            "model": model_identity(segmenter, model),
            "classes": listed(class_names),
            "protocol": segmenter.protocol.hash(),
            "options": {"smoothing": weight, "every": every},
        }
        total = None if reader.num_frames is None else -(-reader.num_frames // every)
        total = max_frames if total is None or (max_frames or total) < total else total
        with progress_bars(plain_console(stderr=True), decimals=1) as progress:
            bar = progress.add_task("frames", total=total)
            totals = segment_video(reader, job, made_by, lambda: progress.advance(bar))
    typer.echo(f"{totals.num_frames} frames, {totals.seconds:.1f} s -> {job.overlay_path}")
    if totals.interrupted:
        typer.echo("interrupted; the frames until then are in the file", err=True)
        raise typer.Exit(130)
