"""``mixreorg export``."""

import re
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from mixreorg.errors import MixreorgError


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Model, checkpoint or run folder; scenes-tiny; GroupViT of transformers or .pth; OWNER/NAME on the "
            "hub."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; with --classes, the file to write.")],
    to: Annotated[str, typer.Option(help="onnx (ONNX Runtime and others) or openvino.")] = "onnx",
    classes: Annotated[
        str | None,
        typer.Option(help="Bake these classes in: 'dog, cat=cat|kitten, grass', or @file.txt.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Only windows of this size, 448 or HEIGHTxWIDTH: faster in OpenVINO. Default: any size.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32; fp16, bf16: weights in half the space; int8: products in 8 bits.")
    ] = "fp32",
    photos: Annotated[
        Path | None,
        typer.Option(help="Folder of photos like those to come, on which int8 is calibrated.", show_default=False),
    ] = None,
) -> None:
    """Write a model as ONNX or OpenVINO files, for fast inference without torch.

    `mixreorg segment --model OUT` uses them; so does mixreorg.export.runtime.ExportedSegmenter.
    """
    from mixreorg.export.exporter import export_model
    from mixreorg.export.manifest import Precision, Runtime
    from mixreorg.interop.loading import load_model
    from mixreorg.text.class_list import parse_class_list

    written = export_model(
        load_model(model),
        out,
        cast(Runtime, _choice("--to", to, get_args(Runtime))),
        classes=None if classes is None else parse_class_list(classes),
        size=None if size is None else _size(size),
        precision=cast(Precision, _choice("--precision", precision, get_args(Precision))),
        photos=photos,
        say=lambda text: typer.echo(text, err=True),
    )
    for path in written:
        typer.echo(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


def _choice(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise MixreorgError(f"{option} {value!r}: choose from {', '.join(known)}")
    return value


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip())
    if match is None:
        raise MixreorgError(f"--size {text!r}: write one side, for example 448, or HEIGHTxWIDTH, for example 448x608")
    return int(match[1]), int(match[2] or match[1])
