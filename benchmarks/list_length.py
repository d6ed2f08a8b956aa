"""mIoU with background by rule of background and number of names asked for.

These are the true ones of each photo and others up to the number, drawn for the photo.
"""

import argparse
from collections.abc import Sequence
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


def measure(
    segmenter: Segmenter, split: EvalSplit, lengths: Sequence[int], rules: Sequence[Threshold]
) -> list[list[str]]:
    """mIoU with background over all classes of the split, in percent: a row per rule, a column per length."""
    count = len(split.classes)
    confusions = [[Confusion(count + 1) for _ in lengths] for _ in rules]
    for position, stem in enumerate(split.stems):
        photo, mask = read_pair(split, stem)
        output = segmenter.encode([photo])
        drawn = np.random.default_rng(position).permutation(count) + 1
        is_true = np.isin(drawn, mask)
        true_first = [*drawn[is_true], *drawn[~is_true]]
        for column, length in enumerate(lengths):
            asked = true_first[: max(length, is_true.sum())]
            names = [split.classes[index - 1] for index in asked]
            for row, rule in enumerate(rules):
                request = segmenter.request(names, background=rule)
                labels = segmenter.decode_photo(output, photo, request).label_map
                confusions[row][column].add(mask, np.array([0, *asked])[labels])
    return [[f"{confusion.miou():.1f}" for confusion in row] for row in confusions]


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
    rows = measure(segmenter, split, lengths, list(rules.values()))
    print_table(["names", *map(str, lengths)], [[title, *row] for title, row in zip(rules, rows, strict=True)])


if __name__ == "__main__":
    main()
