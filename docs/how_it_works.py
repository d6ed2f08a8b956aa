"""The pictures of the page on how MixReorg works, from a trained model and scenes it has not seen."""

import textwrap
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from mixreorg.demo.pictures import MixingRow, mixing_groups, spread_stems
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.mixed_masks import held_out_pairs
from mixreorg.files import read_json
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.source_index import draw_source_index
from mixreorg.randomness import sample_keys
from mixreorg.segment.drawing import contact_sheet
from mixreorg.segment.explain import explain
from mixreorg.segment.explain_picture import group_panels
from mixreorg.segment.segmenter import Segmenter
from mixreorg.train.config import TrainConfig
from training_step import BLUE, GREEN, GREY, INK, ORANGE, SOFT, Box, draw_arrow, draw_boxes

COLUMNS = (
    ("original", "with its caption"),
    ("mixed (a)", "number = source image"),
    ("mixed mask", "the target, known for free"),
    ("predicted", "by the trained model"),
    ("restored (c)", "patches back in place"),
)


def draw_branches() -> Figure:
    """The three branches of training: what each does with the patch tokens, and the loss at its end."""
    figure = Figure(figsize=(12.4, 6.0), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 124), ylim=(3, 63))
    axes.set_axis_off()
    _lanes(axes)
    images = Box(10, 49, 12, 8, "images", "B, whole")
    context = Box(26, 49, 17, 8, "patch embedding", "and Lc contextual blocks")
    original = Box(51, 49, 17, 8, "rest of stage 1", "original features")
    mixing = Box(26, 29, 17, 8, "contextual mixing", "(a)  equation (4)")
    mixed = Box(51, 29, 17, 8, "rest of stage 1", "(b)  equation (5)")
    restoration = Box(51, 9, 17, 8, "mixing restoration", "(c)  equation (6)")
    losses = (
        Box(96, 49, 15, 8, "contrastive", "equation (7)"),
        Box(96, 29, 15, 8, "mixed mask", "equation (8)"),
        Box(96, 9, 15, 8, "contrastive", "equation (7)"),
    )
    draw_boxes(axes, BLUE, images, context, original, losses[0])
    draw_boxes(axes, ORANGE, mixing, mixed, losses[1])
    draw_boxes(axes, GREEN, restoration, losses[2])
    grouping = Box(74, 7, 16, 52, "the same grouping", "for all three")
    text = Box(115, 7, 7, 52, "")
    draw_boxes(axes, GREY, grouping, text)
    axes.text(
        118.5,
        33,
        "text encoder: captions",
        color=INK,
        fontsize=10,
        weight="bold",
        rotation=90,
        ha="center",
        va="center",
    )
    steps = "grouping block 1\nstage 2\ngrouping block 2\nstage 3"
    axes.text(82, 23, steps, color=SOFT, fontsize=9, ha="center", va="center", linespacing=1.6)
    for start, end in ((images, context), (context, original), (mixing, mixed)):
        draw_arrow(axes, start.right(), end.left())
    for start, end in ((context, mixing), (original, mixed), (mixed, restoration)):
        draw_arrow(axes, start.below(), end.above())
    for box, loss in zip((original, mixed, restoration), losses, strict=True):
        middle = box.right()[1]
        draw_arrow(axes, box.right(), (grouping.x, middle))
        draw_arrow(axes, (grouping.right()[0], middle), loss.left())
        draw_arrow(axes, (text.x, middle), loss.right())
    for x, note in (
        (35.2, "source index s\nis drawn"),
        (60.2, "before each block:\nMix(X_orig, s)"),
    ):
        axes.text(x, 43, note, color=SOFT, fontsize=8.8, va="center")
    axes.text(60.2, 23, "patches go back\nto their places", color=SOFT, fontsize=8.8, va="center")
    return figure


def _lanes(axes: Axes) -> None:
    lanes = (
        (45, BLUE, "original", "all there is at test time"),
        (25, ORANGE, "mixed", "training only"),
        (5, GREEN, "restored", "training only"),
    )
    for y, color, title, note in lanes:
        axes.add_patch(
            FancyBboxPatch((1, y), 112, 16, boxstyle="round,pad=0,rounding_size=1", fc=color, ec="none", alpha=0.1)
        )
        axes.text(3, y + 8, title, color=color, fontsize=11, weight="bold", rotation=90, ha="center", va="center")
        axes.text(6, y + 8, note, color=color, fontsize=8.6, rotation=90, ha="center", va="center")


def draw_mixing(model: DualEncoder, config: MixReorgConfig, voc: Path) -> Figure:
    """The first mixing group of the test scenes: originals, mixed images, masks, predictions, restored images."""
    pairs = held_out_pairs(voc, "test", config.group_size)
    rows = mixing_groups(MixReorgObjective(model, config), pairs)[0]
    keys = sample_keys(0, torch.arange(len(pairs)))
    source = draw_source_index(keys, model.config.image.grid, config.group_size, config.block).source
    units = source.view(len(pairs), *model.config.image.grid)[:, :: config.block, :: config.block].numpy()
    figure = Figure(figsize=(12.4, 0.55 + 2.2 * len(rows)), facecolor="white")
    grid = figure.subplots(
        len(rows),
        1 + len(COLUMNS),
        gridspec_kw={"width_ratios": [0.85] + [1] * len(COLUMNS)},
    )
    figure.subplots_adjust(
        left=0.01, right=0.995, top=1 - 0.62 / figure.get_figheight(), bottom=0.035, wspace=0.05, hspace=0.12
    )
    for place, (row, axes) in enumerate(zip(rows, grid, strict=True)):
        _caption(axes[0], place, row)
        pictures = (row.original, row.mixed, row.source_mask, row.predicted_mask, row.restored)
        for axis, picture in zip(axes[1:], pictures, strict=True):
            axis.imshow(picture)
            axis.set_axis_off()
        _number_units(axes[2], units[place], row.mixed)
        axes[4].text(
            0.5,
            -0.02,
            f"{row.accuracy:.0%} of patches right",
            transform=axes[4].transAxes,
            color=SOFT,
            fontsize=9.5,
            ha="center",
            va="top",
        )
    for axis, (title, note) in zip(grid[0][1:], COLUMNS, strict=True):
        axis.text(0.5, 1.17, title, transform=axis.transAxes, color=INK, fontsize=13, weight="bold", ha="center")
        axis.text(0.5, 1.05, note, transform=axis.transAxes, color=SOFT, fontsize=10, ha="center")
    return figure


def _caption(axis: Axes, place: int, row: MixingRow) -> None:
    color = tuple(channel / 255 for channel in row.color)
    ink = INK if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 0.5 else "white"
    axis.set_axis_off()
    axis.text(
        0.02,
        0.9,
        f" {place + 1} ",
        color=ink,
        fontsize=15,
        weight="bold",
        va="top",
        bbox={"facecolor": color, "edgecolor": "none", "boxstyle": "square,pad=0.25"},
    )
    axis.text(0.02, 0.66, "\n".join(textwrap.wrap(row.caption, 19)), color=INK, fontsize=11, va="top", linespacing=1.3)


def _number_units(axis: Axes, sources: np.ndarray, picture: Image.Image) -> None:
    """Write on every mixing unit which image of the group it came from."""
    rows, columns = sources.shape
    for y in range(rows):
        for x in range(columns):
            axis.text(
                (x + 0.5) * picture.width / columns,
                (y + 0.5) * picture.height / rows,
                str(sources[y, x] + 1),
                color=INK,
                fontsize=9,
                weight="bold",
                ha="center",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "boxstyle": "circle,pad=0.15"},
            )


def draw_grouping(segmenter: Segmenter, split: BenchmarkSplit, count: int = 3) -> Image.Image:
    """Scenes at equal distances over a split: photo, groups of both stages, names."""
    rows = []
    for stem in spread_stems(split, count):
        explanation = explain(segmenter, split.photo_path(stem), split.class_names)
        rows.append(group_panels(explanation, side=256))
    return contact_sheet(rows, cell_size=256)


def draw_decoding(segmenter: Segmenter, split: BenchmarkSplit) -> Image.Image:
    """The whole explanation of one scene, in the middle of a split."""
    stem = spread_stems(split, 2)[1]
    return explain(segmenter, split.photo_path(stem), split.class_names).picture(f"{stem}.jpg")


def mixing_config(run: Path) -> MixReorgConfig:
    """The objective that a run was trained with."""
    config = TrainConfig.from_dict(read_json(run / "train_config.json"), source="the run").objective
    assert isinstance(config, MixReorgConfig)
    return config
