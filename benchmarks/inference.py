"""Image encoder and class logits: eager and exported, against ``transformers``' GroupViT with the same weights."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from PIL import Image
from transformers import GroupViTConfig, GroupViTModel
from transformers import __version__ as transformers_version

from harness import median_seconds, print_environment, print_table, run_child
from mixreorg.export.backends import load_graph
from mixreorg.export.exporter import export_model
from mixreorg.export.manifest import SUFFIXES, Precision, Runtime
from mixreorg.export.runtime import BAKED_OUTPUTS, PIXELS
from mixreorg.interop.key_maps import from_hf
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import save_model
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.pixels import normalise
from mixreorg.segment.class_maps import decode_windows
from mixreorg.segment.segmenter import Segmenter
from mixreorg.text.class_list import flatten_phrases, parse_class_list
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.precision import has_bf16

CLASSES = parse_class_list(
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, motorbike, person, plant, "
    "sheep, sofa, train, monitor"
)
Variants = dict[str, Callable[[], object]]
THEIR_START = """
import sys
import numpy as np
import torch
from PIL import Image
from transformers import GroupViTModel
model = GroupViTModel.from_pretrained(sys.argv[1]).eval()
side = model.config.vision_config.image_size
photo = np.array(Image.open(sys.argv[2]).convert("RGB").resize((side, side)), dtype=np.float32)
pixels = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
ids = torch.tensor(eval(sys.argv[3]))
with torch.inference_mode():
    output = model(input_ids=ids, pixel_values=pixels, output_segmentation=True)
Image.fromarray(output.segmentation_logits[0].argmax(0).to(torch.uint8).numpy()).save(sys.argv[4])
"""


def models(side: int) -> tuple[GroupViTModel, DualEncoder]:
    """Two models of ViT-S size, of the same random weights, for images of ``side`` pixels."""
    torch.manual_seed(0)
    theirs = GroupViTModel(GroupViTConfig(vision_config={"image_size": side})).eval()
    ours = DualEncoder(DualEncoderConfig(image=ImageEncoderConfig(image_size=side)), Tokenizer.clip()).eval()
    ours.load_state_dict(from_hf(theirs.state_dict()))
    return theirs, ours


def prompts() -> torch.Tensor:
    """Token ids of the class prompts."""
    ids = Tokenizer.clip().encode([f"a photo of a {item.name}." for item in CLASSES])
    return ids[:, : int((ids == ids.max()).int().argmax(dim=1).max()) + 1]


def eager_variants(theirs: GroupViTModel, ours: DualEncoder, pixels: torch.Tensor) -> Variants:
    """Both in torch, with the texts encoded beforehand; class logits ``[B, C, H, W]`` each."""
    images, ids = normalise(pixels), prompts()
    texts = theirs.text_model(input_ids=ids)
    theirs.text_model.forward = lambda *args, **kwargs: texts
    embeddings, owners = Segmenter(ours).class_embeddings(CLASSES)
    size = (pixels.shape[-2], pixels.shape[-1])

    def run_theirs() -> torch.Tensor:
        return theirs(input_ids=ids, pixel_values=images, output_segmentation=True).segmentation_logits

    def run_ours() -> torch.Tensor:
        output = ours.encode_image(images)
        assignment, grid = output.encoding.patch_assignment, output.encoding.grid
        segments, scale = output.segment_embeddings, float(ours.scale)
        return decode_windows(
            assignment, grid, size, segments, output.image_embedding, embeddings, owners, logit_scale=scale
        ).expand()

    def in_bf16(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def run_in_bf16() -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return run()

        return run_in_bf16

    variants: Variants = {"transformers, fp32": run_theirs, "mixreorg, fp32": run_ours}
    if has_bf16("cpu"):
        variants |= {"transformers, bf16 autocast": in_bf16(run_theirs), "mixreorg, bf16 autocast": in_bf16(run_ours)}
    return variants


def export_variants(ours: DualEncoder, pixels: np.ndarray, folder: Path, threads: int) -> Variants:
    """Files with baked classes, for any size and for this size; class logits ``[B, C, H, W]`` each."""
    side = pixels.shape[-1]
    chosen: list[tuple[Runtime, Precision, bool]] = [
        ("onnx", "fp32", False),
        ("onnx", "int8", False),
        ("openvino", "fp32", False),
        ("openvino", "fp32", True),
        ("openvino", "int8", True),
    ]
    if has_bf16("cpu"):
        chosen.append(("openvino", "bf16", True))
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{number}.png")
    protocol = Segmenter(ours).protocol.updated(short_side=side, window=side, stride=side)
    variants: Variants = {}
    for to, precision, fixed in chosen:
        name = f"{to}, {precision}" + (", one size" if fixed else "")
        path = folder / f"{side}-{len(variants)}{SUFFIXES[to]}"
        export_model(
            ours,
            path,
            to,
            classes=CLASSES,
            size=(side, side) if fixed else None,
            precision=precision,
            photos=photos if precision == "int8" else None,
            protocol=protocol,
        )
        graph = load_graph(path, threads)

        def run(graph=graph) -> np.ndarray:  # noqa: ANN001  # bound now: the loop goes on
            segment_map, scores = graph.run(PIXELS, pixels, BAKED_OUTPUTS)
            pairs = zip(scores, segment_map, strict=True)
            return np.stack([np.take(rows, segments, axis=0) for rows, segments in pairs]).transpose(0, 3, 1, 2)

        variants[name] = run
    return variants


def speed(rounds: int, threads: int, batch: int) -> None:
    """Print images per second at both sizes."""
    rows: list[list[object]] = []
    for side in (224, 448):
        theirs, ours = models(side)
        pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
        with tempfile.TemporaryDirectory() as folder:
            variants = export_variants(ours, pixels.numpy(), Path(folder), threads)
            with torch.inference_mode():
                variants = eager_variants(theirs, ours, pixels) | variants
                seconds = median_seconds(variants, rounds)
        base = seconds["transformers, fp32"]
        rows += [[side, name, 1000 * value / batch, base / value] for name, value in seconds.items()]
    print_table(["px", "variant", "ms per image", "speed-up"], rows)


def start_up(rounds: int) -> None:
    """Print how long a new process takes until the first mask is on disk."""
    theirs, ours = models(224)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        theirs.save_pretrained(folder / "theirs")
        save_model(ours, folder / "ours")
        Image.effect_noise((300, 224), 80).convert("RGB").save(folder / "photo.jpg")
        for to in ("onnx", "openvino"):
            export_model(ours, folder / to, to)
        photo, classes = str(folder / "photo.jpg"), ", ".join(item.name for item in CLASSES)
        ids = str(prompts().tolist())
        their_command = ["-c", THEIR_START, str(folder / "theirs"), photo, ids, str(folder / "mask.png")]
        commands = {"transformers": their_command}
        # One window of 224 pixels, as theirs; ours also draws the overlay and writes JSON.
        options = ["--classes", classes, "--short-side", "224", "--whole", "--out", str(folder / "masks")]
        for label, model in (("mixreorg segment, torch", "ours"), ("onnx", "onnx"), ("openvino", "openvino")):
            commands[label] = ["-m", "mixreorg", "segment", photo, "--model", str(folder / model), *options]
        times: dict[str, list[float]] = {label: [] for label in commands}
        for number in range(rounds + 1):
            for label, command in commands.items():
                start = time.perf_counter()
                run_child([sys.executable, *command])
                if number:
                    times[label].append(time.perf_counter() - start)
    medians = {label: statistics.median(values) for label, values in times.items()}
    print_table(
        ["process", "seconds to the first mask", "speed-up"],
        [[label, value, medians["transformers"] / value] for label, value in medians.items()],
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--part", choices=("all", "speed", "start-up"), default="all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_environment()
    print(
        f"transformers {transformers_version}, onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}"
    )
    print(f"batch {arguments.batch}, {len(flatten_phrases(CLASSES)[0])} classes\n")
    if arguments.part != "start-up":
        speed(arguments.rounds, arguments.threads, arguments.batch)
    if arguments.part != "speed":
        start_up(min(arguments.rounds, 5))


if __name__ == "__main__":
    main()
