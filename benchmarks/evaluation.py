"""Zero-shot evaluation against a straightforward evaluator of the same protocol; memory, and the number of classes.

The straightforward evaluator takes one crop at a time, runs the encoder twice per crop (for assignments, then for
embeddings), and keeps masks of all groups and scores of all classes at pixel resolution. Its label maps must be ours.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from harness import median_seconds, print_environment, print_table, run_child
from mixreorg.eval.benchmarks.opening import open_benchmark
from mixreorg.eval.confusion import Confusion
from mixreorg.eval.embedding_cache import cached_class_embeddings
from mixreorg.eval.evaluate import evaluate_split
from mixreorg.eval.split import EvalSplit
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig
from mixreorg.segment.photos import read_photo
from mixreorg.segment.protocol import Protocol, groupvit_protocol
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.sliding_window import merge_windows
from mixreorg.segment.window_plan import plan_windows
from mixreorg.text.class_list import ClassName
from mixreorg.text.tokenizer import Tokenizer

THRESHOLD = 0.95
MEMORY_SIZE = (4000, 3000)


def build(name: str) -> DualEncoder:
    """A random model in fp32: ``vits``, the published architecture, or ``small``."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.clip()
    config = DualEncoderConfig()
    if name == "small":
        config = DualEncoderConfig(
            image=ImageEncoderConfig(width=128, num_heads=2, depths=(2, 1, 1)),
            text=TextEncoderConfig(width=128, depth=3, num_heads=2),
            embed_dim=128,
            projector_hidden=512,
        )
    return DualEncoder(config, tokenizer).eval()


class Straightforward:
    """One crop at a time, the encoder twice per crop, everything at pixel resolution."""

    def __init__(self, model: DualEncoder, protocol: Protocol, classes: list[ClassName]) -> None:
        self.segmenter = Segmenter(model, protocol)
        self.model, self.protocol = model, protocol
        self.embeddings, _ = self.segmenter.class_embeddings(classes)

    @torch.inference_mode()
    def label(self, photo: Image.Image, threshold: float) -> np.ndarray:
        """Labels ``[H, W]``, 0 for background."""
        plan = plan_windows(self.protocol, photo.width, photo.height)
        pixels = self.segmenter.prepare(photo, plan)
        total = torch.zeros(1 + len(self.embeddings), plan.height, plan.width)
        count = torch.zeros(plan.height, plan.width)
        for top, left, bottom, right in plan.boxes:
            total[:, top:bottom, left:right] += self.crop(pixels[None, :, top:bottom, left:right], threshold)
            count[top:bottom, left:right] += 1
        size = (photo.height, photo.width)
        resized = functional.interpolate((total / count)[None], size=size, mode="bilinear", align_corners=False)
        return resized[0].argmax(dim=0).numpy()

    def crop(self, crop: Tensor, threshold: float) -> Tensor:
        """Scores ``[1 + C, h, w]`` of one crop."""
        encoding = self.model.encode_image(crop).encoding
        maps = encoding.patch_assignment.reshape(1, -1, *encoding.grid)
        maps = functional.interpolate(maps, size=crop.shape[2:], mode="bilinear", align_corners=False)
        groups = functional.one_hot(maps[0].argmax(dim=0), maps.shape[1]).permute(2, 0, 1).float()
        output = self.model.encode_image(crop)
        scale = float(self.model.scale)
        logits = output.segment_embeddings[0] @ self.embeddings.T * scale
        image = output.image_embedding[0] @ self.embeddings.T * scale
        kept = image.argsort(descending=True, stable=True)[: self.protocol.shortlist]
        listed = torch.full_like(logits, -torch.inf)
        listed[:, kept] = logits[:, kept]
        scores = listed.softmax(dim=-1) * logits.softmax(dim=-1)
        pixel_scores = torch.einsum("sc,shw->chw", scores, groups)
        limit = min(threshold, float(scores.max()))
        background = (pixel_scores.amax(dim=0, keepdim=True) < limit).float()
        return torch.cat([background, pixel_scores])


def speed(model: DualEncoder, split: EvalSplit, window_batch: int, rounds: int) -> list[list[object]]:
    """Photos per second of both, and how many of their pixels differ."""
    protocol, classes = groupvit_protocol(), list(split.classes)
    slow, segmenter = Straightforward(model, protocol, classes), Segmenter(model, protocol, window_batch)
    segmenter.class_embeddings(classes)

    def straightforward() -> Confusion:
        confusion = Confusion(1 + len(classes))
        for stem in split.stems:
            confusion.add(split.read_mask(stem), slow.label(read_photo(split.photo_path(stem)), THRESHOLD))
        return confusion

    decided = Segmenter(model, protocol.updated(background_threshold=THRESHOLD), window_batch)

    def labels_alone() -> None:
        confusion = Confusion(1 + len(classes))
        photos = [read_photo(split.photo_path(stem)) for stem in split.stems]
        for stem, photo, output in zip(split.stems, photos, decided.encode_each(photos), strict=True):
            plan = plan_windows(protocol, photo.width, photo.height)
            merged = merge_windows(decided.decode(output, plan, classes), plan, photo.height, photo.width)
            confusion.add(split.read_mask(stem), merged.label_map.numpy())

    differing = pixels = 0
    for stem in split.stems:
        photo = read_photo(split.photo_path(stem))
        ours = decided(photo, classes).label_map
        differing += int((ours != slow.label(photo, THRESHOLD)).sum())
        pixels += ours.size
    same = (
        evaluate_split(segmenter, split, (THRESHOLD,)).background[THRESHOLD].matrix == straightforward().matrix
    ).all()
    times = median_seconds(
        {
            "straightforward": straightforward,
            "mixreorg, the same result": labels_alone,
            "mixreorg, as in training": lambda: evaluate_split(segmenter, split, (THRESHOLD,)),
            "mixreorg, with all measures": lambda: evaluate_split(
                segmenter, split, (THRESHOLD,), detail=True, threshold=THRESHOLD
            ),
        },
        rounds=rounds,
    )
    print(f"pixels that differ: {differing} of {pixels:,}; confusion matrices equal: {bool(same)}\n")
    base = times["straightforward"]
    return [[name, len(split.stems) / seconds, base / seconds] for name, seconds in times.items()]


def vocabulary(model: DualEncoder, split: EvalSplit, window_batch: int, rounds: int) -> list[list[object]]:
    """Time of labelling with 20 and with 1,000 class names, and of their embeddings with and without the cache."""
    names = [f"thing number {index}" for index in range(1000)]
    rows: list[list[object]] = []
    segmenters = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (20, 1000):
            classes = [ClassName(name) for name in names[:count]]
            seconds = []
            for _ in range(2):
                segmenter = Segmenter(model, groupvit_protocol().updated(background_threshold=THRESHOLD), window_batch)
                start = time.perf_counter()
                cached_class_embeddings(segmenter, classes, Path(folder))
                seconds.append(time.perf_counter() - start)
            segmenters[count] = (segmenter, classes)
            rows.append([count, *seconds])
    photos = [read_photo(split.photo_path(stem)) for stem in split.stems]

    def label(count: int) -> None:
        segmenter, classes = segmenters[count]
        for photo in photos:
            segmenter(photo, classes)

    times = median_seconds({str(count): lambda count=count: label(count) for count in segmenters}, rounds=rounds)
    for row in rows:
        row += [len(photos) / times[str(row[0])], times[str(row[0])] / times["20"]]
    return rows


def memory(name: str, num_classes: int) -> float:
    """Peak resident size in GB of a process that evaluates one large photo with all measures."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / part).mkdir(parents=True)
        photo = Image.fromarray(random.integers(0, 255, (75, 100, 3), dtype=np.uint8)).resize(MEMORY_SIZE)
        photo.save(root / "JPEGImages" / "large.jpg")
        mask = Image.fromarray(random.integers(0, min(num_classes, 200), (75, 100), dtype=np.uint8))
        mask.resize(MEMORY_SIZE, Image.Resampling.NEAREST).save(root / "SegmentationClass" / "large.png")
        (root / "ImageSets" / "Segmentation" / "val.txt").write_text("large\n")
        names = "".join(f"thing {index}\n" for index in range(num_classes))
        (root / "classes.txt").write_text(f"background\n{names}")
        command = [sys.executable, __file__, "--memory-of", folder, "--model", name]
        return float(json.loads(run_child(command))) / 2**20


def evaluate_large(folder: Path, name: str) -> None:
    """Evaluate the one photo of a folder and print the peak resident size in KB."""
    split = open_benchmark("voc_folder", folder)
    segmenter = Segmenter(build(name), groupvit_protocol())
    evaluate_split(segmenter, split, (THRESHOLD,), detail=True, threshold=THRESHOLD)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds VOC 2012")
    parser.add_argument("--model", choices=("small", "vits"), default="small")
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window-batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of is not None:
        evaluate_large(options.memory_of, options.model)
        return
    print_environment()
    model = build(options.model)
    split = open_benchmark("voc21", options.data, max_images=options.photos)
    print_table(["evaluator", "photos/s", "speed-up"], speed(model, split, options.window_batch, options.rounds))
    header = ["classes", "embed, s", "from the cache, s", "photos/s", "time / 20 classes"]
    print_table(header, vocabulary(model, split, options.window_batch, options.rounds))
    rows = [[f"{MEMORY_SIZE[0]} x {MEMORY_SIZE[1]}", count, memory(options.model, count)] for count in (20, 1000)]
    print_table(["photo", "classes", "peak, GB"], rows)


if __name__ == "__main__":
    main()
