"""From nothing to a trained model and a page about it: scenes, tokenizer, pre-training, evaluation, pictures."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from rich.console import Console

from mixreorg.console import plain_console
from mixreorg.data.scenes.presets import easy
from mixreorg.data.scenes.world import SceneCounts, ensure_scenes, ensure_tokenizer
from mixreorg.demo.curves import draw_curves
from mixreorg.demo.page import Command, DemoReport, Scores, write_page
from mixreorg.demo.pictures import mixing_groups, segmentation_rows, spread_stems
from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.evaluate import chance_miou, evaluate_split
from mixreorg.eval.mixed_masks import held_out_pairs, mixed_mask_accuracy_on
from mixreorg.eval.result import BACKGROUND_THRESHOLDS, SplitResult
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.files import read_json, write_json
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.recipes import scenes_mixreorg
from mixreorg.segment.segmenter import Segmenter
from mixreorg.train.config import TrainConfig
from mixreorg.train.run_log import read_log

VOCAB_SIZE = 1024
CONTEXT_LENGTH = 32


@dataclass(frozen=True)
class DemoSize:
    """How much of everything the demonstration makes."""

    num_train: int
    num_val: int
    num_test: int
    steps: int
    evaluate_every: int


FULL = DemoSize(num_train=80_000, num_val=500, num_test=1_000, steps=2_560, evaluate_every=200)
FAST = DemoSize(num_train=4_000, num_val=60, num_test=100, steps=150, evaluate_every=75)


def run_demo(out: Path, *, fast: bool = False, processes: int | None = None, console: Console | None = None) -> Path:
    """Make scenes, pre-train MixReorg on their captions, evaluate, and write ``out/index.html``.

    A second call in the same folder goes on where the first was interrupted: finished scenes are used again and
    training is resumed.

    Args:
        out: gets ``scenes/``, ``tokenizer.json``, ``run/``, ``report.json``, ``index.html``.
        fast: a smoke test of all steps in little more than a minute; the model learns next to nothing.
        processes: training processes, one thread each; by default one per core, at most 4.
        console: where progress goes; standard error by default.

    Returns:
        The page.

    Raises:
        MixreorgError: ``out`` holds another demonstration, or a step failed.
    """
    start = time.perf_counter()
    console = console or plain_console(stderr=True)
    out, size = out.resolve(), FAST if fast else FULL
    processes = _default_processes() if processes is None else processes
    _check_processes(processes)
    counts = SceneCounts(size.num_train, size.num_val, size.num_test)
    scenes = ensure_scenes(easy(), out / "scenes", counts, console)
    tokenizer = out / "tokenizer.json"
    ensure_tokenizer(tokenizer, scenes, console, vocab_size=VOCAB_SIZE, context_length=CONTEXT_LENGTH)
    config = _train_config(out, scenes, size)
    try:
        _train(config, out, processes, console)
        console.print("evaluating on test scenes")
        report, gallery = _evaluate(config, out, scenes)
    finally:
        seconds = _add_seconds(out / "seconds.json", time.perf_counter() - start)
    page = _write(out, report, gallery, seconds)
    console.print(
        f"{seconds:.0f} s: foreground mIoU {report['foreground_miou']:.1f} "
        f"(untrained {report['untrained_foreground_miou']:.1f}), page {page}",
        highlight=False,
        markup=False,
    )
    return page


def _check_processes(processes: int) -> None:
    """Groups that are mixed stay together, so processes share whole ones."""
    recipe = scenes_mixreorg()
    assert isinstance(recipe.objective, MixReorgConfig)
    groups = recipe.batch_size // recipe.objective.group_size
    if processes < 1 or groups % processes:
        raise MixreorgError(f"--processes {processes}: the {groups} groups of a step must divide by it")


def _add_seconds(path: Path, seconds: float) -> float:
    """Seconds of all calls that led to this page: an interrupted demonstration was not quick."""
    total = seconds + (float(read_json(path)["seconds"]) if path.is_file() else 0.0)
    write_json(path, {"seconds": total})
    return total


def _train_config(out: Path, scenes: Path, size: DemoSize) -> TrainConfig:
    base = scenes_mixreorg()
    return base.updated(
        data=base.data.updated(train=(str(scenes / "train"),), tokenizer=str(out / "tokenizer.json")),
        evaluation=base.evaluation.updated(root=str(scenes / "VOC"), every=size.evaluate_every),
        steps=size.steps,
        checkpoint_every=size.evaluate_every,
    )


def _default_processes() -> int:
    """A core per process beats threads on models this small; the batch must divide among them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 4 if cores >= 4 else 2 if cores >= 2 else 1


def _train(config: TrainConfig, out: Path, processes: int, console: Console) -> None:
    """Run ``mixreorg train`` in processes of one thread each, resuming a run that was interrupted."""
    run = out / "run"
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    write_json(out / "train_config.json", config.to_dict())
    command += ["mixreorg", "train", "--config", str(out / "train_config.json"), "--out", str(run)]
    command += ["--resume", "auto", "--device", "cpu"]
    console.print(f"training {config.steps} steps in {processes} processes", highlight=False)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            # The training processes got it too and are writing their checkpoint.
            continue
    if code != 0:
        raise MixreorgError(f"training stopped with exit code {code}; run the demo again to continue from {run}")


@dataclass(frozen=True)
class _Gallery:
    """What the page shows besides numbers."""

    config: TrainConfig
    num_parameters: int
    trained: SplitResult
    untrained: SplitResult
    threshold: float
    chance: float
    mixing: list[Any]
    segmentation: list[Any]
    captions: tuple[str, ...]


def _evaluate(config: TrainConfig, out: Path, scenes: Path) -> tuple[dict[str, Any], _Gallery]:
    model = load_model(out / "run")
    val, test = open_voc_split(scenes / "VOC", "val"), open_voc_split(scenes / "VOC", "test")
    threshold, trained = _measure(model, val, test)
    torch.manual_seed(config.seed)
    _, untrained = _measure(DualEncoder(model.config, model.tokenizer), val, test)
    assert isinstance(config.objective, MixReorgConfig)
    objective = MixReorgObjective(model, config.objective).eval()
    pairs = held_out_pairs(scenes / "VOC", "val", 256)
    accuracy = mixed_mask_accuracy_on(objective, pairs)
    gallery = _Gallery(
        config=config,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=trained,
        untrained=untrained,
        threshold=threshold,
        chance=chance_miou(test),
        mixing=mixing_groups(objective, pairs[: 2 * config.objective.group_size]),
        segmentation=segmentation_rows(Segmenter(model), test, spread_stems(test), threshold),
        captions=tuple(pair.caption for pair in pairs[:2]),
    )
    report = {
        "foreground_miou": trained.foreground.miou(),
        "background_miou": trained.background[threshold].miou(),
        "background_threshold": threshold,
        "present_miou": trained.present.miou(),
        "recognition": trained.metrics()["recognition"],
        "untrained_foreground_miou": untrained.foreground.miou(),
        "untrained_background_miou": next(iter(untrained.background.values())).miou(),
        "chance_foreground_miou": gallery.chance,
        "mixed_mask_accuracy": accuracy,
        "num_test_scenes": trained.num_images,
    }
    return report, gallery


def _measure(model: DualEncoder, val: BenchmarkSplit, test: BenchmarkSplit) -> tuple[float, SplitResult]:
    """Background threshold chosen on val, and the counts on test at that threshold."""
    segmenter = Segmenter(model, scenes_mixreorg().protocol, window_batch=64)
    threshold = evaluate_split(segmenter, val, BACKGROUND_THRESHOLDS).best_threshold()
    return threshold, evaluate_split(segmenter, test, (threshold,))


def _write(out: Path, report: dict[str, Any], gallery: _Gallery, seconds: float) -> Path:
    config = gallery.config
    assert isinstance(config.objective, MixReorgConfig)
    write_json(out / "report.json", {**report, "seconds": seconds})
    facts = DemoReport(
        seconds=seconds,
        recipe=config.recipe,
        class_names=gallery.trained.class_names,
        captions=gallery.captions,
        num_pairs=read_json(out / "scenes" / "scenes.json")["num_scenes"]["train"],
        image_size=config.model.image.image_size,
        num_parameters=gallery.num_parameters,
        steps=config.steps,
        batch_size=config.batch_size,
        group_size=config.objective.group_size,
        parts=_parts(config.objective),
        num_test_scenes=gallery.trained.num_images,
        trained=_scores(gallery.trained),
        untrained=_scores(gallery.untrained),
        chance=Scores(gallery.chance),
        threshold=gallery.threshold,
        is_best_checkpoint=True,
        mixed_mask_accuracy=report["mixed_mask_accuracy"],
        commands=_commands(out, fast=config.steps == FAST.steps),
    )
    page = out / "index.html"
    curves = draw_curves(read_log(out / "run" / "log.jsonl"))
    write_page(page, facts, curves=curves, mixing=gallery.mixing, segmentation=gallery.segmentation)
    return page


def _scores(result: SplitResult) -> Scores:
    return Scores(result.foreground.miou(), next(iter(result.background.values())).miou(), result.present.miou())


def _parts(objective: MixReorgConfig) -> str:
    """Which of the method's three stages a recipe uses, in words."""
    blocks = objective.num_contextual_blocks
    context = f"after {blocks} contextual blocks" if blocks else "right after the patch embedding"
    progressive = (
        "without progressive mixing" if objective.combine == "none" else f"progressive mixing by {objective.combine}"
    )
    restored = "without the restored branch" if objective.restored.weight == 0 else "with the restored branch"
    return f"Patches are mixed {context}, {progressive} and {restored}."


def _commands(out: Path, *, fast: bool) -> tuple[Command, ...]:
    run = out / "run"
    photo = quote(str(out / "scenes" / "VOC" / "JPEGImages" / "test_000000.jpg"))
    classes = '--classes "dog, cat=cat|kitten, car" --out masks'
    return (
        Command("The whole demonstration", f"mixreorg demo --out {quote(str(out))}" + (" --fast" if fast else "")),
        Command(
            "Segment a photo with any class names",
            f"mixreorg segment {photo} --model {quote(str(run))} {classes}",
        ),
        Command("Look at the logs", f"tensorboard --logdir {quote(str(run / 'tensorboard'))}"),
    )
