"""The picture of docs/honest_masks.md: names that are not in the photo, with and without abstention."""

from PIL import Image

from mixreorg.eval.calibrate import calibrate
from mixreorg.eval.evaluate import read_pair
from mixreorg.eval.split import EvalSplit
from mixreorg.segment.drawing import contact_sheet
from mixreorg.segment.segmenter import Segmenter


def draw_honest_masks(segmenter: Segmenter, val: EvalSplit, test: EvalSplit, stems: tuple[str, ...]) -> Image.Image:
    """One row per scene: the photo, plain decoding, and abstention with automatic background.

    Args:
        segmenter: model and protocol.
        val: split to calibrate on.
        test: split of the scenes.
        stems: scenes.
    """
    calibrated = Segmenter(segmenter.model, segmenter.protocol, calibration=calibrate(segmenter, val, "VOC"))
    rows = []
    for stem in stems:
        photo, mask = read_pair(test, stem)
        shown = [item.name for index, item in enumerate(test.classes, start=1) if (mask == index).any()]
        plain = segmenter(photo, test.classes)
        honest = calibrated(photo, test.classes, background="auto", abstain="auto")
        rows.append(
            [
                (f"in it: {', '.join(shown)}", photo),
                (f"asked for {len(test.classes)} names", plain.overlay(photo)),
                ("the same, abstaining", honest.overlay(photo)),
            ]
        )
    return contact_sheet(rows, cell_size=320)
