"""``mixreorg data scenes``: write a folder of captioned scenes with exact masks."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mixreorg.data.scenes.presets import ScenesConfig


def scenes(
    out: Annotated[Path, typer.Argument(help="Folder to create.", show_default=False)],
    train: Annotated[int, typer.Option(help="Number of training scenes.")] = 60_000,
    val: Annotated[int, typer.Option(help="Number of validation scenes.")] = 500,
    test: Annotated[int, typer.Option(help="Number of test scenes.")] = 1_000,
    preset_name: Annotated[str, typer.Option("--preset", help="easy, medium or hard.")] = "easy",
    classes: Annotated[
        str | None, typer.Option(help="Class names with commas, or how many (the first N of the list).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Other seeds give other scenes and other held-out pairs.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; the files do not depend on it.")] = 1,
    image_size: Annotated[int | None, typer.Option(help="Side of the images in pixels.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other setting: --set max_objects=5, --set pictures=FOLDER", metavar="NAME=VALUE"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier folder of scenes.")] = False,
) -> None:
    """Make a captioned world with exact masks: emoji on textures, as shards (train) and VOC folders (val, test)."""
    # Imported here: these load numpy and torch, which the help of other commands does not need.
    from mixreorg.console import plain_console
    from mixreorg.data.scenes.generate import generate_scenes
    from mixreorg.files import read_json

    config = _configure(preset_name, classes, seed, image_size).with_overrides(setting or [])
    console = plain_console(stderr=True)
    folder = generate_scenes(config, out, train, val, test, workers=workers, overwrite=overwrite, console=console)
    made = f"{train} training, {val} validation and {test} test scenes in {folder}"
    console.print(made, highlight=False, markup=False, soft_wrap=True)
    missing = read_json(folder / "scenes.json")["pictures"]["classes_without_picture"]
    if missing:
        names = textwrap.shorten(", ".join(missing), 300, placeholder=" ...")
        console.print(
            f"never drawn, for lack of a picture: {len(missing)} of {len(config.classes)} classes ({names})",
            highlight=False,
            markup=False,
        )


def _configure(preset_name: str, classes: str | None, seed: int, image_size: int | None) -> "ScenesConfig":
    from mixreorg.data.scenes.classes import class_names
    from mixreorg.data.scenes.presets import ScenesConfig, most_held_out_pairs, preset

    assignments = [f"seed={seed}"]
    if image_size is not None:
        assignments.append(f"image_size={image_size}")
    config = preset(preset_name).with_overrides(assignments)
    if classes is None:
        return config
    text = classes.strip()
    names = class_names(int(text)) if text.lstrip("+-").isdecimal() else tuple(name.strip() for name in text.split(","))
    # Few classes have few pairs, perhaps fewer than the preset holds out.
    pairs = min(config.held_out_pairs, most_held_out_pairs(len(names)))
    return ScenesConfig.from_dict({**config.to_dict(), "classes": names, "held_out_pairs": pairs}, source="--classes")
