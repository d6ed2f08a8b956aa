"""How often classes that are not in a photo get pixels, and classes that are get none, by rule of decoding.

Every class of the world is asked for in every photo. Thresholds come from the validation split.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import print_environment, print_table
from mixreorg.eval.calibrate import Outcome, calibrate
from mixreorg.eval.confusion import Confusion
from mixreorg.eval.evaluate import read_pair
from mixreorg.eval.split import EvalSplit
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.interop.loading import load_model
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.class_list import ClassName

USUAL_THRESHOLD = 0.95
"""GroupViT's on PASCAL VOC."""
PRESENCE = 0.5
"""For a model without calibration."""


def measure(segmenter: Segmenter, split: EvalSplit, names: Sequence[ClassName], **options: Any) -> list[object]:
    """False presence, missed presence and mIoU with background, in percent, of the classes asked for."""
    outcome = Outcome(Confusion(len(names) + 1))
    for stem in split.stems:
        photo, mask = read_pair(split, stem)
        result = segmenter(photo, names, **options)
        # Classes that are not asked for are background.
        outcome.add(mask * (mask <= len(names)), result.label_map.astype(int) + (not result.has_background))
    values = outcome.measured()
    return [f"{values[name]:.1f}" for name in ("false_presence", "missed_presence", "miou")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("voc", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="photos of either split")
    arguments = parser.parse_args()
    print_environment()
    val, test = (open_voc_split(arguments.voc, name, arguments.limit) for name in ("val", "test"))
    model = load_model(arguments.model)
    model.inference_calibration = None
    protocol = Segmenter(model).protocol.updated(background_threshold=None)
    plain = Segmenter(model, protocol)
    calibrated = Segmenter(model, protocol, calibration=calibrate(plain, val, arguments.voc.name))
    print(f"{len(val.stems)} photos of val, {len(test.stems)} of test, {len(test.classes)} classes\n")
    variants: dict[str, tuple[Segmenter, dict[str, Any]]] = {
        "GroupViT, no background": (plain, {}),
        f"GroupViT, threshold {USUAL_THRESHOLD}": (plain, {"background": USUAL_THRESHOLD}),
        "GroupViT, threshold from val": (calibrated, {"background": "auto"}),
        "no calibration: automatic background (Otsu)": (plain, {"background": "auto"}),
        f"no calibration: the same, abstention at {PRESENCE}": (plain, {"background": "auto", "abstain": PRESENCE}),
        "calibrated: abstention": (calibrated, {"abstain": "auto"}),
        "calibrated: abstention and automatic background": (calibrated, {"background": "auto", "abstain": "auto"}),
    }
    header = ["absent classes shown, %", "present classes missed, %", "mIoU, %"]
    rows = [
        [name, *measure(segmenter, test, test.classes, **options)] for name, (segmenter, options) in variants.items()
    ]
    print_table(["decoding", *header], rows)
    half = len(test.classes) // 2
    wanted, others = test.classes[:half], test.classes[half:]
    print(f"The first {half} classes asked for, the other {len(others)} as negatives:\n")
    halves: dict[str, dict[str, Any]] = {
        "no background": {},
        "negatives": {"negatives": others},
        "threshold from val": {"background": "auto"},
        "threshold from val, negatives": {"background": "auto", "negatives": others},
        "threshold from val, negatives, abstention": {"background": "auto", "negatives": others, "abstain": "auto"},
    }
    rows = [[name, *measure(calibrated, test, wanted, **options)] for name, options in halves.items()]
    print_table(["decoding", *header], rows)


if __name__ == "__main__":
    main()
