"""``mixreorg data cutouts``: cut objects out of photos, for scenes that show them."""

from pathlib import Path
from typing import Annotated

import typer


def cutouts(
    root: Annotated[
        Path,
        typer.Argument(help="Folder in VOC layout with SegmentationObject masks and classes.txt.", show_default=False),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the cut-outs, one folder per class.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which photos: a list in ImageSets/Segmentation.")] = "val",
    min_side: Annotated[int, typer.Option(help="Smallest longer side of an object in pixels.", min=1)] = 64,
) -> None:
    """Cut whole objects of the scenes' classes out of photos; draw scenes of them with --set pictures=OUT."""
    # Imported here: these load numpy and torch, which the help of other commands does not need.
    from mixreorg.console import plain_console
    from mixreorg.eval.cutouts import write_cutouts
    from mixreorg.eval.voc_split import open_voc_split

    console = plain_console(stderr=True)
    counts = write_cutouts(open_voc_split(root, split), out, min_side, console)
    found = ", ".join(f"{name} {count}" for name, count in counts.pictures.items())
    lines = [f"{sum(counts.pictures.values())} cut-outs in {out}: {found}"]
    if counts.other_classes:
        lines.append(f"not classes of the scenes: {', '.join(counts.other_classes)}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
