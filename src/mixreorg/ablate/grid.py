"""From an ablation to its runs: grids expanded, every configuration built and checked before anything runs."""

import difflib
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixreorg.ablate.spec import AblationSpec, RowConfig, Settings
from mixreorg.ablate.worlds import WorldPaths, absolute, check_split, check_world, world_paths
from mixreorg.config import assign, merge
from mixreorg.errors import MixreorgError
from mixreorg.recipes import recipe
from mixreorg.segment.protocol import Protocol
from mixreorg.train.config import TrainConfig

_SET_ELSEWHERE = {
    "seed": "seeds",
    "recipe": "the recipe of the row",
    "data": "the world of the row (and data.NAME for its other fields)",
    "data.train": "the world of the row",
    "data.tokenizer": "the world of the row",
    "data.nouns": "the world of the row",
    "evaluation": "the world of the row (and evaluation.NAME for its other fields)",
    "evaluation.root": "the world of the row",
}


@dataclass(frozen=True)
class PlannedRow:
    """A row of the tables."""

    name: str
    label: str
    section: str
    recipe: str
    world: str
    settings: dict[str, Any]
    """All changes to the recipe by dotted name: those for all rows, the row's own, its values of the grid."""
    seeds: tuple[int, ...]
    baseline: str | None
    """Name of the row that it is compared with."""

    @property
    def assignments(self) -> tuple[str, ...]:
        """The settings as ``--set`` takes them."""
        return tuple(f"{name}={json.dumps(value)}" for name, value in self.settings.items())


@dataclass(frozen=True)
class PlannedRun:
    """One training run. Paths of worlds that are made are relative to the output folder."""

    row: PlannedRow
    seed: int
    config: TrainConfig
    split_protocols: dict[str, Protocol]
    """Protocol by name of the split that is measured."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Run folder, relative to the output folder."""
        return Path("runs") / self.row.name / f"seed-{self.seed}"


def plan(spec: AblationSpec) -> list[PlannedRun]:
    """All runs of an ablation, row by row.

    Raises:
        MixreorgError: an unknown recipe, world, baseline or setting, a value that does not fit, or existing data
            that are not there.
    """
    rows = expand_rows(spec)
    names = [row.name for row in rows]
    for baseline in dict.fromkeys(row.baseline for row in rows):
        if baseline is not None and baseline not in names:
            raise MixreorgError(f"baseline: no row is called {baseline!r}{_hint(baseline, names)}")
    for name, world in spec.worlds.items():
        check_world(name, world)
    planned = [run for row in rows for run in _plan_row(spec, row)]
    for split in spec.measure.splits:
        if split.world is not None and split.world not in spec.worlds:
            raise MixreorgError(
                f"split {split.name}: no world is called {split.world!r}{_hint(split.world, spec.worlds)}"
            )
        for name in [split.world] if split.world is not None else dict.fromkeys(row.world for row in rows):
            check_split(name, spec.worlds[name], split.split)
    return planned


def expand_rows(spec: AblationSpec) -> list[PlannedRow]:
    """The rows with their grids written out, named ``ROW-VALUE-VALUE``.

    Raises:
        MixreorgError: two rows of one name.
    """
    rows = [row for name, config in spec.rows.items() for row in _expand(name, config, spec)]
    names = [row.name for row in rows]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise MixreorgError(f"more than one row is called {', '.join(repeated)}; rename them")
    return rows


def select(
    spec: AblationSpec, runs: Sequence[PlannedRun], only: Collection[str], seeds: Collection[int] = ()
) -> list[PlannedRun]:
    """The runs of some rows and seeds; all where these are empty.

    Args:
        spec: that was planned.
        runs: from :func:`plan`.
        only: names of rows, before or after the expansion of grids.
        seeds: of the runs.

    Raises:
        MixreorgError: no such row, or none of them has such a seed.
    """
    chosen = _select_rows(spec, runs, only)
    for seed in seeds:
        if all(run.seed != seed for run in chosen):
            known = ", ".join(str(seed) for seed in sorted({run.seed for run in chosen}))
            raise MixreorgError(f"--seed {seed}: none of these rows has that seed; there are {known}")
    return [run for run in chosen if not seeds or run.seed in seeds]


def _select_rows(spec: AblationSpec, runs: Sequence[PlannedRun], only: Collection[str]) -> list[PlannedRun]:
    if not only:
        return list(runs)
    chosen: set[str] = set()
    names = {row.name for row in expand_rows(spec)}
    for name in only:
        if name in names:
            chosen.add(name)
        elif name in spec.rows:
            chosen |= {row.name for row in _expand(name, spec.rows[name], spec)}
        else:
            raise MixreorgError(f"--only {name}: there is no such row{_hint(name, [*spec.rows, *sorted(names)])}")
    return [run for run in runs if run.row.name in chosen]


def train_command(run: PlannedRun, world: WorldPaths) -> list[str]:
    """The command that trains the same run by itself, to be called in the output folder.

    Args:
        run: the run.
        world: its world with existing paths as the ablation names them.
    """
    command = ["mixreorg", "train", "--recipe", run.row.recipe]
    for data in world.data:
        command += ["--data", data]
    if world.evaluation is not None:
        command += ["--evaluate", world.evaluation]
    nouns = [f"data.nouns={world.nouns}"] if run.config.objective.multi_label.is_on else []
    for assignment in (f"data.tokenizer={world.tokenizer}", *nouns, *run.row.assignments, f"seed={run.seed}"):
        command += ["--set", assignment]
    return [*command, "--out", str(run.folder)]


def _expand(name: str, config: RowConfig, spec: AblationSpec) -> list[PlannedRow]:
    label = name if config.label is None else config.label
    rows = []
    for values in itertools.product(*config.grid.values()):
        chosen = dict(zip(config.grid, values, strict=True))
        parts = [f"{key.rpartition('.')[2]} {_text(value)}" for key, value in chosen.items()]
        rows.append(
            PlannedRow(
                name="-".join([name, *(re.sub(r"[^A-Za-z0-9._+]+", "_", _text(value)).strip("_") for value in values)]),
                label=f"{label}: {', '.join(parts)}" if parts else label,
                section=config.section,
                recipe=config.recipe,
                world=config.world,
                settings=_in_layers(spec.set, config.set, chosen),
                seeds=spec.seeds if config.seeds is None else config.seeds,
                baseline=spec.baseline if config.baseline is None else config.baseline,
            )
        )
    return rows


def _in_layers(*layers: Settings) -> Settings:
    """Settings of which a later layer's are assigned last.

    One of them may be a section, written as a mapping, that holds what another one names by its dotted name.
    """
    settings: Settings = {}
    for layer in layers:
        for name, value in layer.items():
            before = {name: settings.pop(name)} if name in settings else {}
            if isinstance(value, Mapping) and "kind" not in value:
                # What stands below the section by dotted names came after it, and goes last with it.
                for key in [key for key in settings if key.startswith(f"{name}.")]:
                    before = merge(before, {name: _nested(key.removeprefix(f"{name}."), settings.pop(key))})
            settings |= merge(before, {name: value})
    return settings


def _nested(name: str, value: Any) -> Settings:
    """A value by its dotted name as mappings."""
    first, _, rest = name.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _plan_row(spec: AblationSpec, row: PlannedRow) -> list[PlannedRun]:
    source = f"row {row.name}"
    if row.world not in spec.worlds:
        raise MixreorgError(f"{source}: no world is called {row.world!r}{_hint(row.world, spec.worlds)}")
    if spec.worlds[row.world].preset is not None and not (spec.worlds[row.world].train and spec.worlds[row.world].val):
        raise MixreorgError(f"{source}: world {row.world} needs training and validation scenes to be trained on")
    for name in row.settings:
        if name in _SET_ELSEWHERE:
            raise MixreorgError(f"{source}: {name} is not set here but by {_SET_ELSEWHERE[name]}")
    try:
        base = recipe(row.recipe)
    except MixreorgError as error:
        raise MixreorgError(f"{source}: {error}") from None
    world = world_paths(row.world, spec.worlds[row.world])
    data = {"train": list(world.data), "tokenizer": world.tokenizer}
    values = merge(base.to_dict(), {"data": data, "evaluation": {"root": world.evaluation}})
    values = assign(values, row.assignments, TrainConfig, source)
    config = TrainConfig.from_dict(values, source=source)
    nouns = world.nouns if config.objective.multi_label.is_on else None
    if config.objective.multi_label.is_on and nouns is None:
        raise MixreorgError(f"{source}: the multi-label loss needs a word list; give world {row.world} its nouns")
    config = config.updated(data=config.data.updated(nouns=nouns))
    if config.initialise.path is not None:
        config = config.updated(initialise=config.initialise.updated(path=_found_here(config.initialise.path)))
    protocols = _protocols(spec, config.protocol, source)
    return [PlannedRun(row, seed, config.updated(seed=seed), protocols) for seed in row.seeds]


def _protocols(spec: AblationSpec, protocol: Protocol, source: str) -> dict[str, Protocol]:
    # Evaluation counts with thresholds of its own.
    protocol = protocol.updated(background_threshold=None)
    protocols = {}
    for split in spec.measure.splits:
        if "background_threshold" in split.protocol:
            raise MixreorgError(f"split {split.name}: the background threshold is chosen on validation scenes")
        changes = [f"{name}={json.dumps(value)}" for name, value in split.protocol.items()]
        protocols[split.name] = protocol.with_overrides(changes, source=f"{source}, split {split.name}")
    return protocols


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _hint(name: str, known: Iterable[str] | Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"


def _found_here(source: str) -> str:
    """Runs are called in the output folder, so a checkpoint that is beside the caller needs its whole path.

    Names of models stay as they are.
    """
    path = absolute(source)
    return path if Path(path).exists() else source
