"""mIoU with background by rule of background and number of names asked for.

These are the true ones of each photo and others up to the number, drawn for the photo.
"""

import argparse
from pathlib import Path

import numpy as np

from harness import print_environment, print_table
from mixreorg.eval.confusion import Confusion
from mixreorg.eval.evaluate import read_pair
from mixreorg.eval.split import EvalSplit
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.interop.loading import load_model
from mixreorg.segment.request import Threshold
from mixreorg.segment.segmenter import Segmenter

LENGTHS = (2, 4, 8, 16, 32, 64, 128)


def measure(segmenter: Segmenter, split: EvalSplit, length: int, background: Threshold) -> str:
    """mIoU with background over all classes of the split, in percent."""
    confusion = Confusion(len(split.classes) + 1)
    for position, stem in enumerate(split.stems):
        photo, mask = read_pair(split, stem)
        drawn = np.random.default_rng(position).permutation(len(split.classes)) + 1
        is_true = np.isin(drawn, mask)
        asked = [*drawn[is_true], *drawn[~is_true]][: max(length, is_true.sum())]
        names = [split.classes[index - 1] for index in asked]
        labels = segmenter(photo, names, background=background).label_map
        confusion.add(mask, np.array([0, *asked])[labels])
    return f"{confusion.miou():.1f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("voc", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="photos of the split")
    parser.add_argument("--split", default="val")
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.35, 0.5])
    arguments = parser.parse_args()
    print_environment()
    split = open_voc_split(arguments.voc, arguments.split, arguments.limit)
    model = load_model(arguments.model)
    # Otsu's rule whatever the number of names.
    model.inference_calibration = None
    segmenter = Segmenter(model)
    print(f"{len(split.stems)} photos of {arguments.split}, {len(split.classes)} classes\n")
    lengths = sorted({min(length, len(split.classes)) for length in LENGTHS})
    rules: dict[str, Threshold] = {"Otsu": "auto"} | {f"{value:g}": value for value in arguments.threshold}
    rows = [[title, *(measure(segmenter, split, length, rule) for length in lengths)] for title, rule in rules.items()]
    print_table(["names", *map(str, lengths)], rows)


if __name__ == "__main__":
    main()
