"""From a configuration to the things it names: tokenizer, objective, run folder."""

from pathlib import Path
from typing import Any, Literal

from mixreorg.data.pairs import PairSource, open_pairs
from mixreorg.errors import MixreorgError
from mixreorg.files import read_json
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.groupvit import GroupViTConfig, GroupViTObjective
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.objective import Objective
from mixreorg.text.noun_prompts import NounPrompter
from mixreorg.text.nouns import NounList
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.card import RunFacts, read_card
from mixreorg.train.config import Objective as ObjectiveConfig
from mixreorg.train.config import TrainConfig

Resume = Literal["never", "auto"]

FREE = ("engine", "log_every", "alarms", "wandb_project", "keep_checkpoints")
"""Fields of a run's configuration that change no number of it."""
FREE_DATA = ("train", "num_workers", "index_dir", "cache_dir", "cache_gb")
"""The same of its ``data``: where pairs lie, and how they are fetched."""


def resolve(config: TrainConfig, *, bf16: bool) -> tuple[TrainConfig, Tokenizer]:
    """Settle what a configuration leaves to the tokenizer, the objective and the device.

    Args:
        config: of a run.
        bf16: whether the device to train on computes in bfloat16, which ``precision: auto`` then takes.

    Returns:
        The configuration with the tokenizer's vocabulary, context length and end-of-text id, and a model with the logit
        scales that the objective has use for; and the tokenizer.
    """
    tokenizer = Tokenizer.named(config.data.tokenizer)
    text = config.model.text.updated(
        vocab_size=tokenizer.vocab_size, context_length=tokenizer.context_length, end_id=tokenizer.end_id
    )
    model = config.model.updated(text=text, multi_label=config.objective.multi_label.is_on)
    automatic = "bf16" if bf16 else "fp32"
    precision = automatic if config.precision == "auto" else config.precision
    return config.updated(model=model, precision=precision), tokenizer


def build_objective(model: DualEncoder, config: ObjectiveConfig) -> Objective:
    """The objective that a configuration stands for."""
    match config:
        case GroupViTConfig():
            return GroupViTObjective(model, config)
        case MixReorgConfig():
            return MixReorgObjective(model, config)


def open_source(config: TrainConfig) -> PairSource:
    """The caption pairs of a run."""
    data = config.data
    return open_pairs(data.train, index_dir=data.index_dir, cache_dir=data.cache_dir, cache_gb=data.cache_gb)


def open_nouns(config: TrainConfig, tokenizer: Tokenizer) -> NounPrompter | None:
    """What makes noun prompts in a run; None where its objective has no use for them.

    Raises:
        MixreorgError: there is no word list, or it cannot be read.
    """
    loss = config.objective.multi_label
    if not loss.is_on:
        return None
    if config.data.nouns is None:
        raise MixreorgError(
            "the multi-label loss needs a word list: name one with --set data.nouns=FILE (one noun per line, or a "
            "folder in VOC layout), or leave the loss out with --set objective.multi_label.weight.weight=0"
        )
    nouns = NounList.from_file(Path(config.data.nouns))
    return NounPrompter(nouns, tokenizer, loss.num_nouns, loss.templates, config.seed)


def check_run_folder(run: Path, config: TrainConfig, resume: Resume) -> bool:
    """Whether a folder holds the run to go on with.

    Raises:
        MixreorgError: it holds a run already and ``resume`` is ``never``, or that run is another one.
    """
    path = run / "train_config.json"
    if not path.is_file():
        return False
    if resume == "never":
        raise MixreorgError(f"{run} holds a run already; continue it with --resume auto, or choose another --out")
    # Read as a configuration: one that an earlier version wrote lacks the newest fields.
    _check_same_run(TrainConfig.from_dict(read_json(path), source=str(path)).to_dict(), config)
    return True


def check_same_tokenizer(checkpoint: Path, tokenizer: Tokenizer) -> None:
    """Another vocabulary under the old name would give the words other rows of the trained embedding.

    Raises:
        MixreorgError: the tokenizer is not the one that the checkpoint was trained with.
    """
    own = checkpoint / "tokenizer.json"
    if Tokenizer.from_file(own).to_dict() != tokenizer.to_dict():
        raise MixreorgError(
            f"the run was started with another tokenizer than data.tokenizer holds now; put a copy of {own} in its "
            "place, or start a new run folder"
        )


def check_same_data(checkpoint: Path, facts: RunFacts) -> None:
    """Other pairs or nouns under the old paths, or the old pairs with a shard missing, would make another run.

    Raises:
        MixreorgError: the pairs or nouns are not those that the checkpoint was trained on.
    """
    data = read_card(checkpoint).data
    if data.fingerprint is not None and data.fingerprint != facts.fingerprint:
        raise MixreorgError(
            f"the run was started on other caption pairs: {data.num_pairs:,} then, {facts.num_pairs:,} now, or others "
            "of the same number; restore them (mixreorg data check tells what is missing), or start a new run folder"
        )
    if data.nouns != facts.nouns:
        raise MixreorgError(
            "the run was started with another word list (data.nouns); name a file with the same lines, or start a new "
            "run folder"
        )


def _check_same_run(saved: dict[str, Any], config: TrainConfig) -> None:
    """Resuming with another configuration would make a run that no single configuration describes."""
    current = config.to_dict()
    # What the tokenizer decides: it is compared itself, with the copy beside the weights.
    for name in ("vocab_size", "context_length", "end_id"):
        current["model"]["text"][name] = saved["model"]["text"][name]
    # A run may also be made longer, and the list of its words may have moved.
    free, free_data = (*FREE, "steps", "data"), (*FREE_DATA, "nouns")
    changed = [name for name in current if name not in free and current[name] != saved[name]]
    data, saved_data = current["data"], saved["data"]
    changed += [f"data.{name}" for name in data if name not in free_data and data[name] != saved_data[name]]
    if changed:
        raise MixreorgError(
            f"the run was started with other values of {', '.join(changed)}; resume it with its own "
            "train_config.json (--config), or start a new run folder"
        )
