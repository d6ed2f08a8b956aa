"""Composing one scene: which objects, where, the picture, its exact label map and its caption.

A scene is a pure function of (configuration, split, index), whatever the order and the process it is drawn in.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixreorg.data.scenes.captions import write_caption
from mixreorg.data.scenes.classes import ObjectClass, select_classes
from mixreorg.data.scenes.picture import colour_matrix
from mixreorg.data.scenes.picture_sets import open_picture_set
from mixreorg.data.scenes.presets import ScenesConfig
from mixreorg.data.scenes.stuff import Stuff, select_stuff
from mixreorg.data.scenes.textures import TEXTURE_SIZE
from mixreorg.errors import MixreorgError
from mixreorg.randomness import numpy_generator

Split = Literal["train", "val", "test", "test_heldout"]
T = TypeVar("T")

# Textures drawn per kind of stuff.
_TRAIN_TEXTURES = 3
_EVAL_TEXTURES = 2
# Side of the texture cut-out, as multiples of the image side.
_TEXTURE_ZOOM = (0.8, 2.0)
# An object reaches over the frame by up to this fraction of its box.
_OVERHANG = 0.12
# Fewer solid pixels than this are no object anybody could name.
_MIN_PIXELS = 12
_PLACEMENTS = 12
_SCENE_ATTEMPTS = 200


@dataclass(frozen=True)
class SceneObject:
    """One object of a finished scene."""

    name: str
    """Class name."""
    label: int
    """Its value in the label map."""
    picture: str
    """Its hexcode; with own pictures, class and file name."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels, cut at the frame."""
    visible: float
    """Fraction of its pixels that are in the frame and not hidden by later objects."""


@dataclass(frozen=True)
class Scene:
    """One finished scene."""

    image: NDArray[np.uint8]
    """``[H, W, 3]`` RGB."""
    label_map: NDArray[np.uint16]
    """``[H, W]``; indices into ``ScenesConfig.label_names``."""
    objects: tuple[SceneObject, ...]
    """Back to front."""
    stuff: str
    """Name of the texture."""
    caption: str
    """English text."""


@dataclass
class _Placed:
    class_index: int
    picture: str
    box: tuple[int, int, int, int]
    num_pixels: int
    num_visible: int


class SceneComposer:
    """Draws the scenes of one configuration.

    Raises:
        MixreorgError: the configuration's pictures are not there (see :func:`open_picture_set`).
    """

    def __init__(self, config: ScenesConfig) -> None:
        self.config = config
        self._classes = select_classes(config.classes)
        self.picture_set = open_picture_set(config.pictures, config.pictures_credit, self._classes)
        missing = self.picture_set.missing
        self._has_no_picture = np.array([item.name in missing for item in self._classes])
        self._stuff = select_stuff(config.stuff)
        self._textures: dict[tuple[str, str, int], Image.Image] = {}
        self.held_out_pairs = draw_held_out_pairs(config)
        self._forbidden = np.zeros((len(self._classes), len(self._classes)), dtype=bool)
        for first, second in self.held_out_pairs:
            self._forbidden[first, second] = self._forbidden[second, first] = True
        self.drawable_pairs = tuple(pair for pair in self.held_out_pairs if not self._has_no_picture[list(pair)].any())

    def compose(self, split: Split, index: int) -> Scene:
        """Draw scene ``index`` of ``split``.

        Raises:
            MixreorgError: the configuration leaves no room for the objects it asks for.
        """
        config = self.config
        rng = numpy_generator(config.seed, split, index)
        for _ in range(_SCENE_ATTEMPTS):
            wanted = self._draw_classes(split, rng)
            stuff_index = int(rng.integers(len(self._stuff)))
            canvas = self._draw_background(split, self._stuff[stuff_index], rng)
            owners = np.full(canvas.shape[:2], -1, dtype=np.int16)
            placed: list[_Placed] = []
            for class_index in wanted:
                self._place(split, class_index, canvas, owners, placed, rng)
            needed = max(config.min_objects, 2 if split == "test_heldout" else 1)
            if len(placed) >= needed and (split != "test_heldout" or self._shows_held_out_pair(placed)):
                return self._finish(canvas, owners, placed, stuff_index, rng)
        raise MixreorgError(
            f"scene {index} of {split}: {config.min_objects} or more objects do not fit; lower min_objects, "
            "max_scale or min_visible"
        )

    def _draw_classes(self, split: Split, rng: np.random.Generator) -> list[int]:
        """Class of each object, back to front; held-out pairs appear only where the split is made of them."""
        config = self.config
        count = int(rng.integers(config.min_objects, config.max_objects + 1))
        chosen: list[int] = []
        if split == "test_heldout":
            chosen.extend(self.drawable_pairs[int(rng.integers(len(self.drawable_pairs)))])
        while len(chosen) < count:
            if chosen and rng.random() < config.repeat_probability:
                candidate = chosen[int(rng.integers(len(chosen)))]
                if self._classes[candidate].noun == "count":
                    chosen.append(candidate)
                    continue
            taken = self._forbidden[chosen].any(axis=0) | np.isin(np.arange(len(self._classes)), chosen)
            candidates = np.flatnonzero(~(taken | self._has_no_picture))
            if not len(candidates):
                break
            chosen.append(int(rng.choice(candidates)))
        rng.shuffle(chosen)
        return chosen

    def _draw_background(self, split: Split, stuff: Stuff, rng: np.random.Generator) -> NDArray[np.float32]:
        size = self.config.image_size
        seen = [("train", variant) for variant in range(_TRAIN_TEXTURES)]
        unseen = [("eval", variant) for variant in range(_EVAL_TEXTURES)]
        choices = self._pool(split, seen, unseen)
        texture = self._texture(stuff, *choices[int(rng.integers(len(choices)))])
        zoom, left, top, mirror = rng.random(4)
        side = min(size * (_TEXTURE_ZOOM[0] + zoom * (_TEXTURE_ZOOM[1] - _TEXTURE_ZOOM[0])), TEXTURE_SIZE)
        left, top = left * (TEXTURE_SIZE - side), top * (TEXTURE_SIZE - side)
        cut = texture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        pixels = np.asarray(cut, dtype=np.float32)
        pixels = (pixels[:, ::-1] if mirror < 0.5 else pixels) @ self._draw_colour(rng).T
        return np.clip(pixels, 0.0, 255.0)

    def _pool(self, split: Split, seen: Sequence[T], unseen: Sequence[T]) -> Sequence[T]:
        """What a split draws from, given what training shows and what it never shows."""
        if split == "train" or self.config.unseen_pictures == "none":
            return seen
        return unseen if self.config.unseen_pictures == "only" else list(dict.fromkeys([*seen, *unseen]))

    def _texture(self, stuff: Stuff, kind: str, variant: int) -> Image.Image:
        key = (stuff.name, kind, variant)
        if key not in self._textures:
            self._textures[key] = Image.fromarray(stuff.draw(numpy_generator("texture", *key)))
        return self._textures[key]

    def _draw_colour(self, rng: np.random.Generator) -> NDArray[np.float32]:
        hue, brightness = rng.uniform(-1.0, 1.0, size=2)
        return colour_matrix(hue * self.config.max_hue_shift, 1.0 + brightness * self.config.max_brightness_shift)

    def _draw_object(
        self, split: Split, item: ObjectClass, rng: np.random.Generator
    ) -> tuple[str, NDArray[np.float32]]:
        config = self.config
        of_class = self.picture_set.pictures[item.name]
        pictures = self._pool(split, of_class.train, of_class.eval)
        picture = pictures[int(rng.integers(len(pictures)))]
        scale, turn, mirror = rng.random(3)
        longer_side = config.image_size * (config.min_scale + scale * (config.max_scale - config.min_scale))
        patch = self.picture_set.load(picture).draw(
            longer_side, (2.0 * turn - 1.0) * config.max_rotation, bool(mirror < config.flip_probability)
        )
        colours = np.clip(patch[..., :3] @ self._draw_colour(rng).T, 0.0, patch[..., 3:])
        return picture, np.concatenate([colours, patch[..., 3:]], axis=-1)

    def _place(
        self,
        split: Split,
        class_index: int,
        canvas: NDArray[np.float32],
        owners: NDArray[np.int16],
        placed: list[_Placed],
        rng: np.random.Generator,
    ) -> None:
        """Paint one object where it and all earlier ones stay visible enough; leave it out if no place does."""
        size = self.config.image_size
        picture, patch = self._draw_object(split, self._classes[class_index], rng)
        height, width = patch.shape[:2]
        solid = patch[..., 3] >= 128.0
        num_pixels = int(solid.sum())
        if num_pixels < _MIN_PIXELS:
            return
        for across, down in rng.random((_PLACEMENTS, 2)):
            left = round(_between(-_OVERHANG * width, size - (1.0 - _OVERHANG) * width, across))
            top = round(_between(-_OVERHANG * height, size - (1.0 - _OVERHANG) * height, down))
            box = (max(left, 0), max(top, 0), min(left + width, size), min(top + height, size))
            inside = (slice(box[1] - top, box[3] - top), slice(box[0] - left, box[2] - left))
            window = (slice(box[1], box[3]), slice(box[0], box[2]))
            mask = solid[inside]
            num_visible = int(mask.sum())
            hidden = np.bincount(owners[window][mask] + 1, minlength=len(placed) + 1)[1:]
            if num_visible < self.config.min_visible * num_pixels or not self._all_visible(placed, hidden):
                continue
            piece = patch[inside]
            canvas[window] = canvas[window] * (1.0 - piece[..., 3:] / 255.0) + piece[..., :3]
            owners[window][mask] = len(placed)
            for earlier, loss in zip(placed, hidden, strict=True):
                earlier.num_visible -= int(loss)
            placed.append(_Placed(class_index, picture, box, num_pixels, num_visible))
            return

    def _all_visible(self, placed: Sequence[_Placed], hidden: NDArray[np.int64]) -> bool:
        return all(
            item.num_visible - int(loss) >= self.config.min_visible * item.num_pixels
            for item, loss in zip(placed, hidden, strict=True)
        )

    def _shows_held_out_pair(self, placed: Sequence[_Placed]) -> bool:
        shown = [item.class_index for item in placed]
        return bool(self._forbidden[np.ix_(shown, shown)].any())

    def _finish(
        self,
        canvas: NDArray[np.float32],
        owners: NDArray[np.int16],
        placed: Sequence[_Placed],
        stuff_index: int,
        rng: np.random.Generator,
    ) -> Scene:
        background = 1 + len(self._classes) + stuff_index if self.config.label_stuff else 0
        # Index -1 (nothing painted) takes the last entry.
        labels = np.array([item.class_index + 1 for item in placed] + [background], dtype=np.uint16)
        objects = tuple(
            SceneObject(
                name=self._classes[item.class_index].name,
                label=item.class_index + 1,
                picture=item.picture,
                box=item.box,
                visible=round(item.num_visible / item.num_pixels, 3),
            )
            for item in placed
        )
        return Scene(
            image=(canvas + 0.5).clip(0.0, 255.0).astype(np.uint8),
            label_map=labels[owners],
            objects=objects,
            stuff=self._stuff[stuff_index].name,
            caption=self._write_caption(placed, stuff_index, rng),
        )

    def _write_caption(self, placed: Sequence[_Placed], stuff_index: int, rng: np.random.Generator) -> str:
        config = self.config
        counts = Counter(item.class_index for item in placed)
        named = list(counts)
        rng.shuffle(named)
        name_place, omit = rng.random(2)
        if len(named) > 1 and omit < config.object_omitted_probability:
            named.pop()
        places = self._stuff[stuff_index].places
        place = places[int(rng.integers(len(places)))] if name_place < config.background_named_probability else None
        return write_caption([(self._classes[index], counts[index]) for index in named], place, rng)


def draw_held_out_pairs(config: ScenesConfig) -> tuple[tuple[int, int], ...]:
    """The pairs of class indices that only ``test_heldout`` shows together; they depend on the seed alone."""
    count = len(config.classes)
    pairs = [(first, second) for first in range(count) for second in range(first + 1, count)]
    order = numpy_generator(config.seed, "held_out_pairs").permutation(len(pairs))
    return tuple(pairs[index] for index in sorted(order[: config.held_out_pairs].tolist()))


def _between(low: float, high: float, fraction: float) -> float:
    return low + (high - low) * fraction
