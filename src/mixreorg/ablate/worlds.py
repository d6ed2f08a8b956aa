"""The worlds of an ablation: where their files are, and making those that do not exist."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mixreorg.ablate.spec import WorldConfig
from mixreorg.config import differences
from mixreorg.data.scenes.presets import ScenesConfig, preset
from mixreorg.data.scenes.world import SceneCounts, ensure_scenes, ensure_tokenizer
from mixreorg.data.specs import expand
from mixreorg.errors import MixreorgError
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.files import read_json, write_json
from mixreorg.text.nouns import NounList
from mixreorg.text.tokenizer import Tokenizer

_RECORD = "world.json"
"""File in the folder of a world with what it was made of."""


@dataclass(frozen=True)
class WorldPaths:
    """Where the files of a world are. Those of worlds that are made are relative to the output folder."""

    data: tuple[str, ...]
    evaluation: str | None
    tokenizer: str
    nouns: str | None


def absolute(path: str) -> str:
    """A path as the runs, which are called in another folder, need it; an address stays as it is."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def world_paths(name: str, world: WorldConfig, *, as_written: bool = False) -> WorldPaths:
    """Where the files of a world are.

    Args:
        name: of the world.
        world: as the ablation describes it.
        as_written: existing paths as in the ablation, rather than absolute.
    """
    if world.preset is not None:
        folder = Path("worlds") / name
        voc = str(folder / "scenes" / "VOC")
        return WorldPaths((str(folder / "scenes" / "train"),), voc, str(folder / "tokenizer.json"), voc)
    if as_written:
        return WorldPaths(world.data, world.evaluation, world.tokenizer, world.nouns)
    tokenizer = world.tokenizer if world.tokenizer == "clip" else absolute(world.tokenizer)
    evaluation, nouns = (None if path is None else absolute(path) for path in (world.evaluation, world.nouns))
    return WorldPaths(tuple(absolute(item) for item in world.data), evaluation, tokenizer, nouns)


def scenes_config(name: str, world: WorldConfig) -> ScenesConfig:
    """What the scenes of a world that is made look like.

    Raises:
        MixreorgError: no such preset or setting, or the seed among the settings.
    """
    source = f"world {name}"
    if "seed" in world.set:
        raise MixreorgError(f"{source}: seed is not set here but by the seed of the world, beside set")
    try:
        config = preset(str(world.preset))
    except MixreorgError as error:
        raise MixreorgError(f"{source}: {error}") from None
    changes = {**world.set, "seed": world.seed}
    return ScenesConfig.from_dict({**config.to_dict(), **changes}, source=source)


def labelled_stuff(name: str, world: WorldConfig) -> tuple[str, ...]:
    """The classes of a world that are stuff; none where it exists, because its class list does not say."""
    return () if world.preset is None else scenes_config(name, world).labelled_stuff


def check_world(name: str, world: WorldConfig) -> None:
    """Whether a world can be made, or is there.

    Raises:
        MixreorgError: its preset or settings are wrong, or its files are missing.
    """
    if world.preset is not None:
        scenes_config(name, world)
        return
    try:
        paths = world_paths(name, world)
        for data in paths.data:
            expand(data)
        if paths.evaluation is not None:
            open_voc_split(Path(paths.evaluation), "val")
        if paths.tokenizer != "clip":
            Tokenizer.from_file(Path(paths.tokenizer))
        if paths.nouns is not None:
            NounList.from_file(Path(paths.nouns))
    except MixreorgError as error:
        raise MixreorgError(f"world {name}: {error}") from None


def check_split(name: str, world: WorldConfig, split: str) -> None:
    """Whether a world has a split, or will have it.

    Raises:
        MixreorgError: it has not.
    """
    if world.preset is not None:
        counts = {"val": world.val, "test": world.test}
        if scenes_config(name, world).held_out_pairs:
            counts["test_heldout"] = world.test // 2
        known = [item for item, count in counts.items() if count]
        if split not in known:
            raise MixreorgError(f"world {name} has no split {split!r}; it has {', '.join(known) or 'none'}")
    elif world.evaluation is None:
        raise MixreorgError(f"world {name} has no evaluation folder to measure the split {split!r} in; give it one")
    else:
        open_voc_split(Path(absolute(world.evaluation)), split)


def check_made_world(name: str, world: WorldConfig, out: Path) -> None:
    """Whether a folder holds the world, if it holds one of this name.

    Args:
        name: of the world.
        world: as the ablation describes it.
        out: output folder of the ablation.

    Raises:
        MixreorgError: it holds another world; it says what differs.
    """
    folder = out / "worlds" / name
    record = folder / _RECORD
    if world.preset is None or not record.is_file():
        return
    # Read as a configuration: one that an earlier version wrote lacks the newest fields.
    made = WorldConfig.from_dict(read_json(record), source=str(record))
    if changed := differences(made.to_dict(), world.to_dict()):
        raise MixreorgError(
            f"{folder} was made with another {', '.join(changed)}; give the world of the ablation another name, or "
            "choose another --out"
        )


def make_world(name: str, world: WorldConfig, out: Path, console: Console) -> None:
    """Make the scenes and the tokenizer of a world, unless they are there.

    Args:
        name: of the world.
        world: as the ablation describes it; nothing is made where it exists.
        out: output folder of the ablation.
        console: where progress goes.

    Raises:
        MixreorgError: the folder holds another world; it says what differs.
    """
    if world.preset is None:
        return
    folder = out / "worlds" / name
    check_made_world(name, world, out)
    if not (folder / _RECORD).is_file():
        write_json(folder / _RECORD, world.to_dict())
    counts = SceneCounts(world.train, world.val, world.test)
    scenes = ensure_scenes(scenes_config(name, world), folder / "scenes", counts, console)
    if world.train:
        path = folder / "tokenizer.json"
        ensure_tokenizer(path, scenes, console, vocab_size=world.vocab_size, context_length=world.context_length)


def world_commands(name: str, world: WorldConfig) -> tuple[str, ...]:
    """Commands that make the same world by themselves, to be called in the output folder."""
    if world.preset is None:
        return ()
    paths, folder = world_paths(name, world), Path("worlds") / name
    config, base = scenes_config(name, world).to_dict(), preset(world.preset).to_dict()
    scenes = ["mixreorg", "data", "scenes", str(folder / "scenes"), "--preset", world.preset]
    scenes += ["--train", str(world.train), "--val", str(world.val), "--test", str(world.test)]
    scenes += ["--seed", str(world.seed)]
    for setting in differences(base, config):
        if setting != "seed":
            scenes += ["--set", f"{setting}={json.dumps(config[setting])}"]
    if not world.train:
        return (shlex.join(scenes),)
    tokenizer = ["mixreorg", "data", "tokenizer", "--data", paths.data[0], "--out", paths.tokenizer]
    tokenizer += ["--vocab-size", str(world.vocab_size), "--context-length", str(world.context_length)]
    return shlex.join(scenes), shlex.join(tokenizer)
