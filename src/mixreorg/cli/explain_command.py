"""``mixreorg explain``."""

from pathlib import Path
from typing import Annotated

import typer

from mixreorg.batch.summary import printable
from mixreorg.errors import MixreorgError


def explain(
    photo: Annotated[Path, typer.Argument(help="The photo, in any format that mixreorg segment reads.")],
    model: Annotated[
        str, typer.Option(help="As for mixreorg segment, except for exported models, which keep no stage 1.")
    ],
    classes: Annotated[str, typer.Option(help="Class names: 'dog, cat=cat|kitten, grass', or @file.txt.")],
    out: Annotated[Path, typer.Option(help="Folder for the picture and the JSON.")],
    window: Annotated[
        int | None,
        typer.Option(help="Explain this window of the protocol, from 1. Default: the whole photo as one window."),
    ] = None,
    background: Annotated[
        float | None, typer.Option(help="Threshold below which a group becomes background. Default: the model's.")
    ] = None,
    short_side: Annotated[int | None, typer.Option(help="Short side in pixels. Default: the model's protocol.")] = None,
    whole: Annotated[
        bool | None,
        typer.Option("--whole/--windows", help="How the photo is segmented. Default: the model's protocol."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Show why the pixels of a photo got their names.

    Writes PHOTO_explain.png (groups of both stages, the name that each group took and its margin, what the shortlist
    removed) and PHOTO_explain.json with all numbers.
    """
    from mixreorg.export.runtime import find_export
    from mixreorg.text.class_list import parse_class_list

    names = parse_class_list(classes)
    if find_export(Path(model)) is not None:
        raise MixreorgError(f"{model} is an exported model, which keeps no stage 1; give the model it was made from")
    from mixreorg.interop.loading import load_model
    from mixreorg.segment.explain import explain as explain_photo
    from mixreorg.segment.segmenter import Segmenter

    segmenter = Segmenter(load_model(model, device))
    options = {"background_threshold": background, "short_side": short_side, "whole": whole}
    chosen = {name: value for name, value in options.items() if value is not None}
    segmenter.protocol = segmenter.protocol.changed(chosen, "explain options")
    explanation = explain_photo(segmenter, photo, names, window)
    typer.echo(printable(f"{photo}: {explanation.window.describe()}"))
    for group in explanation.groups:
        typer.echo(
            printable(
                f"  {group.letter} {group.area_share:6.1%}  {explanation.names[group.label]}, margin {group.margin:.3f}"
            )
        )
    if explanation.removed:
        removed = ", ".join(explanation.compared[index].name for index in explanation.removed[:10])
        more = ", ..." if len(explanation.removed) > 10 else ""
        typer.echo(printable(f"  removed by the shortlist: {removed}{more}"))
    paths = explanation.save(out, photo.stem, printable(photo.name))
    typer.echo(printable(f"  -> {paths[0]}"))
