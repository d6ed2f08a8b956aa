"""``mixreorg segment``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from mixreorg.errors import MixreorgError

_NEEDS_CLASSES = "this model has no classes of its own; name some, for example --classes 'dog, cat=cat|kitten, grass'"


def segment(
    photos: Annotated[list[Path], typer.Argument(help="Photos: JPEG, PNG, WebP and what else Pillow reads.")],
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
    background: Annotated[
        float | None,
        typer.Option(help="Threshold below which a pixel becomes background; 0.95 is usual. Default: the model's."),
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(help="Resize photos to this short side in pixels. Default: the model's protocol."),
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
) -> None:
    """Label every pixel of photos with one of the given class names.

    Writes PHOTO_labels.png (palette, class indices), PHOTO_overlay.png (with a legend) and PHOTO.json.
    """
    from mixreorg.segment.photos import read_photo
    from mixreorg.segment.protocol import Protocol
    from mixreorg.text.class_list import parse_class_list

    class_names = None if classes is None else parse_class_list(classes)
    segmenter = _load(model, device, needs_classes=class_names is None)
    options = {
        "background_threshold": background,
        "short_side": short_side,
        "whole": whole,
        "tile_scales": None if tiles is None else _scales(tiles),
        "flip": flip,
        "segment_similarity": merge,
        "refine": refine,
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    segmenter.protocol = Protocol.from_dict({**segmenter.protocol.to_dict(), **chosen}, source="segment options")
    failures = 0
    for photo, stem in zip(photos, _unique_stems(photos), strict=True):
        try:
            image = read_photo(photo)
            result = segmenter(image, class_names)
            paths = result.save(out, stem, image, printable(photo.name))
        except MixreorgError as error:
            typer.echo(printable(f"error: {error}"), err=True)
            failures += 1
            continue
        shares = ", ".join(
            f"{name} {share:.0%}"
            for share, name in sorted(zip(result.area_share, result.class_names, strict=True), reverse=True)
            if share >= 0.005
        )
        typer.echo(printable(f"{photo}: {shares} -> {paths[1]}"))
    if failures:
        typer.echo(f"{failures} of {len(photos)} photos failed; the others are done", err=True)
        raise typer.Exit(2)


def _scales(text: str) -> list[float]:
    """Numbers separated by commas; none of an empty text."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise MixreorgError(
            f"--tiles takes factors above 1, separated by commas, for example 1.5,2; not {text!r}"
        ) from None


def _load(model: str, device: str, *, needs_classes: bool) -> Any:
    """A segmenter of either kind; an exported model is used without importing torch."""
    from mixreorg.export.runtime import ExportedSegmenter, find_export

    if find_export(Path(model)) is not None:
        if device != "cpu":
            raise MixreorgError(f"an exported model runs on the CPU, not on {device!r}; leave --device out")
        exported = ExportedSegmenter(model)
        if needs_classes and exported.manifest.classes is None:
            raise MixreorgError(_NEEDS_CLASSES)
        return exported
    if needs_classes:
        raise MixreorgError(_NEEDS_CLASSES)
    from mixreorg.interop.loading import load_model
    from mixreorg.segment.segmenter import Segmenter

    return Segmenter(load_model(model, device))


def printable(text: str) -> str:
    """Text with the bytes of a file name that is not UTF-8 replaced: neither JSON nor a terminal takes them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _unique_stems(photos: Iterable[Path]) -> list[str]:
    """File stems; photos of one name in several folders get -2, -3, ... in the order given."""
    stems: list[str] = []
    taken: set[str] = set()
    for photo in photos:
        stem, number = photo.stem, 1
        while stem in taken:
            number += 1
            stem = f"{photo.stem}-{number}"
        taken.add(stem)
        stems.append(stem)
    return stems
