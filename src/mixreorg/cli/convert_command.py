"""``mixreorg convert``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer


class Layout(StrEnum):
    """Layouts that a model can be written in."""

    HF = "hf"
    NATIVE = "native"
    ORIGINAL = "original"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Model: folder, checkpoint, run, .pth, scenes-tiny, or OWNER/NAME on the hub.", show_default=False
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(help="Folder to create; for 'original' a .pth file.", show_default=False)
    ],
    to: Annotated[
        Layout,
        typer.Option(help="hf: a folder of transformers. native: a model folder. original: one .pth file."),
    ],
    precision: Annotated[
        Literal["fp16", "bf16"] | None,
        typer.Option(help="Round weights to 16 bits, for half the space. Default: as they are.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="For the model card: OWNER/NAME on the hub.")] = None,
    license_name: Annotated[
        str | None,
        typer.Option("--license", help="Licence for the model card, such as apache-2.0. Default: the source's."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="For the model card: what the model was trained on.")] = None,
    photo: Annotated[Path | None, typer.Option(help="For the model card: photo of its picture.")] = None,
    classes: Annotated[str | None, typer.Option(help="For the model card: class names for that photo.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier conversion.")] = False,
) -> None:
    """Write a model in another layout, bit for bit or in half the space, with a model card."""
    # Imported here: these load torch, which the help of other commands does not need.
    from mixreorg.interop.convert import convert_model
    from mixreorg.interop.model_card import CardFacts

    facts = CardFacts(name=name, license=license_name, data=data, photo=photo, classes=classes)
    given = None if facts == CardFacts() else facts
    out = convert_model(source, destination, to.value, facts=given, precision=precision, overwrite=overwrite)
    typer.echo(f"{source} -> {out} ({to.value})")
