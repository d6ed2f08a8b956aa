"""What an ablation file says: worlds, rows, seeds and how the trained models are measured."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from mixreorg.config import StrictConfig, read_config_file
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.terms import WeightSchedule


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise ValueError("names become folders: use letters, digits and . _ + -, and begin with a letter or digit")
    return name


def _check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError("give one seed at least, each once, none negative")
    return seeds


Name = Annotated[str, AfterValidator(_check_name)]
Seeds = Annotated[tuple[int, ...], AfterValidator(_check_seeds)]
Settings = dict[str, Any]
"""Values by dotted name."""


class WorldConfig(StrictConfig):
    """Data to train and measure on: scenes that are made (``preset``) or something that exists (``data``)."""

    preset: str | None = None
    """``easy``, ``medium`` or ``hard``: scenes made under the output folder by the first call that needs them."""
    train: int = Field(60_000, ge=0)
    """Training scenes to make; 0 for a world that is only measured on."""
    val: int = Field(500, ge=0)
    """Validation scenes to make; a world that is trained on needs some."""
    test: int = Field(1_000, ge=0)
    """Test scenes to make."""
    seed: int = Field(0, ge=0)
    """Of the scenes."""
    set: Settings = Field(default_factory=dict)
    """Other settings of the scenes, by name."""
    vocab_size: int = Field(1024, gt=0)
    """Token ids, at most, of the tokenizer learned from the captions of the training scenes."""
    context_length: int = Field(32, gt=2)
    """Token ids per caption of that tokenizer."""
    data: tuple[str, ...] = ()
    """Existing caption pairs, as for ``mixreorg train --data``."""
    evaluation: str | None = None
    """Existing folder in VOC layout with a split ``val``; None for none."""
    tokenizer: str = "clip"
    """``clip``, or an existing tokenizer file."""
    nouns: str | None = None
    """Existing word list for rows with the multi-label loss. Scenes that are made have their class names."""

    @model_validator(mode="after")
    def _check(self) -> "WorldConfig":
        if (self.preset is None) == (not self.data):
            raise ValueError("give either a preset of scenes to make, or data that exist")
        existing = {"data", "evaluation", "tokenizer", "nouns"}
        foreign = existing if self.preset else type(self).model_fields.keys() - existing - {"preset"}
        plain = {name: field.get_default(call_default_factory=True) for name, field in type(self).model_fields.items()}
        wrong = {name for name in foreign if getattr(self, name) != plain[name]}
        if wrong:
            kind = "scenes that are made" if self.preset else "data that exist"
            raise ValueError(f"{', '.join(sorted(wrong))} cannot be given for {kind}")
        return self


class SplitConfig(StrictConfig):
    """A split that every trained model is measured on."""

    name: Name
    """What tables call it."""
    world: str | None = None
    """World of the split; None takes the world that the row was trained on."""
    split: str = "test"
    """Name of the split in its folder."""
    max_images: int | None = Field(None, gt=0)
    """The first so many images; None for all."""
    protocol: Settings = Field(default_factory=dict)
    """Changes to the protocol of the run, for example ``short_side: 128``."""


def _whole_batch_mixing() -> MixReorgConfig:
    return MixReorgConfig(
        num_contextual_blocks=0, combine="none", mixed=WeightSchedule(weight=1.0), restored=WeightSchedule(weight=0.0)
    )


class MeasureConfig(StrictConfig):
    """How the trained models are measured."""

    splits: tuple[SplitConfig, ...] = Field(min_length=1)
    """The first one is drawn in the charts."""
    mixed_scenes: int = Field(256, ge=0)
    """Validation scenes of the training world whose mixed masks are predicted; 0 for none."""
    mixing: MixReorgConfig = Field(default_factory=_whole_batch_mixing)
    """How these are mixed in the question that all models are asked alike, whatever they were trained with. By
    default 4 images in units of 2 x 2 patches, right after the patch embedding."""

    @model_validator(mode="after")
    def _check(self) -> "MeasureConfig":
        names = [split.name for split in self.splits]
        if len(set(names)) < len(names):
            raise ValueError("every split needs a name of its own")
        return self


class RowConfig(StrictConfig):
    """One configuration, trained once per seed; with a grid, one per combination of its values."""

    recipe: str
    """Named recipe that the row starts from."""
    world: str
    """World that it is trained on."""
    set: Settings = Field(default_factory=dict)
    """Changes to the recipe by dotted name, after those for all rows."""
    seeds: Seeds | None = None
    """Seeds of this row; None takes those of all rows."""
    section: str = ""
    """Heading that the row is shown under."""
    label: str | None = None
    """What tables call the row; its name by default."""
    baseline: str | None = None
    """Row that this one is compared with; None takes the baseline of all rows."""
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values by dotted name: the row becomes a row per combination, named by the values."""

    @model_validator(mode="after")
    def _check(self) -> "RowConfig":
        empty = [name for name, values in self.grid.items() if not values]
        if empty:
            raise ValueError(f"grid: {', '.join(empty)} has no values")
        return self


class AblationSpec(StrictConfig):
    """A whole ablation."""

    title: str
    """Heading of the page."""
    budget_note: str = ""
    """What makes the comparison fair or not, in words for the reader: equal steps, equal time."""
    worlds: dict[Name, WorldConfig] = Field(min_length=1)
    """Data by name."""
    seeds: Seeds = (0,)
    """Each row is trained once with each of them."""
    set: Settings = Field(default_factory=dict)
    """Changes to the recipes of all rows, by dotted name."""
    rows: dict[Name, RowConfig] = Field(min_length=1)
    """Configurations by name, in the order of the tables."""
    measure: MeasureConfig
    """How the trained models are measured."""
    baseline: str | None = None
    """Row (a name after the expansion of grids) that the others are compared with, seed by seed."""


def read_spec(path: Path) -> AblationSpec:
    """Read an ablation from a YAML or JSON file.

    Raises:
        MixreorgError: the file cannot be read, or something in it is unknown or wrong.
    """
    return AblationSpec.from_dict(read_config_file(path), source=str(path))
