"""Protocols as data: how published evaluations of zero-shot segmentation were made, named, versioned and hashed."""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import Field, field_validator

from mixreorg.config import StrictConfig
from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.class_table import Naming
from mixreorg.eval.benchmarks.own_folder import OWN_LAYOUTS
from mixreorg.eval.benchmarks.registry import benchmark
from mixreorg.eval.split import EvalSplit
from mixreorg.files import read_json
from mixreorg.segment.background import require_other_phrases
from mixreorg.segment.protocol import Protocol, groupvit_protocol, hash_values
from mixreorg.text.class_list import ClassName
from mixreorg.text.templates import TEMPLATES

ThresholdRule = Literal["published", "fixed", "calibrated", "none"]
"""Where a background threshold comes from: the protocol (``published``, or what an own protocol says), the user, or
another split; ``none`` without background."""


class BenchmarkRule(StrictConfig):
    """What a protocol does differently on one benchmark."""

    background_threshold: float | None = Field(None, ge=0, le=1)
    """Published threshold; None where none was published."""
    short_side: int | None = Field(None, gt=0)
    """Instead of the protocol's."""
    logit_scale: float | None = Field(None, gt=0)
    """Instead of the protocol's."""


class EvaluationProtocol(StrictConfig):
    """One way to evaluate, over all benchmarks."""

    name: str = Field(min_length=1)
    """What reports call it."""
    version: int = Field(1, gt=0)
    """Raised whenever anything below changes but ``source``."""
    source: str = ""
    """Where the numbers come from, and what could not be taken over."""
    segmentation: Protocol
    """Sizes, templates, decoding; the background threshold stays empty here. Background phrases of its own stand
    where the naming has none."""
    naming: Naming = "groupvit"
    """Whose names the classes are prompted with."""
    background_threshold: float | None = Field(None, ge=0, le=1)
    """Threshold on benchmarks without a rule of their own."""
    rules: dict[str, BenchmarkRule] = Field(default_factory=dict)
    """By name of the benchmark, or one of its aliases."""

    @field_validator("segmentation")
    @classmethod
    def _check_segmentation(cls, segmentation: Protocol) -> Protocol:
        if segmentation.background_threshold is not None:
            raise ValueError("leave background_threshold out here, and give it beside segmentation or in rules")
        return segmentation

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, rules: dict[str, BenchmarkRule]) -> dict[str, BenchmarkRule]:
        named: dict[str, BenchmarkRule] = {}
        for name, rule in rules.items():
            try:
                canonical = name if name in OWN_LAYOUTS else benchmark(name).name
            except MixreorgError as error:
                raise ValueError(str(error)) from error
            if canonical in named:
                raise ValueError(f"two rules for {canonical}; keep one")
            named[canonical] = rule
        return named


@dataclass(frozen=True)
class ResolvedProtocol:
    """A protocol on one split: all that decides the labels, and nothing that does not."""

    name: str
    version: int
    split: str
    """Benchmark and split, for example ``voc21/val``."""
    segmentation: Protocol
    """Without threshold, which follows."""
    has_background: bool
    threshold_rule: ThresholdRule
    threshold: float | None
    """None until it is calibrated, and without background."""
    calibrated_on: str | None = None
    """Split that the threshold is chosen on."""
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names and phrases."""

    def class_names(self) -> tuple[ClassName, ...]:
        """The classes with their phrases."""
        return tuple(ClassName(name, phrases) for name, phrases in self.classes)

    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of everything, except the value of a calibrated threshold.

        That value belongs to the model: two models calibrated by the same rule are comparable.
        """
        return hash_values(
            {
                "name": self.name,
                "version": self.version,
                "split": self.split,
                "segmentation": self.segmentation.hash(),
                "has_background": self.has_background,
                "threshold": None if self.threshold_rule == "calibrated" else self.threshold,
                "calibrated_on": self.calibrated_on,
                "classes": [[name, list(phrases)] for name, phrases in self.classes],
            }
        )

    def describe(self) -> str:
        """The rule for background in words."""
        if not self.has_background:
            return "no background"
        if self.threshold_rule == "calibrated":
            chosen = "" if self.threshold is None else f" {self.threshold:g}"
            return f"background threshold{chosen} chosen on {self.calibrated_on}"
        origin = "given by hand" if self.threshold_rule == "fixed" else "the protocol's"
        return f"background threshold {self.threshold:g}, {origin}"


def protocol_names() -> tuple[str, ...]:
    """Names of the protocols that come with the package."""
    return tuple(PROTOCOLS)


def find_protocol(name: str) -> EvaluationProtocol:
    """A protocol by its name, or from a JSON file of its fields.

    Raises:
        MixreorgError: unknown name, or an unusable file.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if name.endswith(".json"):
        values = read_json(Path(name))
        if not isinstance(values, dict):
            raise MixreorgError(f"{name} holds no protocol; it must be one JSON object")
        return EvaluationProtocol.from_dict(values, source=name)
    raise MixreorgError(f"{name!r} is not a protocol; take {', '.join(PROTOCOLS)}, model, or a .json file")


def resolve_protocol(
    protocol: EvaluationProtocol,
    benchmark_name: str,
    split: EvalSplit,
    *,
    threshold: float | None = None,
    calibrate_on: str | None = None,
) -> ResolvedProtocol:
    """Fix a protocol for one split.

    Args:
        protocol: the general one.
        benchmark_name: name or alias of the benchmark.
        split: opened with the protocol's naming.
        threshold: a background threshold to use instead of the published one.
        calibrate_on: name of another split of the benchmark that the threshold is to be chosen on.

    Raises:
        MixreorgError: background, but neither a published, given nor calibrated threshold; or a threshold for a
            benchmark without background; or calibration on the split that is evaluated; or a class that is asked for
            by one of the protocol's own background phrases.
    """
    item = None if benchmark_name in OWN_LAYOUTS else benchmark(benchmark_name)
    rule = protocol.rules.get(item.name if item else benchmark_name, BenchmarkRule())
    changes = {key: value for key in ("short_side", "logit_scale") if (value := getattr(rule, key)) is not None}
    phrases: tuple[str, ...] = ()
    if split.has_background:
        named = item.table.background_phrases(protocol.naming) if item else ()
        phrases = named or protocol.segmentation.background_phrases
        # What published lists share is evaluated as published.
        if not named:
            require_other_phrases(split.classes, phrases)
    segmentation = protocol.segmentation.updated(**changes, background_phrases=phrases)
    kind, value, source = _threshold(protocol, rule, split, threshold, calibrate_on)
    classes = tuple((entry.name, entry.phrases) for entry in split.classes)
    return ResolvedProtocol(
        protocol.name, protocol.version, split.name, segmentation, split.has_background, kind, value, source, classes
    )


def _threshold(
    protocol: EvaluationProtocol,
    rule: BenchmarkRule,
    split: EvalSplit,
    threshold: float | None,
    calibrate_on: str | None,
) -> tuple[ThresholdRule, float | None, str | None]:
    if not split.has_background:
        if threshold is not None or calibrate_on is not None:
            raise MixreorgError(f"{split.name} has no background, so it takes neither threshold nor calibration")
        return "none", None, None
    if threshold is not None and calibrate_on is not None:
        raise MixreorgError("a threshold is either given or calibrated; leave one of the two out")
    if calibrate_on is not None:
        if split.name.rpartition("/")[2] == calibrate_on:
            raise MixreorgError(
                f"the threshold cannot be chosen on {split.name}, the split that is evaluated; name another split"
            )
        return "calibrated", None, calibrate_on
    if threshold is not None:
        return "fixed", threshold, None
    published = rule.background_threshold if rule.background_threshold is not None else protocol.background_threshold
    if published is None:
        raise MixreorgError(
            f"the protocol {protocol.name!r} has no background threshold for {split.name}; give one with --background, "
            "or choose one on another split with --calibrate-on"
        )
    return "published", published, None


def _rules(thresholds: dict[str, float]) -> dict[str, BenchmarkRule]:
    return {name: BenchmarkRule(background_threshold=value) for name, value in thresholds.items()}


_CUSTOM = (*TEMPLATES["subset"], "a photo of many {}.", "a photo of {}s.")

PROTOCOLS = MappingProxyType(
    {
        item.name: item
        for item in (
            EvaluationProtocol(
                name="groupvit",
                source="Xu et al., CVPR 2022, and the configurations of its repository; it has none for ADE20K, "
                "COCO-Stuff and Cityscapes",
                segmentation=groupvit_protocol(),
                rules=_rules({"voc21": 0.95, "context60": 0.35, "coco_object": 0.95}),
            ),
            EvaluationProtocol(
                name="segclip",
                source="Luo et al., ICML 2023, and the configurations of its repository",
                segmentation=groupvit_protocol().updated(name="segclip", short_side=224, window=224, stride=224),
                rules=_rules({"voc21": 0.80, "context60": 0.25, "coco_object": 0.65}),
            ),
            EvaluationProtocol(
                name="tcl",
                source="Cha et al., CVPR 2023, and the configurations of its repository, without PAMR; the mask "
                "decoding of TCL has no meaning for segments, which are decoded as GroupViT's",
                segmentation=groupvit_protocol().updated(name="tcl", templates=_CUSTOM),
                naming="official",
                background_threshold=0.5,
            ),
            EvaluationProtocol(
                name="sclip",
                source="Wang et al., ECCV 2024, and the configurations of its repository; the smallest area on VOC "
                "is left out, probabilities are averaged over windows instead of logits, and a name's templates are "
                "averaged before normalisation, as GroupViT averages them, not each normalised first; bed, a class of "
                "COCO-Object and a background word, is never predicted there, as in the original",
                segmentation=Protocol(
                    name="sclip",
                    short_side=336,
                    window=224,
                    stride=112,
                    templates=TEMPLATES["full"],
                    decoding="softmax",
                    logit_scale=40.0,
                ),
                naming="sclip",
                rules={
                    "voc21": BenchmarkRule(background_threshold=0.1, logit_scale=65.0),
                    "context60": BenchmarkRule(background_threshold=0.1, logit_scale=50.0),
                    "coco_object": BenchmarkRule(background_threshold=0.1, logit_scale=50.0),
                    "coco_stuff": BenchmarkRule(short_side=448),
                    "cityscapes": BenchmarkRule(short_side=560),
                },
            ),
            EvaluationProtocol(
                name="scenes",
                source="the generated scenes of this package; their threshold is chosen on another split",
                segmentation=Protocol(name="scenes", short_side=64, window=64, stride=64, whole=True),
            ),
        )
    }
)
"""The protocols that come with the package, by name."""
