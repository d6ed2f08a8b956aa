"""Smoothing of videos: flicker and accuracy by weight of the past, and memory after 100 and after 1,000 frames.

Clips are made of scenes of a split with masks (of validation: the default is chosen by this table): each stands still,
or moves sideways, for some frames with new noise in every one. Flicker is the share of pixels whose label changes from
one frame to the next; accuracy the share of the objects' pixels with the right label, the first frames left out.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from batches import resident_mb
from harness import print_environment, print_table
from mixreorg.demo.pictures import spread_stems
from mixreorg.eval.evaluate import read_pair
from mixreorg.eval.split import EvalSplit, class_labels
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import ImageOutput
from mixreorg.segment.segmenter import Segmenter
from mixreorg.video.container import VideoReader, VideoWriter
from mixreorg.video.run import VideoJob, segment_video
from mixreorg.video.smoothing import DEFAULT_SMOOTHING, FrameLabeller

Pixels = npt.NDArray[np.integer]
SMOOTHING = (0.0, 0.5, 0.7, 0.8, 0.9)
STEPS = {"still": 0, "1 px/frame": 1, "3 px/frame": 3}
NUM_FRAMES, WARM_UP, NOISE = 12, 4, 20.0


def clip(
    photo: Image.Image, labels: Pixels, num_frames: int, noise: float, step: int
) -> Iterator[tuple[Image.Image, Pixels]]:
    """Noisy frames and their labels, moved by ``step`` pixels per frame; what leaves one side comes in at the other."""
    random = np.random.default_rng(0)
    pixels = np.asarray(photo).astype(np.float64)
    for number in range(num_frames):
        moved, truth = (np.roll(values, number * step, axis=1) for values in (pixels, labels))
        noisy = moved + random.normal(0, noise, pixels.shape)
        yield Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)), truth


class EncodesOnce(Segmenter):
    """Encodes a frame once, however many labellers ask for it."""

    frame: Image.Image | None = None
    output: ImageOutput

    def encode(self, images: Sequence[Image.Image]) -> ImageOutput:
        if images[0] is not self.frame:
            self.frame, self.output = images[0], super().encode(images)
        return self.output


def measure(segmenter: Segmenter, split: EvalSplit, stems: list[str], step: int) -> dict[float, list[float]]:
    """Flicker and accuracy in percent by smoothing."""
    counted: dict[float, list[tuple[float, float]]] = {smoothing: [] for smoothing in SMOOTHING}
    for stem in stems:
        photo, mask = read_pair(split, stem)
        labels = class_labels(split, mask)
        labellers = {smoothing: FrameLabeller(segmenter, split.classes, smoothing) for smoothing in SMOOTHING}
        before: dict[float, Pixels] = {}
        for number, (image, truth) in enumerate(clip(photo, labels, NUM_FRAMES, NOISE, step)):
            for smoothing, labeller in labellers.items():
                found = labeller(image).label_map
                if number >= WARM_UP:
                    right = float(np.mean(found[truth >= 0] == truth[truth >= 0]))
                    counted[smoothing].append((float(np.mean(found != before[smoothing])), right))
                before[smoothing] = found
    return {smoothing: [100 * float(value) for value in np.mean(pairs, axis=0)] for smoothing, pairs in counted.items()}


def memory(segmenter: Segmenter, split: EvalSplit, num_frames: int) -> None:
    """Print resident memory as the frames of one file pass."""
    photo, mask = read_pair(split, split.stems[0])
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = VideoWriter(folder / "clip.mp4", Fraction(25))
        large = photo.resize((160, 120))
        for number, (image, _) in enumerate(clip(large, np.asarray(mask), num_frames, 10.0, 1)):
            writer.add(image, number / 25)
        writer.close()
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if done in (1, 100, 500, 1000):
                rows.append([f"{done:,}", round(resident_mb())])

        job = VideoJob(FrameLabeller(segmenter, split.classes), folder / "out", "clip")
        with closing(VideoReader(str(folder / "clip.mp4"))) as reader:
            segment_video(reader, job, {}, advance)
    print_table(["frames done", "resident memory, MB"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="trained on the scenes")
    parser.add_argument("scenes", type=Path, help="folder in VOC layout")
    parser.add_argument("--split", default="val")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--frames", type=int, default=1000, help="for memory")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_environment()
    segmenter = EncodesOnce(load_model(arguments.model))
    segmenter.protocol = segmenter.protocol.updated(background_threshold=None)
    split = open_voc_split(arguments.scenes, arguments.split)
    stems = spread_stems(split, arguments.clips)
    measured = {how: measure(segmenter, split, stems, step) for how, step in STEPS.items()}
    rows: list[list[object]] = []
    for smoothing in SMOOTHING:
        name = f"{smoothing}" + (" (default)" if smoothing == DEFAULT_SMOOTHING else "")
        rows.append([name, *(value for values in measured.values() for value in values[smoothing])])
    columns = [f"{what}, {how}" for how in STEPS for what in ("flicker %", "accuracy %")]
    print_table(["smoothing", *columns], rows)
    memory(segmenter, split, arguments.frames)


if __name__ == "__main__":
    main()
