"""Make the picture of names that change places from the folder of experiments/large.yaml.

python docs/make_named_image.py large
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from mixreorg.demo.pictures import spread_stems
from mixreorg.eval.evaluate import read_pair
from mixreorg.eval.split import class_labels
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.interop.loading import load_model
from mixreorg.palette import class_colors
from mixreorg.segment.drawing import PAPER, contact_sheet, draw_legend, draw_overlay
from mixreorg.segment.segmenter import Segmenter

IMAGE = Path(__file__).parent / "images" / "named_stuff.png"
RUNS = {
    "GroupViT, seed 0": "long_multilabel_weight/seed-0",
    "GroupViT, seed 1": "long_multilabel_weight/seed-1",
    "MixReorg, seed 0": "long_every/seed-0",
}
SIDE = 144
FONT_SIZE = 13


def main() -> None:
    """Write four test scenes at equal distances: picture, truth and the models, all with the true names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ablation", type=Path, help="folder of the ablation")
    ablation = parser.parse_args().ablation
    split = open_voc_split(ablation / "worlds" / "large" / "scenes" / "VOC", "test")
    segmenters = {title: Segmenter(load_model(ablation / "runs" / run)) for title, run in RUNS.items()}
    cells = []
    for stem in spread_stems(split, 4):
        photo, mask = read_pair(split, stem)
        true, truth = np.unique(class_labels(split, mask), return_inverse=True)  # every pixel has a class
        classes = [split.classes[index] for index in true]
        colors = class_colors(len(classes), has_background=False)
        maps = {"truth": truth.reshape(mask.shape)}
        maps |= {title: segmenter(photo, classes).label_map for title, segmenter in segmenters.items()}
        pictures = [(title, draw_overlay(photo, labels, colors, opacity=0.7)) for title, labels in maps.items()]
        names = [(item.name, color) for item, color in zip(classes, colors, strict=True)]
        cells.append([("picture", photo), *pictures, ("names", _square(draw_legend(names, SIDE, FONT_SIZE)))])
    contact_sheet(cells, cell_size=SIDE).save(IMAGE, optimize=True)


def _square(legend: Image.Image) -> Image.Image:
    """At the top left of a cell, so that its text keeps its size."""
    cell = Image.new("RGB", (SIDE, SIDE), PAPER)
    cell.paste(legend, (0, 0))
    return cell


if __name__ == "__main__":
    main()
