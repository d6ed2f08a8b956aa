"""Scenes and their tokenizer, made once and used again by every later call."""

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mixreorg.config import differences
from mixreorg.data.pairs import open_pairs
from mixreorg.data.scenes.generate import generate_scenes
from mixreorg.data.scenes.presets import ScenesConfig
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json
from mixreorg.text.tokenizer import Tokenizer

_SCENES_PER_WORKER = 500


@dataclass(frozen=True)
class SceneCounts:
    """Scenes of each split."""

    train: int
    val: int
    test: int


def ensure_scenes(config: ScenesConfig, folder: Path, counts: SceneCounts, console: Console) -> Path:
    """Make scenes, many of them with a process per core, or use the same ones made earlier.

    Args:
        config: what the scenes look like.
        folder: as for :func:`~mixreorg.data.scenes.generate.generate_scenes`.
        counts: scenes of each split.
        console: where progress goes.

    Returns:
        ``folder``.

    Raises:
        MixreorgError: ``folder`` holds other scenes; it says what differs.
    """
    description = folder / "scenes.json"
    if not description.is_file():
        # For few scenes the start of further processes takes longer than it saves.
        workers = min(os.cpu_count() or 1, (counts.train + counts.val + counts.test) // _SCENES_PER_WORKER + 1)
        return generate_scenes(config, folder, counts.train, counts.val, counts.test, workers=workers, console=console)
    made = read_json(description)
    try:
        # Through the configuration: a folder made before a setting existed was made with its default.
        there = ScenesConfig.from_dict(made.get("config") or {}).to_dict()
    except MixreorgError:
        there = {}
    wanted = {**config.to_dict(), "train": counts.train, "val": counts.val, "test": counts.test}
    changed = [
        name for name in differences({**there, **(made.get("num_scenes") or {})}, wanted) if name != "test_heldout"
    ]
    if changed:
        raise MixreorgError(
            f"{folder} holds other scenes (another {', '.join(changed[:5])}); choose another --out or remove the folder"
        )
    console.print(f"using the scenes in {folder}", highlight=False, markup=False, soft_wrap=True)
    return folder


def ensure_tokenizer(path: Path, scenes: Path, console: Console, *, vocab_size: int, context_length: int) -> Path:
    """Learn a tokenizer from the captions of the training scenes, or use the one learned earlier.

    Args:
        path: the tokenizer file.
        scenes: folder from :func:`ensure_scenes`.
        console: where progress goes.
        vocab_size: token ids at most.
        context_length: token ids per caption.

    Returns:
        ``path``.
    """
    if not path.is_file():
        console.print("learning a small vocabulary from the captions")
        captions = open_pairs(scenes / "train").captions()
        Tokenizer.train(captions, vocab_size=vocab_size, context_length=context_length).save(path)
    return path
