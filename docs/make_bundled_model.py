"""Make the folder of a bundled model from a checkpoint that was trained on scenes.

python docs/make_bundled_model.py runs/scenes scenes/VOC
mixreorg calibrate src/mixreorg/bundled/scenes-tiny --data scenes/VOC

The weights are rounded to 16 bits. What that costs is measured on the test split, together with the results that the
model card shows; the background threshold is chosen on the validation split.
"""

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console

import mixreorg.bundled
from mixreorg.bundled import BUNDLED, MAX_BYTES
from mixreorg.data.progress import progress_bars
from mixreorg.errors import MixreorgError
from mixreorg.eval.evaluate import evaluate_split
from mixreorg.eval.result import BACKGROUND_THRESHOLDS
from mixreorg.eval.split import EvalSplit, label_names
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.files import folder_in_one_step
from mixreorg.interop.convert import Half, convert_model
from mixreorg.interop.loading import load_model
from mixreorg.interop.model_card import CardFacts, CardResults
from mixreorg.segment.segmenter import Segmenter

CREDIT = (
    "The training scenes are drawn with pictures of [OpenMoji](https://openmoji.org), the open-source emoji and icon "
    "project, licensed [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/). The weights carry the same "
    "licence."
)
SHOWN = {
    "foreground_miou": "mIoU without background",
    "background_miou": "mIoU with background",
    "boundary_iou": "boundary IoU, without background",
    "grouping_oracle_miou": "mIoU of the groups with the best name each",
    "recognition": "true classes among the names that fit the whole scene best",
}
"""Metrics of the card by the names that :class:`~mixreorg.eval.result.SplitResult` has for them."""


@dataclass(frozen=True)
class Measured:
    """One model on the test split."""

    metrics: dict[str, float]
    """In percent."""
    threshold: float
    """Of the background, from the validation split."""
    labels: list[np.ndarray]
    """Label map of every scene, without background."""


def measure(model: str | Path, val: EvalSplit, test: EvalSplit, title: str, console: Console) -> Measured:
    """Evaluate a model as its own protocol says."""
    segmenter = Segmenter(load_model(model), window_batch=64)
    segmenter.protocol = segmenter.protocol.updated(background_threshold=None)
    with progress_bars(console) as progress:
        bar = progress.add_task(title, total=len(val.stems) + 2 * len(test.stems))

        def advance(done: int) -> None:
            progress.update(bar, advance=done)

        threshold = evaluate_split(segmenter, val, BACKGROUND_THRESHOLDS, advance=advance).best_threshold()
        metrics = evaluate_split(segmenter, test, (threshold,), detail=True, advance=advance).metrics()
        labels = []
        for stem in test.stems:
            labels.append(segmenter(test.photo_path(stem), test.classes).label_map)
            advance(1)
    return Measured(metrics, threshold, labels)


def describe(
    name: str, test: EvalSplit, original: Measured, rounded: Measured, precision: Half, history: str
) -> CardFacts:
    """What the card says beside what it reads from the checkpoint."""
    differing = sum(int((a != b).sum()) for a, b in zip(original.labels, rounded.labels, strict=True))
    pixels = sum(labels.size for labels in rounded.labels)
    # Plus zero: a change of -0.001 would else be written as -0.00.
    change = round(rounded.metrics["foreground_miou"] - original.metrics["foreground_miou"], 2) + 0.0
    names = label_names(test)[1:]
    stem, present = _crowded_scene(test)
    others = [name for name in names if name not in present]
    return CardFacts(
        name=name,
        license="cc-by-sa-4.0",
        data="Scenes of `mixreorg data scenes`: pictures of emoji on textures. Names in its captions: "
        f"{', '.join(names)}.{history and ' ' + history}",
        photo=test.photo_path(stem),
        classes=", ".join([*present, *others[:2]]),
        background="auto",
        credit=CREDIT,
        results=CardResults(
            f"Measured on the {len(test.stems):,} scenes of a test split on which nothing was chosen, in percent, one "
            f"seed; background threshold {rounded.threshold}, chosen on a validation split. Rounding the weights from "
            f"float32 to {precision} changed {differing:,} of {pixels:,} pixels and the mIoU without background by "
            f"{change:+.2f} points.",
            {title: rounded.metrics[key] for key, title in SHOWN.items() if key in rounded.metrics},
        ),
        limits="This one has seen drawn scenes alone, never a photo: on photos it shows how the package works.",
    )


def _crowded_scene(split: EvalSplit) -> tuple[str, list[str]]:
    """The first scene of three classes or, where there is none, of the most; and their names."""
    best: tuple[str, list[str]] = (split.stems[0], [])
    for stem in split.stems:
        present = [label_names(split)[label] for label in np.unique(split.read_mask(stem)) if label > 0]
        if len(present) > len(best[1]):
            best = (stem, present)
        if len(present) >= 3:
            break
    return best


def make(checkpoint: str, voc: Path, name: str, out: Path, precision: Half = "fp16", history: str = "") -> str:
    """Write the folder and return what the card says of the results.

    Args:
        checkpoint: whatever ``load_model`` reads.
        voc: scenes in VOC layout, of the world that the model was trained on, with the splits val and test.
        name: of the model.
        out: the folder; an earlier one is replaced.
        precision: of the weights.
        history: what the recipe does not say of how the checkpoint came about, for the card.

    Raises:
        MixreorgError: an unusable checkpoint or folder of scenes, or a model that is too large.
    """
    val, test = open_voc_split(voc, "val"), open_voc_split(voc, "test")
    console = Console(stderr=True)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / name
        convert_model(checkpoint, folder, "native", precision=precision)
        _check_size(folder, checkpoint)
        first = measure(checkpoint, val, test, "original weights", console)
        second = measure(folder, val, test, f"weights in {precision}", console)
        facts = describe(name, test, first, second, precision, history)
        convert_model(checkpoint, folder, "native", precision=precision, facts=facts, overwrite=True)
        size = _check_size(folder, checkpoint)
        with folder_in_one_step(out) as finished:
            shutil.copytree(folder, finished, dirs_exist_ok=True)
    assert facts.results is not None
    lines = [f"{value:5.1f}  {title}" for title, value in facts.results.values.items()]
    return "\n".join([facts.results.what, *lines, f"{out}: {size / 1e6:.2f} MB"])


def _check_size(folder: Path, checkpoint: str) -> int:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        raise MixreorgError(
            f"{checkpoint} makes a folder of {size / 1e6:.1f} MB, and a bundled model has at most "
            f"{MAX_BYTES / 1e6:.0f}; train a smaller model or one with a smaller vocabulary"
        )
    return size


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", help="checkpoint, run or model folder")
    parser.add_argument("voc", type=Path, help="folder VOC of the scenes, with splits val and test")
    parser.add_argument("--name", choices=BUNDLED, default=BUNDLED[0])
    parser.add_argument("--out", type=Path, help="folder; default: among the package's data")
    parser.add_argument("--precision", choices=("fp16", "bf16"), default="fp16")
    parser.add_argument("--history", default="", help="sentence for the card: what the recipe does not say")
    arguments = parser.parse_args()
    out = arguments.out or Path(mixreorg.bundled.__file__).parent / arguments.name
    try:
        print(make(arguments.checkpoint, arguments.voc, arguments.name, out, arguments.precision, arguments.history))
    except MixreorgError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
