"""What the precisions of an export cost: foreground mIoU of exported files on a split, against the model in torch."""

import argparse
import tempfile
import time
from pathlib import Path

import onnxruntime
import openvino

from harness import print_environment, print_table
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.confusion import Confusion
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.export.exporter import export_model
from mixreorg.export.manifest import PRECISIONS, Runtime
from mixreorg.export.runtime import ExportedSegmenter
from mixreorg.interop.loading import load_model
from mixreorg.segment.photos import read_photo
from mixreorg.segment.results import Segmentation
from mixreorg.segment.segmenter import Segmenter


def segment_all(
    segmenter: Segmenter | ExportedSegmenter, split: BenchmarkSplit
) -> tuple[list[Segmentation], float, float]:
    """Results of every photo, their foreground mIoU in percent, and milliseconds per photo."""
    classes = split.classes
    table = Confusion(len(classes))
    results, seconds = [], 0.0
    for stem in split.stems:
        photo, mask = read_photo(split.photo_path(stem)), split.read_mask(stem)
        start = time.perf_counter()
        result = segmenter(photo, classes)
        seconds += time.perf_counter() - start
        table.add(mask - 1, result.label_map)
        results.append(result)
    return results, table.miou(), 1000 * seconds / len(split.stems)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("voc", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=None)
    arguments = parser.parse_args()
    print_environment()
    print(f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}\n")
    split = open_voc_split(arguments.voc, arguments.split, arguments.limit)
    model = load_model(arguments.model)
    protocol = Segmenter(model).protocol.updated(background_threshold=None)
    expected, base, milliseconds = segment_all(Segmenter(model, protocol), split)
    rows: list[list[object]] = [["torch, fp32", f"{base:.2f}", "", "", f"{milliseconds:.1f}", ""]]
    targets: tuple[Runtime, ...] = ("onnx", "openvino")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Calibrated on photos of the validation split, measured on another.
        photos = folder / "photos"
        photos.mkdir()
        calibration = open_voc_split(arguments.voc, "val", 100)
        for stem in calibration.stems:
            path = calibration.photo_path(stem)
            (photos / path.name).symlink_to(path.resolve())
        for to in targets:
            for precision in PRECISIONS:
                out = folder / f"{to}-{precision}"
                written = export_model(
                    model,
                    out,
                    to,
                    precision=precision,
                    protocol=protocol,
                    photos=photos if precision == "int8" else None,
                )
                size = sum(item.stat().st_size for item in written if item.stem == "image") / 1e6
                found, miou, milliseconds = segment_all(ExportedSegmenter(out), split)
                equal = [(a.label_map == b.label_map).mean() for a, b in zip(expected, found, strict=True)]
                differing = 100 * (1 - sum(equal) / len(equal))
                cells = [f"{miou:.2f}", f"{miou - base:+.2f}", f"{differing:.4f}", f"{milliseconds:.1f}", f"{size:.1f}"]
                rows.append([f"{to}, {precision}", *cells])
    print_table(["variant", "mIoU, %", "loss", "pixels that differ, %", "ms per photo", "image graph, MB"], rows)


if __name__ == "__main__":
    main()
