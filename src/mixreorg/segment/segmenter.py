"""A photo and any class names to masks: the one interface that the command line, evaluation and pages share."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mixreorg.models.digest import model_digest
from mixreorg.models.dual_encoder import DualEncoder, ImageOutput
from mixreorg.models.grouping import Assignment
from mixreorg.models.pixels import normalise
from mixreorg.segment.background import BackgroundChoice
from mixreorg.segment.background_sweep import background_below
from mixreorg.segment.calibration import Calibration, CalibrationSource
from mixreorg.segment.class_maps import WindowScores, decode_windows, map_segments, with_background
from mixreorg.segment.photos import PhotoSource, read_photo
from mixreorg.segment.phrase_memory import PhraseMemory
from mixreorg.segment.presence import PhotoEmbeddings, find_own_names, presence_features, segment_pixels
from mixreorg.segment.protocol import Protocol, groupvit_protocol
from mixreorg.segment.refinement import RefineMap, make_refiner
from mixreorg.segment.request import ClassNames, MaskRequest, Threshold, read_names
from mixreorg.segment.resize import resize_photo
from mixreorg.segment.results import BACKGROUND, Segmentation
from mixreorg.segment.segment_merging import merge_segments
from mixreorg.segment.sliding_window import MergedScores, merge_windows
from mixreorg.segment.window_plan import WindowPlan, plan_windows, require_patch
from mixreorg.text.class_list import ClassName, flatten_phrases

_LISTS_KEPT = 8


class Segmenter:
    """Zero-shot segmentation with a trained model.

    >>> segmenter = Segmenter(load_model("demo/run"))
    >>> segmentation = segmenter("photo.jpg", "dog, cat=cat|kitten, grass")
    """

    def __init__(
        self,
        model: DualEncoder,
        protocol: Protocol | None = None,
        window_batch: int = 8,
        calibration: Calibration | Path | str | None = None,
    ) -> None:
        """Prepare a model for use.

        Args:
            model: from :func:`mixreorg.load_model`; it is put into evaluation mode.
            protocol: sizes, templates, background. By default the one saved with the model, else GroupViT's.
            window_batch: windows encoded at once.
            calibration: from :func:`~mixreorg.eval.calibrate.calibrate`, or its file. By default the one saved with
                the model, where there is one.

        Raises:
            MixreorgError: a calibration that cannot be read, or of another model or protocol.
        """
        self.model = model.eval()
        self.protocol = protocol or default_protocol(model)
        self.window_batch = window_batch
        self.calibration_source = CalibrationSource(
            calibration, model.inference_calibration, lambda: model_digest(model), self.protocol
        )
        self._phrases: PhraseMemory[Tensor] = PhraseMemory()
        self._class_embeddings: dict[tuple[tuple[str, ...], tuple[ClassName, ...]], tuple[Tensor, Tensor]] = {}

    def __call__(
        self,
        photo: PhotoSource,
        class_names: ClassNames,
        *,
        negatives: ClassNames | None = None,
        background: Threshold = None,
        abstain: Threshold = None,
    ) -> Segmentation:
        """Segment one photo.

        Args:
            photo: path, encoded bytes, PIL picture or ``[H, W, 3]`` uint8 array.
            class_names: ``"dog, cat=cat|kitten"``, a list of names, ``"@file.txt"``.
            negatives: names in the same forms that compete for pixels; what they take is background.
            background: threshold below which a pixel is background; ``"auto"``: the calibration's, else one chosen on
                the photo; None: the protocol's.
            abstain: presence score below which a class gets no pixel; ``"auto"``: the calibration's; None: no class
                abstains.

        Returns:
            Labels of the photo's own size, names (background first where a threshold, negatives or abstention make
            one), scores, presence scores.

        Raises:
            MixreorgError: unreadable photo or class list, or abstention that nothing is calibrated for.
        """
        request = self.request(class_names, negatives, background, abstain)
        image = read_photo(photo)
        return self.decode_photo(self.encode([image]), image, request)

    def decode_photo(self, output: ImageOutput, image: Image.Image, request: MaskRequest) -> Segmentation:
        """Label a photo whose windows are encoded, alone or in a batch with others.

        Args:
            output: the photo's windows, from :meth:`encode_each`.
            image: the photo.
            request: what :meth:`request` returned.
        """
        plan = plan_windows(self.protocol, image.width, image.height)
        segment_map = self.map_segments(output, plan)
        presence = self.presence_scores(output, segment_map, request.classes)
        windows = self._decode(
            output,
            plan,
            request.competitors,
            None,
            segment_map,
            num_negatives=len(request.negatives),
            absent=tuple(index + request.has_rival for index in request.absent(presence)),
        )
        pixels = segment_pixels(segment_map.cpu().numpy(), windows.segment_scores.shape[1])
        choice = request.choose_background(windows.segment_scores.amax(dim=-1).cpu().numpy(), pixels)
        merged = self._merge(windows, plan, image, choice, has_rival=request.has_rival)
        return request.finish(merged.label_map.cpu().numpy(), merged.class_scores.cpu().numpy(), choice, presence)

    def request(
        self,
        class_names: ClassNames,
        negatives: ClassNames | None = None,
        background: Threshold = None,
        abstain: Threshold = None,
    ) -> MaskRequest:
        """Check the arguments of a call, whatever the photo.

        Raises:
            MixreorgError: an unusable list or threshold, or abstention that nothing is calibrated for.
        """
        calibration = self.calibration_source.of(self.protocol)
        return MaskRequest(*read_names(class_names, negatives), self.protocol, background, abstain, calibration)

    @torch.inference_mode()
    def presence_scores(
        self, output: ImageOutput, segment_map: Tensor, classes: Sequence[ClassName]
    ) -> npt.NDArray[np.float32]:
        """Presence scores ``[C]`` of classes in the photo whose encoded windows these are.

        Args:
            output: the photo's windows.
            segment_map: ``[B, H, W]`` of these.
            classes: parsed class list.
        """
        rule = self.calibration_source.rule(self.protocol)
        return rule.scores(self.presence_features(output, segment_map, classes, rule.bank))

    @torch.inference_mode()
    def presence_features(
        self, output: ImageOutput, segment_map: Tensor, classes: Sequence[ClassName], bank: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """What presence scores are made of, ``[C, 2]``: see :func:`~mixreorg.segment.presence.presence_features`."""
        phrases, owners = self.class_embeddings(classes)
        names, _ = self.class_embeddings([ClassName(name) for name in bank])
        photo = PhotoEmbeddings(
            output.image_embedding.float().cpu().numpy(),
            output.segment_embeddings.float().cpu().numpy(),
            segment_map.cpu().numpy(),
        )
        return presence_features(
            photo,
            phrases.float().cpu().numpy(),
            owners.tolist(),
            names.float().cpu().numpy(),
            find_own_names(classes, bank),
            self.logit_scale,
        )

    @property
    def logit_scale(self) -> float:
        """Factor of all cosines: the protocol's, else the model's own."""
        return self.protocol.logit_scale or float(self.model.scale.detach())

    def _merge(
        self,
        windows: WindowScores,
        plan: WindowPlan,
        image: Image.Image,
        background: BackgroundChoice | None,
        *,
        has_rival: bool,
    ) -> MergedScores:
        """Labels of the photo, background as the choice has it."""
        if background is not None and not has_rival:
            scores = with_background(windows.segment_scores, background.threshold)
            windows = WindowScores(windows.segment_map, scores)
        merged = merge_windows(windows, plan, image.height, image.width, self.refiner(image))
        if background is None or not has_rival:
            return merged
        labels = background_below(merged.label_map, merged.best_scores, background.threshold)
        return replace(merged, label_map=labels)

    def map_segments(self, output: ImageOutput, plan: WindowPlan) -> Tensor:
        """Segment of each pixel of encoded windows ``[B, H, W]``."""
        return map_segments(output.encoding.patch_assignment, output.encoding.grid, plan.window_size)

    def encode(self, images: Sequence[Image.Image]) -> ImageOutput:
        """Encode every window of several RGB photos of one size.

        Args:
            images: all of the same size.

        Returns:
            The windows of ``plan_windows(protocol, width, height)``, photo after photo.
        """
        return ImageOutput.concatenate(self.encode_each(images))

    @torch.inference_mode()
    def encode_each(self, images: Sequence[Image.Image]) -> list[ImageOutput]:
        """Encode several RGB photos of any sizes; windows of one size share batches, whatever photo they are of.

        Returns:
            For each photo the windows of ``plan_windows(protocol, width, height)``.
        """
        crops = [self.crop(image, plan_windows(self.protocol, image.width, image.height)) for image in images]
        outputs: dict[int, ImageOutput] = {}
        for size in dict.fromkeys(windows.shape[2:] for windows in crops):
            members = [index for index, windows in enumerate(crops) if windows.shape[2:] == size]
            batches = torch.split(torch.cat([crops[index] for index in members]), self.window_batch)
            encoded = ImageOutput.concatenate([self.model.encode_image(batch) for batch in batches])
            start = 0
            for index in members:
                stop = start + len(crops[index])
                outputs[index] = self._joined(encoded.part(start, stop))
                start = stop
        return [outputs[index] for index in range(len(images))]

    def crop(self, image: Image.Image, plan: WindowPlan) -> Tensor:
        """The windows of a plan ``[n, 3, h, w]`` from an RGB photo, resized and normalised.

        Raises:
            MixreorgError: windows thinner than one patch.
        """
        require_patch(plan, self.protocol, image.size, self.model.config.image.patch_size)
        crops = []
        for scale in plan.scales:
            pixels = self.prepare(image, scale)
            crops += [pixels[:, box.top : box.bottom, box.left : box.right] for box in scale.boxes]
        windows = torch.stack(crops)
        return torch.cat([windows, windows.flip(-1)]) if plan.flip else windows

    def _joined(self, output: ImageOutput) -> ImageOutput:
        """The windows of one photo, mirrored ones turned back and segments merged as the protocol says."""
        if self.protocol.flip:
            output = _turn_back(output)
        if self.protocol.segment_similarity is None:
            return output
        areas = output.encoding.patch_assignment.sum(dim=-1)
        merged, _ = merge_segments(
            output.segment_embeddings.float().cpu().numpy(), areas.cpu().numpy(), self.protocol.segment_similarity
        )
        return replace(output, segment_embeddings=torch.from_numpy(merged).to(output.segment_embeddings))

    def refiner(self, image: Image.Image) -> RefineMap | None:
        """What refines the scores of a class on this photo, as the protocol says; None for nothing."""
        return make_refiner(self.protocol.refine, image)

    @torch.inference_mode()
    def decode(
        self,
        output: ImageOutput,
        plan: WindowPlan,
        classes: Sequence[ClassName],
        segment_map: Tensor | None = None,
        absent: Sequence[int] = (),
    ) -> WindowScores:
        """Class scores of encoded windows ``[B, ...]``, with the protocol's background.

        With background phrases, pixels below the threshold are not yet background: that is decided on the
        merged photo.

        Args:
            output: windows from :meth:`encode`, all or a part of them.
            plan: the plan that they were cut by.
            classes: parsed class list.
            segment_map: of an earlier decoding of the same windows with other classes, to save time.
            absent: indices of classes that get no pixel.
        """
        protocol = self.protocol
        if protocol.background_threshold is not None and protocol.background_phrases:
            return self.decode_with_rival(output, plan, classes, segment_map, absent)
        return self._decode(output, plan, classes, protocol.background_threshold, segment_map, absent)

    @torch.inference_mode()
    def decode_with_rival(
        self,
        output: ImageOutput,
        plan: WindowPlan,
        classes: Sequence[ClassName],
        segment_map: Tensor | None = None,
        absent: Sequence[int] = (),
    ) -> WindowScores:
        """Class scores with the protocol's background phrases as a first class ``[B, S, 1 + C]``."""
        rival = ClassName(BACKGROUND, self.protocol.background_phrases)
        return self._decode(output, plan, [rival, *classes], None, segment_map, [index + 1 for index in absent])

    @torch.inference_mode()
    def _decode(
        self,
        output: ImageOutput,
        plan: WindowPlan,
        classes: Sequence[ClassName],
        threshold: float | None,
        segment_map: Tensor | None,
        absent: Sequence[int] = (),
        num_negatives: int = 0,
    ) -> WindowScores:
        embeddings, owners = self.class_embeddings(classes)
        protocol = self.protocol
        return decode_windows(
            output.encoding.patch_assignment,
            output.encoding.grid,
            plan.window_size,
            output.segment_embeddings,
            output.image_embedding,
            embeddings,
            owners,
            logit_scale=self.logit_scale,
            shortlist=protocol.shortlist,
            background_threshold=threshold,
            decoding=protocol.decoding,
            segment_map=segment_map,
            num_negatives=num_negatives,
            absent=absent,
        )

    def prepare(self, image: Image.Image, plan: WindowPlan) -> Tensor:
        """Resize an RGB photo as ``plan`` says and normalise it: ``[3, h, w]`` on the model's device."""
        pixels = torch.from_numpy(np.array(resize_photo(image, plan.height, plan.width)))
        return normalise(pixels.to(self.model.logit_scale.device))

    @torch.inference_mode()
    def class_embeddings(self, classes: Sequence[ClassName]) -> tuple[Tensor, Tensor]:
        """Embeddings of all phrases ``[P, E]`` and the class of each ``[P]``; no recent phrase is encoded again."""
        key = self.protocol.templates, tuple(classes)
        if key in self._class_embeddings:
            # The most recent last, so that the whole list outlives the many short lists of single photos.
            self._class_embeddings[key] = self._class_embeddings.pop(key)
            return self._class_embeddings[key]
        phrases, owners = flatten_phrases(classes)
        embeddings = torch.stack(self._phrases.rows(phrases, self.protocol.templates, self._encode_phrases))
        while len(self._class_embeddings) >= _LISTS_KEPT:
            del self._class_embeddings[next(iter(self._class_embeddings))]
        self._class_embeddings[key] = embeddings, torch.tensor(owners, device=embeddings.device)
        return self._class_embeddings[key]

    def _encode_phrases(self, phrases: list[str]) -> list[Tensor]:
        prompts = [[template.format(phrase) for template in self.protocol.templates] for phrase in phrases]
        return [embedding.clone() for embedding in self.model.encode_prompts(prompts)]

    def remember(self, phrases: Sequence[str], embeddings: Tensor) -> None:
        """Take embeddings ``[P, E]`` of phrases as this model and protocol made them before.

        They are kept until the protocol has other templates.
        """
        self._phrases.pin(phrases, self.protocol.templates, embeddings.to(self.model.logit_scale.device))


def _turn_back(output: ImageOutput) -> ImageOutput:
    """Turn the assignments of the second half of the windows back, which were encoded mirrored."""
    encoding = output.encoding
    first, second = encoding.assignments
    soft = first.soft.clone()
    half = len(soft) // 2
    maps = soft[half:].reshape(*soft[half:].shape[:2], *encoding.grid)
    soft[half:] = maps.flip(-1).flatten(-2)
    return replace(output, encoding=replace(encoding, assignments=(Assignment(soft), second)))


def default_protocol(model: DualEncoder) -> Protocol:
    """The protocol saved with a model, or GroupViT's at the model's training size."""
    if model.inference_protocol is not None:
        return Protocol.from_dict(model.inference_protocol, source="the model's protocol")
    return groupvit_protocol(model.config.image.image_size)
