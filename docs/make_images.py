"""Make the pictures of the README and of these pages from a finished demonstration.

python docs/make_images.py demo
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from mixreorg.data.scenes import generate_scenes, hard
from mixreorg.demo.pictures import segmentation_rows, spread_stems
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.files import read_json
from mixreorg.models.folder import load_model
from mixreorg.segment.drawing import contact_sheet
from mixreorg.segment.segmenter import Segmenter

IMAGES = Path(__file__).parent / "images"


def segmentation(demo: Path) -> None:
    """Eight test scenes, two per row: photo, groups, prediction, truth."""
    split = open_voc_split(demo / "scenes" / "VOC", "test")
    threshold = read_json(demo / "report.json")["background_threshold"]
    rows = segmentation_rows(Segmenter(load_model(demo / "run")), split, spread_stems(split, 8), threshold)
    cells = [
        [("photo", row.photo), ("groups", row.groups), ("prediction", row.prediction), ("truth", row.truth)]
        for row in rows
    ]
    sheet = contact_sheet([left + right for left, right in zip(cells[::2], cells[1::2], strict=True)], cell_size=128)
    sheet.save(IMAGES / "demo_segmentation.png", optimize=True)


def scenes(demo: Path) -> None:
    """Contact sheets of the easy and the hard preset."""
    shutil.copyfile(demo / "scenes" / "contact_sheet.png", IMAGES / "scenes_easy.png")
    with tempfile.TemporaryDirectory() as folder:
        made = generate_scenes(hard(), Path(folder) / "scenes", 60, 10, 20)
        shutil.copyfile(made / "contact_sheet.png", IMAGES / "scenes_hard.png")


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of a finished `mixreorg demo`")
    arguments = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    segmentation(arguments.demo)
    scenes(arguments.demo)


if __name__ == "__main__":
    main()
