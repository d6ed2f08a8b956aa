"""Segmentation with exported files: the interface of :class:`mixreorg.Segmenter`, without torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.export.backends import load_graph
from mixreorg.export.decoding import (
    WindowScores,
    map_segments,
    merge_windows,
    normalise_rows,
    score_segments,
    with_background,
)
from mixreorg.export.manifest import SUFFIXES, ExportManifest
from mixreorg.files import exists, read_json
from mixreorg.segment.calibration import CALIBRATION_FILE, Calibration, CalibrationSource
from mixreorg.segment.photos import PhotoSource, read_photo
from mixreorg.segment.phrase_memory import PhraseMemory
from mixreorg.segment.presence import PhotoEmbeddings, find_own_names, presence_features, segment_pixels
from mixreorg.segment.protocol import Protocol, hash_values
from mixreorg.segment.refinement import make_refiner
from mixreorg.segment.request import ClassNames, MaskRequest, Threshold, read_names
from mixreorg.segment.resize import FloatArray, resize_photo
from mixreorg.segment.results import Segmentation
from mixreorg.segment.segment_merging import merge_segments
from mixreorg.segment.window_plan import WindowPlan, plan_windows, require_patch
from mixreorg.text.class_list import ClassName, flatten_phrases
from mixreorg.text.tokenizer import Tokenizer

IMAGE, TEXT, TOKENIZER = "image", "text", "tokenizer.json"
"""Files of a free-vocabulary export: two graphs (with the runtime's suffix) and the tokenizer."""
PIXELS, TOKEN_IDS = "pixels", "token_ids"
IMAGE_OUTPUTS = ("assignment", "segment_embeddings", "image_embedding")
BAKED_OUTPUTS = ("segment_map", "segment_scores")
TEXT_OUTPUTS = ("text_features",)
_NO_PRESENCE = "has its classes baked in and gives no embeddings to judge presence by"


@dataclass(frozen=True)
class ExportedOutput:
    """Encoded windows."""

    assignment: FloatArray
    """``[B, S, h, w]`` soft assignment of patches to final segments."""
    segment_embeddings: FloatArray
    """``[B, S, E]``, L2-normalised."""
    image_embedding: FloatArray
    """``[B, E]``, L2-normalised."""


def find_export(path: Path) -> Path | None:
    """The image graph that a path stands for: a folder with one, or the file itself; None where there is none.

    A leading ``~`` is the user's folder.
    """
    path = path.expanduser()
    if path.suffix in SUFFIXES.values():
        return path
    if not exists(path):
        return None
    found = [path / f"{IMAGE}{suffix}" for suffix in SUFFIXES.values() if (path / f"{IMAGE}{suffix}").is_file()]
    if len(found) > 1:
        raise MixreorgError(f"{path} holds an ONNX and an OpenVINO export; give the file: {found[0]} or {found[1]}")
    return found[0] if found else None


class ExportedSegmenter:
    """Zero-shot segmentation with the files of ``mixreorg export``.

    >>> segmenter = ExportedSegmenter("exported")
    >>> segmentation = segmenter("photo.jpg", "dog, cat=cat|kitten, grass")
    """

    def __init__(
        self,
        source: str | Path,
        protocol: Protocol | Callable[[Protocol], Protocol] | None = None,
        window_batch: int = 8,
        threads: int | None = None,
        calibration: Calibration | Path | str | None = None,
    ) -> None:
        """Load an export.

        Args:
            source: the folder of a free-vocabulary export, or the file of one with baked classes.
            protocol: sizes, templates, background. By default the one the model was exported with; a function makes
                another of it.
            window_batch: windows encoded at once.
            threads: of the runtime; by default one per core.
            calibration: of the model that was exported. By default the one in the folder, where there is one.

        Raises:
            MixreorgError: not an export, damaged, or of another version; a protocol that exports do not follow; or a
                calibration that cannot be read, or is of another model or protocol.
        """
        path = find_export(Path(source))
        if path is None:
            raise MixreorgError(f"{source} holds no export; make one with `mixreorg export MODEL {source}`")
        if path.stem == TEXT and path.with_name(IMAGE + path.suffix).is_file():
            raise MixreorgError(f"{path} is the text graph of an export; name its folder, {path.parent}")
        self._path = path
        self._image = load_graph(path, threads)
        self.manifest = self._image.manifest
        exported = self.manifest.protocol
        self.protocol = protocol(exported) if callable(protocol) else protocol or exported
        check_protocol(self.protocol, baked=self.manifest.classes is not None)
        self.window_batch = window_batch
        self.calibration_source = self._read_calibration(calibration)
        self._phrases: PhraseMemory[FloatArray] = PhraseMemory()
        if self.manifest.classes is None:
            text_path = path.with_name(TEXT + path.suffix)
            self._text = load_graph(text_path, threads)
            if self._text.manifest != self.manifest:
                raise MixreorgError(f"{text_path} and {path} are of different exports; export the model again")
            self._tokenizer = Tokenizer.from_file(path.parent / TOKENIZER)
            if hash_values(self._tokenizer.to_dict()) != self.manifest.tokenizer:
                raise MixreorgError(f"{path.parent / TOKENIZER} is not the tokenizer of {path}; export the model again")

    def _read_calibration(self, named: Calibration | Path | str | None) -> CalibrationSource:
        path = self._path.with_name(CALIBRATION_FILE)
        if self.manifest.classes is not None and named is not None:
            raise MixreorgError(f"{self._path} {_NO_PRESENCE}; leave the calibration out, or export without classes")
        has_found = self.manifest.classes is None and path.is_file()
        found = read_json(path) if has_found else None
        return CalibrationSource(named, found, lambda: self.manifest.model, self.protocol)

    def __call__(
        self,
        photo: PhotoSource,
        class_names: ClassNames | None = None,
        *,
        negatives: ClassNames | None = None,
        background: Threshold = None,
        abstain: Threshold = None,
    ) -> Segmentation:
        """Segment one photo.

        Args:
            photo: path, encoded bytes, PIL picture or ``[H, W, 3]`` uint8 array.
            class_names: ``"dog, cat=cat|kitten"``, a list of names, ``"@file.txt"``; with baked classes None.
            negatives: names that compete for pixels; what they take is background. Not with baked classes.
            background: threshold, ``"auto"`` or None, as :class:`mixreorg.Segmenter` has it.
            abstain: presence score, ``"auto"`` or None, as there. Not with baked classes.

        Returns:
            Labels of the photo's own size, names (background first where there is one), scores, presence scores.

        Raises:
            MixreorgError: unreadable photo or class list, other classes than the baked ones, or a photo whose
                windows have another size than the export takes.
        """
        request = self.request(class_names, negatives, background, abstain)
        image = read_photo(photo)
        plan = plan_windows(self.protocol, image.width, image.height)
        if self.manifest.classes is None:
            return self.decode_photo(self._encode(image, plan), image, request)
        return self._label(self._decode_baked(image, plan), plan, image, request)

    def decode_photo(self, output: ExportedOutput, image: Image.Image, request: MaskRequest) -> Segmentation:
        """Label a photo whose windows are encoded (free vocabulary only).

        Args:
            output: the photo's windows, from :meth:`encode_each`.
            image: the photo.
            request: what :meth:`request` returned.
        """
        plan = plan_windows(self.protocol, image.width, image.height)
        segment_map = map_segments(output.assignment, plan.window_size)
        photo = PhotoEmbeddings(output.image_embedding, output.segment_embeddings, segment_map)
        presence = self._presence_scores(photo, request.classes)
        scores = self.segment_scores(output, request.competitors, len(request.negatives), request.absent(presence))
        return self._label(WindowScores(segment_map, scores), plan, image, request, presence)

    def _label(
        self,
        windows: WindowScores,
        plan: WindowPlan,
        image: Image.Image,
        request: MaskRequest,
        presence: npt.NDArray[np.float32] | None = None,
    ) -> Segmentation:
        """Labels of the photo from scores without background."""
        scores = windows.segment_scores
        pixels = segment_pixels(windows.segment_map, scores.shape[1])
        choice = request.choose_background(scores.max(axis=-1), pixels)
        if choice is not None:
            windows = WindowScores(windows.segment_map, with_background(scores, choice.threshold))
        refine = make_refiner(self.protocol.refine, image)
        return request.finish(*merge_windows(windows, plan, image.height, image.width, refine), choice, presence)

    def request(
        self,
        class_names: ClassNames | None = None,
        negatives: ClassNames | None = None,
        background: Threshold = None,
        abstain: Threshold = None,
    ) -> MaskRequest:
        """Check the arguments of a call, whatever the photo.

        Raises:
            MixreorgError: an unusable list or threshold, or what a file with baked classes does not know.
        """
        if self.manifest.classes is not None and (negatives is not None or abstain is not None):
            raise MixreorgError(
                f"{self._path} {_NO_PRESENCE}; leave negatives and abstention out, or export without classes"
            )
        calibration = self.calibration_source.of(self.protocol)
        names = self._classes(class_names, negatives)
        return MaskRequest(*names, self.protocol, background, abstain, calibration)

    def encode(self, images: Sequence[Image.Image]) -> ExportedOutput:
        """Encode every window of several RGB photos of one size, photo after photo (free vocabulary only).

        Raises:
            MixreorgError: an export with baked classes, or windows of a size that it does not take.
        """
        photos = self.encode_each(images)
        return ExportedOutput(
            np.concatenate([photo.assignment for photo in photos]),
            np.concatenate([photo.segment_embeddings for photo in photos]),
            np.concatenate([photo.image_embedding for photo in photos]),
        )

    def encode_each(self, images: Sequence[Image.Image]) -> list[ExportedOutput]:
        """Encode several RGB photos of any sizes (free vocabulary only).

        Returns:
            For each photo the windows of ``plan_windows(protocol, width, height)``.

        Raises:
            MixreorgError: an export with baked classes, or windows of a size that it does not take.
        """
        if self.manifest.classes is not None:
            raise MixreorgError(
                f"{self._path} has its classes baked in and gives no embeddings; export without classes"
            )
        return [self._encode(image, plan_windows(self.protocol, image.width, image.height)) for image in images]

    def _encode(self, image: Image.Image, plan: WindowPlan) -> ExportedOutput:
        """The windows of one photo, segments merged as the protocol says."""
        output = ExportedOutput(*self._run_image(image, plan, IMAGE_OUTPUTS))
        if self.protocol.segment_similarity is None:
            return output
        areas = output.assignment.sum(axis=(-2, -1))
        merged, _ = merge_segments(output.segment_embeddings, areas, self.protocol.segment_similarity)
        return replace(output, segment_embeddings=merged)

    def class_embeddings(self, classes: Sequence[ClassName]) -> FloatArray:
        """L2-normalised embeddings ``[P, E]`` of all phrases; no recent phrase is encoded again."""
        phrases, _ = flatten_phrases(classes)
        return np.stack(self._phrases.rows(phrases, self.protocol.templates, self._encode_phrases))

    def _encode_phrases(self, phrases: list[str]) -> list[FloatArray]:
        prompts = [template.format(phrase) for phrase in phrases for template in self.protocol.templates]
        features = self._encode_text(prompts).reshape(len(phrases), len(self.protocol.templates), -1)
        # Averaged before normalisation, as the published evaluation does.
        return [row.copy() for row in normalise_rows(features.mean(axis=1))]

    def _encode_text(self, prompts: list[str], batch_size: int = 256) -> FloatArray:
        parts = []
        for start in range(0, len(prompts), batch_size):
            rows = self._tokenizer.encode_ids(prompts[start : start + batch_size])
            token_ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
            for target, ids in zip(token_ids, rows, strict=True):
                target[: len(ids)] = ids
            parts += self._text.run(TOKEN_IDS, token_ids, TEXT_OUTPUTS)
        return np.concatenate(parts)

    def _classes(
        self, class_names: ClassNames | None, negatives: ClassNames | None
    ) -> tuple[tuple[ClassName, ...], tuple[ClassName, ...]]:
        """Wanted classes and negatives."""
        baked = self.manifest.class_names
        if class_names is None:
            if baked is None:
                raise MixreorgError(f"{self._path} takes any classes; say which, for example 'dog, cat, grass'")
            return read_names(baked, negatives)
        classes, rest = read_names(class_names, negatives)
        if baked is not None and classes != baked:
            known = ", ".join(item.name for item in baked[:8]) + (", ..." if len(baked) > 8 else "")
            raise MixreorgError(
                f"{self._path} has its classes baked in ({known}); leave the classes out, or export without classes"
            )
        return classes, rest

    def segment_scores(
        self, output: ExportedOutput, classes: Sequence[ClassName], num_negatives: int = 0, absent: Sequence[int] = ()
    ) -> FloatArray:
        """Class scores ``[B, S, C]`` of the segments of encoded windows, without background.

        Args:
            output: windows from :meth:`encode`.
            classes: parsed class list.
            num_negatives: how many of the last classes are negatives, with a shortlist of their own.
            absent: indices of classes that get no pixel.
        """
        return score_segments(
            output.segment_embeddings,
            output.image_embedding,
            self.class_embeddings(classes),
            flatten_phrases(classes)[1],
            logit_scale=self.manifest.logit_scale,
            shortlist=self.protocol.shortlist,
            num_negatives=num_negatives,
            absent=absent,
        )

    def _presence_scores(self, photo: PhotoEmbeddings, classes: Sequence[ClassName]) -> npt.NDArray[np.float32]:
        rule = self.calibration_source.rule(self.protocol)
        features = presence_features(
            photo,
            self.class_embeddings(classes),
            flatten_phrases(classes)[1],
            self.class_embeddings([ClassName(name) for name in rule.bank]),
            find_own_names(classes, rule.bank),
            self.manifest.logit_scale,
        )
        return rule.scores(features)

    def _decode_baked(self, image: Image.Image, plan: WindowPlan) -> WindowScores:
        for name in ("templates", "shortlist"):
            if getattr(self.protocol, name) != getattr(self.manifest.protocol, name):
                raise MixreorgError(
                    f"{self._path} has the protocol's {name} baked in: {getattr(self.manifest.protocol, name)!r}; "
                    "export again with the new ones"
                )
        check_protocol(self.protocol, baked=True)
        return WindowScores(*self._run_image(image, plan, BAKED_OUTPUTS))

    def _run_image(self, image: Image.Image, plan: WindowPlan, outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        check_window(self.manifest, self.protocol, image, plan, self._path)
        crops = cut_windows(image, plan)
        parts = [
            self._image.run(PIXELS, crops[start : start + self.window_batch], outputs)
            for start in range(0, len(crops), self.window_batch)
        ]
        maps, *others = (np.concatenate(values) for values in zip(*parts, strict=True))
        if plan.flip:
            # The second half was encoded mirrored; assignment and segment map, which come first, are turned back.
            half = len(maps) // 2
            maps = np.concatenate([maps[:half], maps[half:, ..., ::-1]])
        return [maps, *others]


def check_protocol(protocol: Protocol, *, baked: bool) -> None:
    """Refuse a protocol that an export does not follow.

    Raises:
        MixreorgError: another decoding than GroupViT's, or segments to merge with classes baked in.
    """
    if not protocol.decodes_as_groupvit:
        raise MixreorgError(
            f"exports decode as GroupViT does, with the model's own logit scale; the protocol {protocol.name!r} does "
            "not: use the model itself"
        )
    if baked and protocol.segment_similarity is not None:
        raise MixreorgError(
            f"the protocol {protocol.name!r} merges segments, and an export with baked classes gives no embeddings to "
            "merge segments by; leave segment_similarity out, or export without classes"
        )


def cut_windows(image: Image.Image, plan: WindowPlan) -> npt.NDArray[np.uint8]:
    """Grey levels ``[B, 3, h, w]`` of every window of an RGB photo."""
    windows = []
    for scale in plan.scales:
        pixels = resize_photo(image, scale.height, scale.width)
        windows += [pixels[:, box.top : box.bottom, box.left : box.right] for box in scale.boxes]
    cut = np.stack(windows)
    return np.concatenate([cut, cut[..., ::-1]]) if plan.flip else cut


def check_window(
    manifest: ExportManifest, protocol: Protocol, image: Image.Image, plan: WindowPlan, source: Path
) -> None:
    """Refuse a photo whose windows, planned by a protocol, the image graph cannot take.

    Raises:
        MixreorgError: naming both sizes.
    """
    require_patch(plan, protocol, image.size, manifest.patch_size)
    height, width = plan.window_size
    what = f"a photo of {image.width} x {image.height} pixels becomes {plan.width} x {plan.height}"
    if manifest.size is not None and manifest.size != (height, width):
        raise MixreorgError(
            f"{what} in windows of {width} x {height}, and {source} takes {manifest.size[1]} x {manifest.size[0]} "
            "alone; crop the photo, change the protocol, or export without --size"
        )
