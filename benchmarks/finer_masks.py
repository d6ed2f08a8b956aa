"""What finer masks gain and cost: tiles, mirrored windows, merged segments and refinement, on scenes of any size.

mixreorg data scenes scenes224 --train 0 --val 300 --test 300 --preset easy --image-size 224
mixreorg data scenes crowded224 --train 0 --val 200 --test 200 --preset easy --image-size 224 \
    --set min_objects=3 --set max_objects=4
python benchmarks/finer_masks.py MODEL scenes224/VOC crowded224/VOC --choose     # every option, on the val split
python benchmarks/finer_masks.py MODEL scenes224/VOC crowded224/VOC              # what was chosen, on the test split
"""

import argparse
import time
from pathlib import Path

import torch

from harness import print_environment, print_table
from mixreorg.eval.evaluate import evaluate_split
from mixreorg.eval.split import EvalSplit
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.photos import read_photo
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter, default_protocol

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MERGED = {"tile_scales": (1.5,), "segment_similarity": 0.9}
OPTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "flip": {"flip": True},
    "tiles 1.5": {"tile_scales": (1.5,)},
    "tiles 2": {"tile_scales": (2,)},
    "tiles 1.5, merged 0.9": _MERGED,
    "tiles 1.5, merged 0.8": {"tile_scales": (1.5,), "segment_similarity": 0.8},
    "merged 0.9": {"segment_similarity": 0.9},
    "merged 0.8": {"segment_similarity": 0.8},
    "guided": {"refine": "guided"},
    "PAMR": {"refine": "pamr"},
    "flip, PAMR": {"flip": True, "refine": "pamr"},
    "tiles 1.5, merged 0.9, PAMR": {**_MERGED, "refine": "pamr"},
    "short side 96": {"short_side": 96},
    "short side 96, flip, PAMR": {"short_side": 96, "flip": True, "refine": "pamr"},
    "short side 96, tiles 1.5, merged 0.9": {"short_side": 96, **_MERGED},
    "short side 96, flip, tiles 1.5, merged 0.9, PAMR": {"short_side": 96, "flip": True, **_MERGED, "refine": "pamr"},
}
"""Changes of the model's protocol, for a model of 64 px. A larger short side alone is there to compare with."""


def milliseconds(segmenters: dict[str, Segmenter], split: EvalSplit, rounds: int) -> dict[str, float]:
    """Processor time per photo, from the read photo to labels; the least of several interleaved rounds."""
    photos = [read_photo(split.photo_path(stem)) for stem in split.stems[:8]]
    least = dict.fromkeys(segmenters, float("inf"))
    for _ in range(rounds):
        for name, segmenter in segmenters.items():
            start = time.process_time()
            for photo in photos:
                segmenter(photo, split.classes)
            least[name] = min(least[name], 1000 * (time.process_time() - start) / len(photos))
    return least


def choose_threshold(model: DualEncoder, protocol: Protocol, val: EvalSplit) -> float:
    """Background threshold of the highest mIoU on ``val``, before refinement, which would take minutes to sweep."""
    segmenter = Segmenter(model, protocol.updated(refine="none"), window_batch=32)
    return evaluate_split(segmenter, val, THRESHOLDS).best_threshold()


def measure(model: DualEncoder, protocol: Protocol, threshold: float, split: EvalSplit) -> list[object]:
    """mIoU of several kinds and boundary IoU on ``split``."""
    segmenter = Segmenter(model, protocol, window_batch=32)
    metrics = evaluate_split(segmenter, split, (threshold,), detail=True, threshold=threshold).metrics()
    names = ("foreground_miou", "present_miou", "background_miou", "boundary_iou", "grouping_oracle_miou")
    return [f"{threshold:g}", *(f"{metrics[name]:.1f}" for name in names)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("voc", type=Path, nargs="+", help="folders with a val and a test split")
    parser.add_argument("--choose", action="store_true", help="measure on the val split, where choices are made")
    parser.add_argument("--only", nargs="*", choices=OPTIONS, default=list(OPTIONS), help="these options alone")
    parser.add_argument("--limit", type=int, help="photos of each split")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_environment()
    model = load_model(arguments.model)
    base = default_protocol(model).updated(background_threshold=None)
    header = ["options", "threshold", "mIoU, no background", "same, true names", "mIoU", "boundary IoU", "oracle", "ms"]
    for folder in arguments.voc:
        val = open_voc_split(folder, "val", arguments.limit)
        split = val if arguments.choose else open_voc_split(folder, "test", arguments.limit)
        protocols = {name: base.updated(**OPTIONS[name]) for name in arguments.only}
        times = milliseconds({name: Segmenter(model, item) for name, item in protocols.items()}, val, arguments.rounds)
        rows: list[list[object]] = []
        thresholds: dict[str, float] = {}
        for name, protocol in protocols.items():
            without = protocol.updated(refine="none").hash()
            if without not in thresholds:
                thresholds[without] = choose_threshold(model, protocol, val)
            rows.append([name, *measure(model, protocol, thresholds[without], split), f"{times[name]:.0f}"])
            print(*rows[-1], flush=True)
        print(f"\n{split.name} of {folder}, {len(split.stems)} photos\n")
        print_table(header, rows)


if __name__ == "__main__":
    main()
