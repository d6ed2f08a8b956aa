"""The picture of one training step on the page about training: what happens where, and what is keyed by what."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, ORANGE, GREEN, GREY = "#2f7fd6", "#e07b1a", "#2e9e63", "#5b6470"
INK, SOFT = "#1c232b", "#4a525c"
WIDTH, HEIGHT = 90.0, 90.0
KEYS = 69.0


@dataclass(frozen=True)
class Box:
    """A box with a title and what happens in it; sizes in tenths of an inch, from the lower left corner."""

    x: float
    y: float
    width: float
    height: float
    title: str
    text: str = ""

    def below(self, at: float = 0.5) -> tuple[float, float]:
        return self.x + at * self.width, self.y

    def above(self, at: float = 0.5) -> tuple[float, float]:
        return self.x + at * self.width, self.y + self.height

    def left(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    def right(self) -> tuple[float, float]:
        return self.x + self.width, self.y + self.height / 2


def draw_training_step() -> Figure:
    """The data flow of one step with the complete method, from shards to new weights."""
    figure = Figure(figsize=(WIDTH / 10, HEIGHT / 10), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.set_axis_off()
    axes.text(KEYS, 87.2, "random draws keyed by", color=INK, fontsize=10, weight="bold")
    losses = _losses(axes, _encoding(axes, _reading(axes)))
    _update(axes, losses)
    return figure


def _reading(axes: Axes) -> Box:
    _band(axes, 69.4, 16.6, BLUE, "reading processes", "each pair on its own")
    shards = Box(7.5, 79.2, 17.5, 5.6, "shards, indexes", "local, or cached copies")
    order = Box(28, 79.2, 17.5, 5.6, "order of the pairs", "one for all processes")
    share = Box(48.5, 79.2, 16.5, 5.6, "this step's share", "by process number")
    image = Box(7.5, 70.6, 38, 5.6, "decode, crop, resize, flip", "images [B, 3, S, S], uint8")
    text = Box(48.5, 70.6, 16.5, 5.6, "tokenize", "token ids [B, L]")
    draw_boxes(axes, BLUE, shards, order, share, image, text)
    draw_arrow(axes, shards.right(), order.left())
    draw_arrow(axes, order.right(), share.left())
    draw_arrow(axes, share.below(), text.above())
    draw_arrow(axes, share.below(0.1), image.above(0.9))
    _key(axes, 82.0, "(seed, epoch)", "the order")
    _key(axes, 73.4, "(seed, epoch, pair)", "crop and flip")
    return image


def _encoding(axes: Axes, batch: Box) -> Box:
    _band(axes, 41, 26, ORANGE, "training process, on its device", "its own share of the batch")
    augment = Box(7.5, 60.2, 38, 5.6, "RandAugment, jitter, normalise, erase", "in batches, float32")
    chunks = Box(6.5, 48.6, 59.5, 9.4, "")
    original = Box(7.5, 49.6, 12.5, 5.6, "original", "whole images")
    mixed = Box(22, 49.6, 12.5, 5.6, "mixed", "of K images")
    restored = Box(36.5, 49.6, 12.5, 5.6, "restored", "in place again")
    text = Box(51, 49.6, 14, 5.6, "text encoder", "captions")
    features = Box(7.5, 42.2, 57.5, 4.4, "features, one row per image")
    axes.add_patch(_patch(chunks, ORANGE, style="dashed"))
    note = "three branches of one image encoder; chunk by chunk, without a graph"
    axes.text(7.8, 56.5, note, color=SOFT, fontsize=8.8, style="italic", va="center")
    draw_boxes(axes, ORANGE, augment, original, mixed, restored, text, features)
    draw_arrow(axes, batch.below(), augment.above())
    draw_arrow(axes, augment.below(), (augment.below()[0], chunks.above()[1]))
    draw_arrow(axes, (58, batch.y), (58, chunks.above()[1]))
    draw_arrow(axes, original.right(), mixed.left())
    draw_arrow(axes, mixed.right(), restored.left())
    for box in (original, mixed, restored, text):
        draw_arrow(axes, box.below(), (box.below()[0], features.above()[1]))
    _key(axes, 63.0, "(seed, visit)", "every operation;", "a visit is (epoch, pair)")
    _key(axes, 52.4, "(seed, visit)", "gumbel noise, drop path;", "mixing: the group's first visit")
    return features


def _losses(axes: Axes, features: Box) -> Box:
    _band(axes, 18.2, 20.4, GREEN, "global batch", "the rows of everybody")
    gather = Box(7.5, 31.8, 38, 5.6, "gather over processes", "text, original, restored; gradients flow back")
    own = Box(48.5, 31.8, 16.5, 5.6, "mixed segments", "stay in their process")
    project = Box(7.5, 25.4, 57.5, 4.4, "projectors: BatchNorm over the global batch; unit length")
    losses = Box(7.5, 19.4, 57.5, 4, "contrastive  +  w · restored  +  w · mixed masks")
    draw_boxes(axes, GREEN, gather, own, project, losses)
    for box in (gather, own):
        draw_arrow(axes, (box.above()[0], features.y), box.above())
        draw_arrow(axes, box.below(), (box.below()[0], project.above()[1]))
    draw_arrow(axes, project.below(), losses.above())
    _key(axes, 28.0, "nothing is drawn", "mixed segments: by BatchNorm's", "running statistics")
    _key(axes, 21.4, "step", "the weights w, not drawn")
    return losses


def _update(axes: Axes, losses: Box) -> None:
    _band(axes, 1, 14.8, GREY, "backward, update", "of the global batch")
    leaves = Box(7.5, 9.0, 17.5, 5.6, "gradient by features", "of the loss, cached")
    again = Box(28, 9.0, 37, 5.6, "every chunk once more, with a graph", "the cached gradient is sent through it")
    average = Box(28, 2.2, 17.5, 5.6, "average", "over processes, once")
    adamw = Box(48.5, 2.2, 16.5, 5.6, "clip, AdamW", "alike everywhere")
    draw_boxes(axes, GREY, leaves, again, average, adamw)
    draw_arrow(axes, (leaves.above()[0], losses.y), leaves.above())
    draw_arrow(axes, leaves.right(), again.left())
    draw_arrow(axes, (average.above()[0], again.y), average.above())
    draw_arrow(axes, average.right(), adamw.left())
    _key(axes, 11.8, "(seed, visit)", "the noise of the first pass")
    _key(axes, 5.0, "step", "learning rate, not drawn")


def _band(axes: Axes, y: float, height: float, color: str, title: str, text: str) -> None:
    """The part of the picture that happens in one place."""
    round_corners = "round,pad=0,rounding_size=1"
    axes.add_patch(FancyBboxPatch((1, y), 66, height, boxstyle=round_corners, fc=color, ec="none", alpha=0.1))
    middle = y + height / 2
    axes.text(2.7, middle, title, color=color, fontsize=10, weight="bold", rotation=90, ha="center", va="center")
    axes.text(4.8, middle, text, color=color, fontsize=9, rotation=90, ha="center", va="center")


def _patch(box: Box, color: str, *, fill: str = "white", style: str = "solid") -> FancyBboxPatch:
    return FancyBboxPatch(
        (box.x, box.y),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.7",
        facecolor=fill,
        edgecolor=color,
        linewidth=1.1,
        linestyle=style,
    )


def draw_boxes(axes: Axes, color: str, *boxes: Box) -> None:
    """Boxes of one colour, with their texts."""
    for box in boxes:
        axes.add_patch(_patch(box, color))
        centre = box.x + box.width / 2
        middle = box.y + box.height / 2
        lift = 1.1 if box.text else 0.0
        axes.text(centre, middle + lift, box.title, color=INK, fontsize=9.5, weight="bold", ha="center", va="center")
        axes.text(centre, middle - 1.2, box.text, color=SOFT, fontsize=8.6, ha="center", va="center")


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A straight arrow."""
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=SOFT, linewidth=1.1, shrinkA=0, shrinkB=0)
    )


def _key(axes: Axes, y: float, key: str, *what: str) -> None:
    """What the draws of a row depend on."""
    axes.text(KEYS, y + 0.4, key, color=INK, fontsize=9, family="monospace", va="bottom")
    axes.text(KEYS, y - 0.2, "\n".join(what), color=SOFT, fontsize=8.8, va="top", linespacing=1.25)
