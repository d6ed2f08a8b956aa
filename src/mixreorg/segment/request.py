"""What is asked of one photo: classes, negatives, background and abstention, and what they make of its scores.

Plain arrays, so that models in torch and exported ones decide alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from mixreorg.errors import MixreorgError
from mixreorg.segment.background import BackgroundChoice, otsu_threshold, require_other_phrases
from mixreorg.segment.calibration import Calibration
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.results import BACKGROUND, Segmentation, result_names
from mixreorg.text.class_list import ClassName, parse_class_list

ClassNames = str | Path | Sequence[str | ClassName]
Threshold = float | Literal["auto"] | None
"""A threshold from 0 to 1, the rule that finds one, or none."""


@dataclass(frozen=True)
class MaskRequest:
    """One request, checked.

    Raises:
        MixreorgError: a threshold that is none, abstention that nothing is calibrated for, or a class that is called
            background, or asked for by one of the background's phrases, where the result has one of its own.
    """

    classes: tuple[ClassName, ...]
    """The ``C`` wanted classes."""
    negatives: tuple[ClassName, ...]
    """Names that take pixels; these are background."""
    protocol: Protocol
    background: Threshold = None
    """Background threshold; None: the protocol's; ``auto``: the calibration's where it holds for so many names, else
    one chosen on the photo."""
    abstain: Threshold = None
    """Presence score below which a class is absent; ``auto``: the calibration's; None: no class is."""
    calibration: Calibration | None = None
    """One that was made for this model and protocol."""

    def __post_init__(self) -> None:
        """Check the fields."""
        _check_threshold("background", self.background)
        _check_threshold("abstain", self.abstain)
        if self.abstain == "auto" and self.calibration is None:
            raise MixreorgError(
                "abstention needs a calibration for this model and protocol (`mixreorg calibrate` makes one for the "
                "protocol saved with the model), or a presence score from 0 to 1 instead of 'auto'"
            )
        result_names(self.classes, has_background=self.has_background)
        if self.has_rival:
            require_other_phrases(self.classes, self.protocol.background_phrases)

    @property
    def has_background(self) -> bool:
        """Whether the result has background as its first class."""
        asked = self.background is not None or self.abstain is not None or bool(self.negatives)
        return asked or self.protocol.background_threshold is not None

    @property
    def has_rival(self) -> bool:
        """Whether background phrases of the protocol compete as a first class."""
        return self.has_background and bool(self.protocol.background_phrases)

    @property
    def competitors(self) -> tuple[ClassName, ...]:
        """All names that compete for pixels: the protocol's background where it has phrases, classes, negatives."""
        rival = (ClassName(BACKGROUND, self.protocol.background_phrases),) if self.has_rival else ()
        return (*rival, *self.classes, *self.negatives)

    def absent(self, presence: npt.NDArray[np.floating] | None) -> tuple[int, ...]:
        """Indices of the absent classes, by their presence scores ``[C]``."""
        if self.abstain is None or presence is None:
            return ()
        threshold = self.abstain
        if threshold == "auto":
            assert self.calibration is not None
            threshold = self.calibration.presence_threshold
        return tuple(np.flatnonzero(presence < threshold).tolist())

    def choose_background(
        self, best_scores: npt.NDArray[np.floating], pixels: npt.NDArray[np.integer]
    ) -> BackgroundChoice | None:
        """The rule for background, and its threshold.

        Args:
            best_scores: ``[B, S]`` of each segment, over all competitors.
            pixels: ``[B, S]`` of each segment.
        """
        if self.background == "auto":
            return self._choose_automatically(best_scores, pixels)
        if self.background is not None:
            return BackgroundChoice("given", float(self.background), "given by hand")
        if self.protocol.background_threshold is not None:
            return BackgroundChoice("protocol", self.protocol.background_threshold, "the protocol's")
        if self.has_background:
            return BackgroundChoice("names", 0.0, "no threshold: pixels of negatives and of absent classes")
        return None

    def _choose_automatically(
        self, best_scores: npt.NDArray[np.floating], pixels: npt.NDArray[np.integer]
    ) -> BackgroundChoice:
        num_names = len(self.classes) + len(self.negatives)
        if self.calibration is not None and self.calibration.holds_for(num_names):
            threshold = self.calibration.background_for(abstains=self.abstain is not None)
            reason = f"highest mIoU on {self.calibration.describe()}"
            return BackgroundChoice("calibration", threshold, reason)
        threshold = otsu_threshold(best_scores.ravel(), pixels.ravel())
        why = "no calibration holds for this model and protocol"
        if self.calibration is not None:
            why = f"the calibration is for lists of about {self.calibration.num_classes} names"
        return BackgroundChoice("otsu", threshold, f"Otsu's threshold of this photo's scores; {why}")

    def finish(
        self,
        label_map: npt.NDArray[np.integer],
        scores: npt.NDArray[np.float32],
        background: BackgroundChoice | None,
        presence: npt.NDArray[np.float32] | None,
    ) -> Segmentation:
        """The result of a photo.

        Args:
            label_map: ``[H, W]`` indices of competitors, after background where there is one.
            scores: best score of each of these.
            background: what :meth:`choose_background` chose.
            presence: scores ``[C]``.
        """
        first = int(background is not None)
        count = first + len(self.classes)
        negative_pixels: dict[str, int] = {}
        if self.negatives:
            pixels = np.bincount(label_map.ravel(), minlength=count + len(self.negatives))[count:].tolist()
            negative_pixels = dict(zip((item.name for item in self.negatives), pixels, strict=True))
            label_map = np.where(label_map < count, label_map, 0)
        return Segmentation(
            label_map=label_map,
            class_names=result_names(self.classes, has_background=background is not None),
            # A refined score may lie a little outside of what it was made of.
            scores=scores[:count].clip(0, 1),
            protocol=self._protocol_used(),
            background=background,
            presence_scores=None if presence is None else np.concatenate([[np.nan] * first, presence]),
            absent=tuple(self.classes[index].name for index in self.absent(presence)),
            negative_pixels=negative_pixels,
            calibrated_on=None if self.calibration is None else self.calibration.describe(),
        )

    def _protocol_used(self) -> Protocol:
        """With the threshold that was given by hand; one that was found belongs to the photo or the model."""
        if isinstance(self.background, str) or self.background is None:
            return self.protocol
        return self.protocol.updated(background_threshold=float(self.background))


def read_names(
    classes: ClassNames, negatives: ClassNames | None
) -> tuple[tuple[ClassName, ...], tuple[ClassName, ...]]:
    """Wanted classes and negatives.

    Raises:
        MixreorgError: an unusable list, or a name or phrase in both.
    """
    wanted = parse_class_list(classes)
    if negatives is None:
        return wanted, ()
    rest = parse_class_list(negatives)
    try:
        parse_class_list([*wanted, *rest])
    except MixreorgError as error:
        raise MixreorgError(f"classes and negatives share a name: {error}") from None
    return wanted, rest


def _check_threshold(name: str, value: Threshold) -> None:
    if value is None or value == "auto":
        return
    if isinstance(value, str | bool) or not 0 <= value <= 1:
        raise MixreorgError(f"{name} {value!r} is no threshold; give a number from 0 to 1, or 'auto'")
