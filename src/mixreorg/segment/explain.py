"""Why the pixels of a photo got their names: the groups of both stages, the scores of names, the shortlist."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mixreorg.errors import MixreorgError
from mixreorg.files import write_atomically, write_json
from mixreorg.models.dual_encoder import ImageOutput
from mixreorg.palette import Color, class_colors, distinct_colors, hex_color
from mixreorg.segment.class_maps import largest_of_phrases, map_segments, shortlisted
from mixreorg.segment.photos import PhotoSource, read_photo
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.resize import resize_photo
from mixreorg.segment.results import BACKGROUND, result_names
from mixreorg.segment.segmenter import Segmenter
from mixreorg.segment.window_plan import Box, WindowPlan, plan_windows
from mixreorg.text.class_list import ClassName, flatten_phrases, parse_class_list

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExplainedWindow:
    """The part of a photo that is explained, as the model sees it."""

    photo: Image.Image
    """The whole photo, RGB, resized."""
    box: Box
    """Place of the window in it."""
    number: int | None
    """1 for the first window of the protocol's plan; None for the whole photo as one window."""
    plan: WindowPlan
    """All that segmenting looks at."""
    segment_similarity: float | None
    """Cosine from which segmenting merges the segments of all windows; None where it does not."""

    @property
    def count(self) -> int:
        """Windows that segmenting averages: those with a number, tiles, mirrored ones."""
        return self.plan.num_windows

    @property
    def picture(self) -> Image.Image:
        """RGB, the window's own pixels."""
        return self.photo.crop((self.box.left, self.box.top, self.box.right, self.box.bottom))

    def describe(self) -> str:
        """What was explained, and whether segmenting looks at the same."""
        size = "{} x {} pixels".format(*self.photo.size)
        explained = f"the whole photo, resized to {size}, as one window"
        if self.number is not None:
            explained = f"window {self.number} of {len(self.plan.boxes)} of the photo resized to {size}"
        difference = self._difference()
        return f"{explained} ({difference})" if difference else explained

    def _difference(self) -> str:
        """What segmenting does beyond looking at this window; empty for nothing."""
        plan, numbered, does = self.plan, len(self.plan.boxes), []
        extras = [name for name, has_some in (("tiles", plan.larger), ("mirrored ones", plan.flip)) if has_some]
        if extras:
            does.append(f"averages {self.count} windows with {' and '.join(extras)}")
        elif numbered > 1 and self.number is None:
            does.append(f"averages {self.count} windows")
        if self.segment_similarity is not None:
            does.append(f"merges segments of cosine {self.segment_similarity:g}")
        if not does:
            return ""
        difference = f"segmenting {' and '.join(does)}"
        if numbered == 1 or self.number is not None:
            return difference
        # Short, for the heading of the picture is one line.
        which = f"the first {numbered}" if extras else "them for its own explanation"
        return f"{difference}; choose one of {which}"


@dataclass(frozen=True)
class Group:
    """One group of the second stage that holds pixels, and the name it took."""

    index: int
    """Of the segment, from 0."""
    area_share: float
    """Share of the window's pixels, 0 to 1."""
    first_stage: tuple[int, ...]
    """Groups of the first stage that hold pixels and belong to this one more than to any other."""
    label: int
    """Index into the result's names; background where the best score is below the threshold."""
    ranking: tuple[int, ...]
    """Indices of all compared names, best score first."""
    margin: float
    """Score of the best name minus that of the runner-up, 0 to 1; the score itself where there is only one name."""
    phrase: str
    """Phrase of the best name that fits the group best."""
    removed: int | None
    """Name that fits the group better than every name of the shortlist, and was not on it."""

    @property
    def letter(self) -> str:
        """A, B, ..., Z, AA, AB, ...: what pictures call the group."""
        first, last = divmod(self.index, 26)
        return (chr(ord("A") + first - 1) if first else "") + chr(ord("A") + last)


@dataclass(frozen=True, eq=False)
class Explanation:
    """The decoding of one window, step by step: ``S1`` and ``S`` groups of the stages, ``C`` compared names.

    The compared names are the given classes; where the protocol's background has phrases, it competes as the first.
    """

    window: ExplainedWindow
    protocol: Protocol
    names: tuple[str, ...]
    """Names of the result, background first where the protocol has a threshold."""
    compared: tuple[ClassName, ...]
    logit_scale: float
    threshold: float | None
    """Score below which a group becomes background in this window: the protocol's, or the window's best score where
    that is lower (the published rule)."""
    first_map: IntArray
    """``[H, W]`` group of the first stage of each pixel: arg max of the soft assignment, resized bilinearly."""
    segment_map: IntArray
    """``[H, W]`` group of the second stage of each pixel."""
    merges: FloatArray
    """``[S, S1]`` soft assignment of the first stage's groups to those of the second."""
    image_logits: FloatArray
    """``[C]`` scaled cosine of each name and the window as a whole, which the shortlist goes by."""
    shortlist: npt.NDArray[np.bool_]
    """``[C]`` names that the window keeps."""
    phrase_logits: FloatArray
    """``[S, P]`` scaled cosine of each group and phrase."""
    logits: FloatArray
    """``[S, C]`` largest of each name's phrases."""
    scores: FloatArray
    """``[S, C]`` final scores, 0 to 1; 0 for a name that is not on the shortlist."""
    labels: IntArray
    """``[S]`` indices into ``names``."""

    @property
    def label_map(self) -> IntArray:
        """``[H, W]`` indices into ``names``."""
        return self.labels[self.segment_map]

    @property
    def name_offset(self) -> int:
        """What takes an index of a compared name to one of the result's names."""
        return len(self.names) - len(self.compared)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Groups of the second stage that hold pixels, largest first."""
        counts = np.bincount(self.segment_map.ravel(), minlength=len(self.labels))
        order = np.argsort(-counts, kind="stable")
        return tuple(self._group(int(index), counts[index] / counts.sum()) for index in order if counts[index])

    @cached_property
    def first_stage(self) -> dict[int, float]:
        """Groups of the first stage that hold pixels, and their share of the window, 0 to 1."""
        counts = np.bincount(self.first_map.ravel())
        return {int(index): float(counts[index] / self.first_map.size) for index in np.flatnonzero(counts)}

    @property
    def removed(self) -> tuple[int, ...]:
        """Indices of the compared names that the shortlist removed, best fit first."""
        order = np.argsort(-self.image_logits, kind="stable")
        return tuple(int(index) for index in order if not self.shortlist[index])

    @cached_property
    def name_colors(self) -> tuple[Color, ...]:
        """One colour per name of the result, the same as in the files of ``mixreorg segment``."""
        return class_colors(len(self.names), has_background=self.protocol.background_threshold is not None)

    @cached_property
    def group_colors(self) -> tuple[Color, ...]:
        """One colour per group of the second stage."""
        return distinct_colors(len(self.labels))

    def _group(self, index: int, area_share: float) -> Group:
        ranking = np.argsort(-self.scores[index], kind="stable")
        best = int(ranking[0])
        runner_up = float(self.scores[index, ranking[1]]) if len(ranking) > 1 else 0.0
        parents = self.merges.argmax(axis=0)
        phrases, owners = flatten_phrases(self.compared)
        own = [place for place, owner in enumerate(owners) if owner == best]
        favourite = int(self.logits[index].argmax())
        return Group(
            index=index,
            area_share=float(area_share),
            first_stage=tuple(first for first in self.first_stage if parents[first] == index),
            label=int(self.labels[index]),
            ranking=tuple(ranking.tolist()),
            margin=float(self.scores[index, best]) - runner_up,
            phrase=phrases[max(own, key=lambda place: self.phrase_logits[index, place])],
            removed=None if self.shortlist[favourite] else favourite,
        )

    def picture(self, title: str = "") -> Image.Image:
        """Draw all of it: window, groups of both stages, names, scores and margins, shortlist.

        Args:
            title: what the picture calls the photo.
        """
        from mixreorg.segment.explain_picture import draw_explanation

        return draw_explanation(self, title)

    def to_dict(self, photo_name: str | None = None) -> dict[str, Any]:
        """Return plain values: window, protocol, names and their fit, groups of both stages with all scores."""
        width, height = self.window.photo.size
        parents = self.merges.argmax(axis=0)
        return {
            "photo": photo_name,
            "explained": self.window.describe(),
            "window": {
                "number": self.window.number,
                "count": self.window.count,
                "box": self.window.box._asdict(),
                "resized": {"width": width, "height": height},
            },
            "protocol": {"name": self.protocol.name, "hash": self.protocol.hash()},
            "decoding": self.protocol.decoding,
            "logit_scale": self.logit_scale,
            "background_threshold": {"protocol": self.protocol.background_threshold, "window": self.threshold},
            "names": [self._name_to_dict(index) for index in range(len(self.compared))],
            "first_stage": [
                {
                    "index": index,
                    "area_share": share,
                    "second_stage": int(parents[index]),
                    "assignment": float(self.merges[parents[index], index]),
                }
                for index, share in self.first_stage.items()
            ],
            "second_stage": [self._group_to_dict(group) for group in self.groups],
        }

    def _name_to_dict(self, index: int) -> dict[str, Any]:
        return {
            "name": self.compared[index].name,
            "phrases": list(self.compared[index].phrases),
            "color": hex_color(self.name_colors[index + self.name_offset]),
            "window_cosine": float(self.image_logits[index]) / self.logit_scale,
            "shortlisted": bool(self.shortlist[index]),
        }

    def _group_to_dict(self, group: Group) -> dict[str, Any]:
        return {
            "group": group.letter,
            "index": group.index,
            "color": hex_color(self.group_colors[group.index]),
            "area_share": group.area_share,
            "first_stage": list(group.first_stage),
            "name": self.names[group.label],
            "margin": group.margin,
            "phrase": group.phrase,
            "better_but_removed": None if group.removed is None else self.compared[group.removed].name,
            "scores": [
                {
                    "name": self.compared[index].name,
                    "score": float(self.scores[group.index, index]),
                    "cosine": float(self.logits[group.index, index]) / self.logit_scale,
                }
                for index in group.ranking
            ],
        }

    def save(self, folder: Path | str, stem: str, photo_name: str | None = None) -> tuple[Path, Path]:
        """Write ``STEM_explain.png`` and ``STEM_explain.json``, each whole or not at all.

        Args:
            folder: made when it is not there.
            stem: what the file names begin with.
            photo_name: what picture and JSON call the photo; ``stem`` by default.

        Returns:
            The two paths, in that order.

        Raises:
            MixreorgError: a folder that cannot be written.
        """
        name = photo_name or stem
        picture = self.picture(name)
        paths = Path(folder, f"{stem}_explain.png"), Path(folder, f"{stem}_explain.json")
        write_atomically(paths[0], lambda path: picture.save(path, format="PNG"))
        write_json(paths[1], self.to_dict(name))
        return paths


@torch.inference_mode()
def explain(
    segmenter: Segmenter,
    photo: PhotoSource,
    class_names: str | Path | Sequence[str | ClassName],
    window: int | None = None,
) -> Explanation:
    """Explain which name every pixel of a window takes, by the steps of :func:`~.class_maps.decode_windows`.

    >>> explanation = explain(Segmenter(load_model("demo/run")), "photo.jpg", "dog, cat=cat|kitten, grass")
    >>> [(group.letter, explanation.names[group.label], group.margin) for group in explanation.groups]

    Args:
        segmenter: model and protocol.
        photo: path, encoded bytes, PIL picture or ``[H, W, 3]`` uint8 array.
        class_names: as for :class:`~mixreorg.segment.segmenter.Segmenter`.
        window: 1 to the number of windows that the protocol has for the photo, without tiles and mirrored ones; None
            for the whole photo, resized as the protocol says, as one window. Where that is not what segmenting looks
            at, :meth:`ExplainedWindow.describe` says so.

    Raises:
        MixreorgError: unreadable photo or class list, or no such window.
    """
    classes = parse_class_list(class_names)
    protocol = segmenter.protocol
    names = result_names(classes, has_background=protocol.background_threshold is not None)
    image = read_photo(photo)
    view, plan = _choose_window(protocol, image, window)
    crops = segmenter.crop(image, plan)
    output = segmenter.model.encode_image(crops)
    decoded = segmenter.decode(output, plan, classes)
    compared = _compared(classes, protocol)
    scores, labels, threshold = _read_scores(decoded.segment_scores[0].cpu().numpy(), protocol)
    phrase_logits, image_logits, owners = _logits(segmenter, output, compared, segmenter.logit_scale)
    kept = torch.ones(1, len(compared), dtype=torch.bool)
    if protocol.decoding == "groupvit":
        kept = shortlisted(image_logits, protocol.shortlist)
    first, second = output.encoding.assignments
    size = (int(crops.shape[2]), int(crops.shape[3]))
    return Explanation(
        window=view,
        protocol=protocol,
        names=names,
        compared=compared,
        logit_scale=segmenter.logit_scale,
        threshold=threshold,
        first_map=map_segments(first.soft, output.encoding.grid, size)[0].cpu().numpy(),
        segment_map=decoded.segment_map[0].cpu().numpy(),
        merges=second.soft[0].float().cpu().numpy(),
        image_logits=image_logits[0].cpu().numpy(),
        shortlist=kept[0].cpu().numpy(),
        phrase_logits=phrase_logits[0].cpu().numpy(),
        logits=largest_of_phrases(phrase_logits, owners)[0].cpu().numpy(),
        scores=scores,
        labels=labels,
    )


def _choose_window(protocol: Protocol, image: Image.Image, number: int | None) -> tuple[ExplainedWindow, WindowPlan]:
    """The window that is explained, and a plan of it alone."""
    plan = plan_windows(protocol, image.width, image.height)
    count = len(plan.boxes)
    if number is not None and not 1 <= number <= count:
        windows = "1 is its only window" if count == 1 else f"its windows are 1 to {count}"
        raise MixreorgError(f"the photo has no window {number}: {windows}; leave it out to explain the whole photo")
    box = Box(0, 0, plan.height, plan.width) if number is None else plan.boxes[number - 1]
    pixels = resize_photo(image, plan.height, plan.width).transpose(1, 2, 0)
    resized = Image.fromarray(np.ascontiguousarray(pixels))
    view = ExplainedWindow(resized, box, number, plan, protocol.segment_similarity)
    return view, WindowPlan(plan.height, plan.width, (box,))


def _compared(classes: tuple[ClassName, ...], protocol: Protocol) -> tuple[ClassName, ...]:
    """What the groups are compared with: the classes, behind the background where that has phrases of its own."""
    if protocol.background_threshold is None or not protocol.background_phrases:
        return classes
    return ClassName(BACKGROUND, protocol.background_phrases), *classes


def _read_scores(decoded: FloatArray, protocol: Protocol) -> tuple[FloatArray, IntArray, float | None]:
    """Scores of the compared names, the label of each group, the threshold that was in use."""
    threshold = protocol.background_threshold
    # The first of equals, as in the merging of windows.
    labels = decoded.argmax(axis=1)
    if threshold is None:
        return decoded, labels, None
    if protocol.background_phrases:
        return decoded, np.where(decoded.max(axis=1) < threshold, 0, labels), threshold
    return decoded[:, 1:], labels, min(threshold, float(decoded[:, 1:].max()))


def _logits(
    segmenter: Segmenter, output: ImageOutput, compared: Sequence[ClassName], logit_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of groups and phrases ``[1, S, P]``, of the window and names ``[1, C]``, owners of phrases ``[P]``."""
    embeddings, owners = segmenter.class_embeddings(compared)
    phrases = embeddings.float().T
    # As decoding computes them, to the last bit: the scaling comes last.
    image_logits = largest_of_phrases(output.image_embedding.float() @ phrases * logit_scale, owners)
    return output.segment_embeddings.float() @ phrases * logit_scale, image_logits, owners
