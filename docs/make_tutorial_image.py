"""Make the picture of the tutorial from its run and its scenes.

python docs/make_tutorial_image.py runs/first scenes results/first
"""

import argparse
from pathlib import Path

from mixreorg.demo.pictures import segmentation_rows, spread_stems
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.files import read_json
from mixreorg.interop.loading import load_model
from mixreorg.segment.drawing import contact_sheet
from mixreorg.segment.segmenter import Segmenter

IMAGE = Path(__file__).parent / "images" / "tutorial.png"


def main() -> None:
    """Write eight test scenes at equal distances, two per row: picture, labels, truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("scenes", type=Path, help="folder of the scenes")
    parser.add_argument("results", type=Path, help="folder of the evaluation, for its background threshold")
    arguments = parser.parse_args()
    split = open_voc_split(arguments.scenes / "VOC", "test")
    threshold = read_json(arguments.results / "report.json")["protocol"]["threshold"]
    rows = segmentation_rows(Segmenter(load_model(arguments.run)), split, spread_stems(split, 8), threshold)
    cells = [[("picture", row.photo), ("labels", row.prediction), ("truth", row.truth)] for row in rows]
    sheet = contact_sheet([left + right for left, right in zip(cells[::2], cells[1::2], strict=True)], cell_size=160)
    sheet.save(IMAGE, optimize=True)


if __name__ == "__main__":
    main()
