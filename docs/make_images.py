"""Make the pictures of the README and of these pages from a finished demonstration and two emoji packages.

npm pack @iconify-json/noto @iconify-json/twemoji
for name in noto twemoji; do mkdir $name; tar xf iconify-json-$name-*.tgz -C $name --strip-components 1; done
python docs/make_images.py demo noto twemoji
"""

import argparse
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gradient_cache import draw_gradient_cache
from honest_masks import draw_honest_masks
from how_it_works import draw_branches, draw_decoding, draw_grouping, draw_mixing, mixing_config
from mixreorg.data.rand_augment import RandAugmentConfig, rand_augment_stages
from mixreorg.data.scenes import easy, generate_scenes, hard, transfer
from mixreorg.data.scenes.compose import SceneComposer
from mixreorg.data.transforms import ImageTransformConfig, augment, random_view
from mixreorg.demo.pictures import segmentation_rows, spread_stems
from mixreorg.eval.evaluate import read_pair
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.files import read_json
from mixreorg.interop.loading import load_model
from mixreorg.models.pixels import IMAGE_MEAN, IMAGE_STD
from mixreorg.palette import class_colors
from mixreorg.randomness import numpy_generator, sample_keys
from mixreorg.segment.drawing import contact_sheet, draw_overlay
from mixreorg.segment.photos import read_photo
from mixreorg.segment.segmenter import Segmenter, default_protocol
from mixreorg.serve.page import EXAMPLES
from mixreorg.video.smoothing import DEFAULT_SMOOTHING, FrameLabeller
from page_picture import draw_page
from training_step import draw_training_step

IMAGES = Path(__file__).parent / "images"
RESULTS = Path(__file__).parent / "results"


def segmentation(demo: Path) -> None:
    """Eight test scenes, two per row: photo, groups, prediction, truth."""
    split = open_voc_split(demo / "scenes" / "VOC", "test")
    threshold = read_json(demo / "report.json")["background_threshold"]
    rows = segmentation_rows(Segmenter(load_model(demo / "run")), split, spread_stems(split, 8), threshold)
    cells = [
        [("photo", row.photo), ("groups", row.groups), ("prediction", row.prediction), ("truth", row.truth)]
        for row in rows
    ]
    sheet = contact_sheet([left + right for left, right in zip(cells[::2], cells[1::2], strict=True)], cell_size=128)
    sheet.save(IMAGES / "demo_segmentation.png", optimize=True)


def honest_masks(demo: Path) -> None:
    """Three test scenes, asked for names that are not in them."""
    val, test = (open_voc_split(demo / "scenes" / "VOC", name) for name in ("val", "test"))
    picture = draw_honest_masks(Segmenter(load_model(demo / "run")), val, test, tuple(spread_stems(test, 3)))
    picture.save(IMAGES / "honest_masks.png", optimize=True)


def scenes(demo: Path) -> None:
    """Contact sheets of the easy and the hard preset."""
    shutil.copyfile(demo / "scenes" / "contact_sheet.png", IMAGES / "scenes_easy.png")
    with tempfile.TemporaryDirectory() as folder:
        made = generate_scenes(hard(), Path(folder) / "scenes", 60, 10, 20)
        shutil.copyfile(made / "contact_sheet.png", IMAGES / "scenes_hard.png")


def other_pictures(noto: Path, twemoji: Path) -> None:
    """The same test scenes, as easy draws them and in each of its transfer worlds."""
    worlds = {"easy": easy(), **transfer("easy", {"Noto Emoji": noto, "Twemoji": twemoji})}
    rows = []
    for name in ("easy", "Noto Emoji", "Twemoji", "twice the resolution", "more objects"):
        composer = SceneComposer(worlds[name])
        images = [Image.fromarray(composer.compose("test", index).image) for index in range(8)]
        rows.append([(name if not index else "", image) for index, image in enumerate(images)])
    contact_sheet(rows, cell_size=128).save(IMAGES / "scenes_transfer.png", optimize=True)


def augmentation() -> None:
    """A scene, and eleven visits to it with crop, flip, RandAugment, colour jitter and erasing of the recipe."""
    rand_augment = RandAugmentConfig()
    config = ImageTransformConfig(rand_augment=rand_augment, erase_probability=0.25)
    with tempfile.TemporaryDirectory() as folder:
        made = generate_scenes(hard().updated(image_size=448, seed=3), Path(folder) / "scenes", 12, 12, 12)
        scene = sorted((made / "VOC" / "JPEGImages").iterdir())[4].read_bytes()
    keys = sample_keys(33, torch.arange(11))
    views = [random_view(config, numpy_generator(33, visit)).decode(scene) for visit in range(11)]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    levels = (augment(torch.stack(views), keys, config) * std + mean) * 255
    visible = levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    drawn = zip(*(stage.operations for stage in rand_augment_stages(keys, rand_augment)), strict=True)
    titles = [" + ".join(item.__name__.replace("_", " ") for item in visit if item) or "-" for visit in drawn]
    cells = [("scene", Image.open(io.BytesIO(scene)))]
    cells += [(title, Image.fromarray(picture.numpy())) for title, picture in zip(titles, visible, strict=True)]
    contact_sheet([cells[:6], cells[6:]], cell_size=160).save(IMAGES / "augmentation.png", optimize=True)


def how_it_works(run: Path, voc: Path, threshold: float) -> None:
    """The branches of training; mixing, grouping and decoding of test scenes by a trained model.

    Args:
        run: of MixReorg, on scenes.
        voc: the scenes' folder in VOC layout.
        threshold: background threshold, chosen on the validation split.
    """
    split, model = open_voc_split(voc, "test"), load_model(run)
    segmenter = Segmenter(model, default_protocol(model).updated(background_threshold=threshold))
    figures = {"how_branches": draw_branches(), "how_mixing": draw_mixing(model, mixing_config(run), voc)}
    for name, figure in figures.items():
        figure.savefig(IMAGES / f"{name}.png", dpi=100, pil_kwargs={"optimize": True})
    draw_grouping(segmenter, split).save(IMAGES / "how_grouping.png", optimize=True)
    draw_decoding(segmenter, split).save(IMAGES / "how_decoding.png", optimize=True)


FINER_SCENES = (1, 2, 4, 5, 7, 10)
"""Test scenes of the picture of finer masks."""


def finer_masks(run: Path, threshold: float) -> None:
    """Test scenes at 224 px: photo, truth, and the labels with each option of finer masks."""
    model = load_model(run)
    base = default_protocol(model).updated(background_threshold=threshold)
    options: dict[str, dict[str, object]] = {
        "plain": {},
        "flip": {"flip": True},
        "tiles 1.5": {"tile_scales": (1.5,)},
        "tiles, merged": {"tile_scales": (1.5,), "segment_similarity": 0.9},
        "guided": {"refine": "guided"},
        "pamr": {"refine": "pamr"},
        "short side 96, pamr": {"short_side": 96, "refine": "pamr"},
    }
    world = easy().updated(image_size=224)
    composer, names = SceneComposer(world), world.classes
    colors = class_colors(len(names) + 1, has_background=True)
    rows = []
    for index in FINER_SCENES:
        scene = composer.compose("test", index)
        photo = Image.fromarray(scene.image)
        row = [("photo", photo), ("truth", draw_overlay(photo, scene.label_map, colors, clear_index=0))]
        for title, changes in options.items():
            result = Segmenter(model, base.updated(**changes))(photo, names)
            row.append((title, draw_overlay(photo, result.label_map, result.colors, clear_index=0)))
        rows.append(row)
    contact_sheet(rows, cell_size=160).save(IMAGES / "finer_masks.png", optimize=True)


def video_smoothing(demo: Path) -> None:
    """Frames of a still scene with noise, the labels of each alone, and those of averaged scores."""
    segmenter = Segmenter(load_model(demo / "run"))
    segmenter.protocol = segmenter.protocol.updated(background_threshold=None)
    split = open_voc_split(demo / "scenes" / "VOC", "val")
    photo, _ = read_pair(split, spread_stems(split, 8)[4])
    random = np.random.default_rng(0)
    pixels = np.asarray(photo).astype(np.float64)
    noisy = (pixels + random.normal(0, 20, pixels.shape) for _ in range(12))
    frames = [Image.fromarray(values.clip(0, 255).round().astype(np.uint8)) for values in noisy]
    rows = [[("frame", frame) for frame in frames]]
    for title, smoothing in (("alone", 0.0), ("smoothed", DEFAULT_SMOOTHING)):
        labeller = FrameLabeller(segmenter, split.classes, smoothing)
        labelled = [(frame, labeller(frame)) for frame in frames]
        rows.append([(title, draw_overlay(frame, item.label_map, item.colors)) for frame, item in labelled])
    contact_sheet([row[5:] for row in rows], cell_size=128).save(IMAGES / "video_smoothing.png", optimize=True)


def training_step() -> None:
    """The data flow of one training step."""
    draw_training_step().savefig(IMAGES / "training_step.png", dpi=200, pil_kwargs={"optimize": True})


def gradient_cache() -> None:
    """Memory and time of a step by chunk and activation checkpointing, as measured last."""
    figure = draw_gradient_cache(read_json(RESULTS / "gradient_cache.json"))
    figure.savefig(IMAGES / "gradient_cache.png", dpi=150, pil_kwargs={"optimize": True})


def page_examples() -> None:
    """The scenes that README and the page of `mixreorg serve` offer, and what the bundled model finds in the first.

    It does well on these. Of the 48 among the first 120 test scenes that hold several things, it finds each thing of a
    scene with an IoU of 0.61, 0.50 and 0.37 or more on these three; the median is 0.12.
    """
    composer = SceneComposer(easy().updated(image_size=256))
    for number, index in enumerate((90, 30, 97), start=1):
        scene = Image.fromarray(composer.compose("test", index).image)
        scene.save(EXAMPLES / f"scene_{number}.jpg", quality=90, optimize=True)
    photo = read_photo(EXAMPLES / "scene_1.jpg")
    segmentation = Segmenter(load_model("scenes-tiny"))(photo, "horse, book, clock, bus", background="auto")
    overlay = segmentation.overlay(photo)
    both = Image.new("RGB", (photo.width + overlay.width + 16, overlay.height), "white")
    both.paste(photo, (0, 0))
    both.paste(overlay, (photo.width + 16, 0))
    both.quantize(128).save(IMAGES / "segment.png", optimize=True)


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of a finished `mixreorg demo`")
    parser.add_argument("noto", type=Path, help="folder of Iconify's package of Noto Emoji")
    parser.add_argument("twemoji", type=Path, help="folder of Iconify's package of Twemoji")
    arguments = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    segmentation(arguments.demo)
    honest_masks(arguments.demo)
    scenes(arguments.demo)
    other_pictures(arguments.noto, arguments.twemoji)
    augmentation()
    threshold = read_json(arguments.demo / "report.json")["background_threshold"]
    how_it_works(arguments.demo / "run", arguments.demo / "scenes" / "VOC", threshold)
    finer_masks(arguments.demo / "run", threshold)
    video_smoothing(arguments.demo)
    training_step()
    gradient_cache()
    page_examples()
    draw_page(IMAGES / "serve.png")


if __name__ == "__main__":
    main()
