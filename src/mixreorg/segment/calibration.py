"""What a held-out split says about a model's scores: kept beside the model, and refused for any other."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json, write_json
from mixreorg.segment.presence import PresenceRule
from mixreorg.segment.protocol import Protocol

FORMAT: Literal["mixreorg-calibration-1"] = "mixreorg-calibration-1"
CALIBRATION_FILE = "calibration.json"
"""Name of the file in the folder of a model or an export."""


class Calibration(StrictConfig):
    """Thresholds of one model under one protocol, and the split that they were chosen on."""

    format: Literal["mixreorg-calibration-1"] = FORMAT
    """Version of the layout."""
    version: str
    """Version of mixreorg that made it."""
    model: str
    """Digest of the model's weights."""
    protocol: str
    """Hash of the protocol without its background threshold."""
    data: str
    """Name of the data's folder."""
    split: str
    """Split that everything below was chosen on."""
    num_photos: int = Field(gt=0)
    """Photos of it."""
    num_classes: int = Field(gt=0)
    """Classes that were asked for in every photo."""
    presence: PresenceRule
    """Fitted by logistic regression: the score is the share of classes with that score that are there."""
    presence_threshold: float = Field(ge=0, le=1)
    """A class with a smaller presence score is absent."""
    background_threshold: float = Field(ge=0, le=1)
    """Background threshold of the highest mIoU with all classes."""
    abstaining_background_threshold: float = Field(ge=0, le=1)
    """The same where absent classes are left out."""
    measured: dict[str, float] = Field(default_factory=dict)
    """Rates and mIoU on the split, in percent, before and after: of the choice itself, so a little too good."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises:
            MixreorgError: missing, damaged, or of another version.
        """
        values = read_json(path)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise MixreorgError(f"{path} is not a calibration ({FORMAT}); make one with `mixreorg calibrate`")
        return cls.from_dict(values, source=str(path))

    def holds_for(self, num_names: int) -> bool:
        """Whether the background threshold fits a list of so many names: at least half of those it was chosen with.

        Scores are shares of a softmax over all names asked for: of fewer names each has more, and a threshold chosen
        with many lets everything pass (docs/honest_masks.md has the measurement).
        """
        return 2 * num_names >= self.num_classes

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    def mismatch(self, model: str, protocol: Protocol) -> str | None:
        """Why this calibration says nothing about a model under a protocol; None where it does.

        Args:
            model: digest of its weights.
            protocol: whatever its background threshold.
        """
        if self.model != model:
            return (
                f"the calibration was made for a model of digest {self.model}, and this one has {model}; make one for "
                "it with `mixreorg calibrate`"
            )
        if self.protocol != protocol_key(protocol):
            return (
                f"the calibration was made for a protocol of hash {self.protocol}, and {protocol.name!r} with these "
                f"sizes and templates has {protocol_key(protocol)}; leave out what differs from the protocol saved "
                "with the model"
            )
        return None

    def background_for(self, *, abstains: bool) -> float:
        """The background threshold, with or without abstention."""
        return self.abstaining_background_threshold if abstains else self.background_threshold

    def describe(self) -> str:
        """Where the thresholds come from, in words."""
        return f"{self.num_photos:,} photos of {self.data}/{self.split}"


def protocol_key(protocol: Protocol) -> str:
    """Hash of a protocol without its background threshold, which a calibration replaces."""
    return protocol.updated(background_threshold=None).hash()


class CalibrationSource:
    """The calibration of a segmenter: one that the user names must fit, one found beside the model may not."""

    def __init__(
        self,
        named: Calibration | Path | str | None,
        found: Mapping[str, Any] | None,
        digest: Callable[[], str],
        protocol: Protocol,
    ) -> None:
        """Read it.

        Args:
            named: by the user.
            found: values of one that was saved with the model.
            digest: of the model's weights; only called where there is a calibration.
            protocol: in use.

        Raises:
            MixreorgError: named by the user and unreadable, or made for another model or protocol.
        """
        self._is_named = named is not None
        # What was only found is read when it is asked for: to evaluate, or to make a new one, it is not needed.
        self._read = cache(lambda: _read(named, found))
        self._digest = cache(digest)
        if self._is_named:
            self.of(protocol)

    def of(self, protocol: Protocol) -> Calibration | None:
        """The calibration, where it holds for a protocol.

        Raises:
            MixreorgError: it was named by the user, and does not; or the one found beside the model is unreadable.
        """
        calibration = self._read()
        if calibration is None:
            return None
        problem = calibration.mismatch(self._digest(), protocol)
        if problem is not None and self._is_named:
            raise MixreorgError(f"{problem}; or leave the calibration out")
        return calibration if problem is None else None

    def rule(self, protocol: Protocol) -> PresenceRule:
        """The calibration's rule for presence scores, or one that was not fitted."""
        calibration = self.of(protocol)
        return PresenceRule() if calibration is None else calibration.presence


def _read(named: Calibration | Path | str | None, found: Mapping[str, Any] | None) -> Calibration | None:
    if named is not None:
        return named if isinstance(named, Calibration) else Calibration.load(Path(named))
    if found is None:
        return None
    try:
        return Calibration.from_dict(found, source="the model's calibration")
    except MixreorgError as error:
        raise MixreorgError(f"{error}; make it again with `mixreorg calibrate`, or delete {CALIBRATION_FILE}") from None
