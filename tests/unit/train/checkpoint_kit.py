"""A tiny objective whose every number tells which save it comes from; as a script, saves that die half-way.

``python checkpoint_kit.py deaths FOLDER`` saves into copies of a run folder, each time in a child process that ends
at another file-system operation, and prints as JSON what a resumed run finds each time. ``torchrun checkpoint_kit.py
latest RUN`` prints what the processes find together, a line each.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from mixreorg.errors import MixreorgError
from mixreorg.models import folder as model_folder
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.image_encoder import ImageEncoderConfig
from mixreorg.models.text_encoder import TextEncoderConfig
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.checkpoint import CheckpointStore, Progress
from mixreorg.train.config import OptimConfig, TrainConfig
from mixreorg.train.optim import build_optimizer

KILLED = 9


class KitObjective(nn.Module):
    """A model and one parameter of the objective's own."""

    def __init__(self, model: DualEncoder, own: str) -> None:
        super().__init__()
        self.model = model
        self.register_parameter(own, nn.Parameter(torch.zeros(3)))


class Kit:
    """What a store saves and restores."""

    def __init__(self, own: str = "gate") -> None:
        captions = [f"a photo of a {name}" for name in ("dog", "cat", "car")]
        tokenizer = Tokenizer.train(captions, vocab_size=530, context_length=8)
        image = ImageEncoderConfig(
            image_size=16,
            patch_size=8,
            width=8,
            num_heads=1,
            depths=(1, 1, 1),
            num_group_tokens=(3, 2),
            num_segments=(3, 2),
        )
        text = TextEncoderConfig(
            vocab_size=tokenizer.vocab_size, context_length=8, end_id=tokenizer.end_id, width=8, depth=1, num_heads=1
        )
        config = DualEncoderConfig(image=image, text=text, embed_dim=8, projector_hidden=8)
        self.model = DualEncoder(config, tokenizer)
        self.objective = KitObjective(self.model, own)
        self.optimizer = build_optimizer(self.objective, OptimConfig())
        # Moments of two parameters are enough, and quicker to save two hundred times.
        for parameter in (self.objective.get_parameter(own), self.model.logit_scale):
            parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()

    def save(self, store: CheckpointStore, step: int, value: float, **metrics: float) -> Path:
        """Save with every parameter and moment set to a value."""
        with torch.no_grad():
            for parameter in self.objective.parameters():
                parameter.fill_(value)
            for state in self.optimizer.state.values():
                state["exp_avg"].fill_(value)
        return store.save(self.objective, self.model, self.optimizer, Progress(step, metrics))

    def restore(self, store: CheckpointStore, checkpoint: Path) -> tuple[int, float]:
        """Restore, and return the step and the one value that everything must have."""
        step = store.restore(checkpoint, self.objective, self.model, self.optimizer)
        found = {float(value) for parameter in self.objective.parameters() for value in parameter.detach().unique()}
        found |= {float(value) for state in self.optimizer.state.values() for value in state["exp_avg"].unique()}
        assert len(found) == 1, found
        return step, found.pop()


def kit_store(run: Path, keep: int) -> CheckpointStore:
    """A store that keeps so many checkpoints."""
    return CheckpointStore(run, TrainConfig(keep_checkpoints=keep))


class _Dying:
    """Ends the process just before a numbered change to the file system; weights are left half-written."""

    _CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod")

    def __init__(self, last: int) -> None:
        self.last = last
        self.count = 0
        sys.addaudithook(self._on_event)
        save_file = model_folder.save_file

        def dying_save_file(tensors: Any, path: Path, **options: Any) -> None:
            save_file(tensors, path, **options)
            self._next(lambda: os.truncate(path, path.stat().st_size // 2))

        os.fsync = lambda descriptor: self._next()
        model_folder.save_file = dying_save_file

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in self._CHANGES or writes:
            self._next()

    def _next(self, leave: Callable[[], None] = lambda: None) -> None:
        self.count += 1
        if self.count == self.last:
            self.last = 0
            leave()
            os._exit(KILLED)


def deaths(kit: Kit, base: Path, keep: int, step: int, value: float) -> list[dict[str, Any]]:
    """Save into copies of a run, dying at one operation after the other, and tell what is found each time."""
    found: list[dict[str, Any]] = []
    status = KILLED
    while status != 0:
        copy = base.with_name(f"{base.name}-copy")
        shutil.copytree(base, copy)
        child = os.fork()
        if child == 0:
            _Dying(len(found) + 1)
            kit.save(kit_store(copy, keep), step, value)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED), status
        store = kit_store(copy, keep)
        warnings: list[str] = []
        checkpoint = store.latest(warnings.append)
        left = sorted(path.name for path in (*copy.iterdir(), *store.folder.iterdir()))
        state = json.loads((copy / "state.json").read_text())
        found.append({"restored": checkpoint and kit.restore(store, checkpoint), "warnings": warnings, "left": left})
        assert checkpoint is None or state["latest"] == checkpoint.name
        shutil.rmtree(copy)
    return found


def print_latest(run: Path) -> None:
    """What each of several processes is told."""
    dist.init_process_group("gloo")
    try:
        found = str(kit_store(run, keep=3).latest(lambda line: sys.stdout.write(f"warning {line}\n")))
    except MixreorgError as error:
        found = str(error)
    sys.stdout.write(f"process {dist.get_rank()}: {found}\n")
    dist.destroy_process_group()


def print_deaths(folder: Path) -> None:
    """Die while saving the next step, and while saving a step that is there already."""
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # processes die here, not machines
    kit = Kit()
    for name, steps in {"next": (1, 2), "again": (2,)}.items():
        (folder / name).mkdir()
        for step in steps:
            kit.save(kit_store(folder / name, 2), step, step)
    report = {
        "next": deaths(kit, folder / "next", keep=2, step=3, value=3),
        "again": deaths(kit, folder / "again", keep=1, step=2, value=2.5),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    {"deaths": print_deaths, "latest": print_latest}[sys.argv[1]](Path(sys.argv[2]))
