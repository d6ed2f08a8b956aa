"""``mixreorg eval``: a model on benchmarks, from opening the data to the written report."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console

import mixreorg
from mixreorg.charts import figure_class
from mixreorg.data.progress import progress_bars
from mixreorg.errors import MixreorgError
from mixreorg.eval.array_files import write_arrays
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.benchmarks.check import upright_size
from mixreorg.eval.benchmarks.opening import open_benchmark
from mixreorg.eval.benchmarks.own_folder import OWN_LAYOUTS
from mixreorg.eval.benchmarks.prepare import Prepared, PrepareOptions, prepare
from mixreorg.eval.benchmarks.registry import benchmark
from mixreorg.eval.evaluate import plan_photo, read_pair
from mixreorg.eval.evaluators import (
    Evaluator,
    FunctionEvaluator,
    Measure,
    SegmenterEvaluator,
    is_function_spec,
    load_function,
)
from mixreorg.eval.parts import Counted, PartsJob, require_unused, run_parts
from mixreorg.eval.protocols import EvaluationProtocol, ResolvedProtocol, find_protocol, resolve_protocol
from mixreorg.eval.report.facts import build_facts
from mixreorg.eval.report.markdown import table, write_markdown
from mixreorg.eval.report.page import LabelledPhoto, write_html
from mixreorg.eval.report.words import caveats, headline, number
from mixreorg.eval.result import BACKGROUND_THRESHOLDS
from mixreorg.files import write_json, write_text
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.protocol import hash_values
from mixreorg.segment.segmenter import Segmenter, default_protocol

MODEL_PROTOCOL = "model"
"""Stands for the protocol that is saved with the model."""

_KINDS = ("calibration", "evaluation")

LoadModel = Callable[[str, str], DualEncoder]
"""Path or name and device to a model; a function of a module, for other processes load by it, too."""


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate and how."""

    model: str
    """Path or name of a model, or ``file.py:function`` of an adapter."""
    benchmarks: tuple[str, ...]
    """Names or aliases."""
    data: Path
    """Folder of the data set, or one that holds all of them."""
    out: Path
    """Folder of the results."""
    protocol: str = "groupvit"
    """Name, ``model``, or a JSON file."""
    split: str = "val"
    """Split that is evaluated."""
    threshold: float | None = None
    """Background threshold instead of the published one."""
    calibrate_on: str | None = None
    """Split that the threshold is chosen on."""
    classes: Path | None = None
    """Class list of own data."""
    max_images: int | None = None
    """Only the first so many photos of every split."""
    device: str = "cpu"
    """Where the model runs."""
    workers: int = 1
    """Processes."""
    window_batch: int = 8
    """Windows encoded at once."""
    resume: bool = False
    """Go on with what the folder holds."""
    cache: Path | None = None
    """Folder of class embeddings; none are kept without it."""


@dataclass(frozen=True)
class MakeEvaluator:
    """Loads the model in whatever process calls it."""

    options: EvalOptions
    protocol: ResolvedProtocol
    load_model: LoadModel

    def __call__(self) -> Evaluator:
        """Load."""
        options = self.options
        if is_function_spec(options.model):
            return load_function(options.model, self.protocol, options.device)
        model = self.load_model(options.model, options.device)
        return SegmenterEvaluator(model, self.protocol, window_batch=options.window_batch, cache=options.cache)


@dataclass(frozen=True)
class _Task:
    """One benchmark, opened."""

    name: str
    """Canonical."""
    split: BenchmarkSplit
    calibration: BenchmarkSplit | None
    protocol: ResolvedProtocol
    folder: Path


def run_evaluation(options: EvalOptions, load_model: LoadModel, console: Console) -> list[dict[str, Any]]:
    """Evaluate a model on benchmarks and write the reports.

    Each benchmark's ``report.json``, ``report.md``, ``report.html`` and ``photos.npz`` (counts per photo, for
    comparisons) lie in ``out``, or with several benchmarks in ``out/BENCHMARK``, and then ``out/summary.md`` as well.

    Args:
        options: what to evaluate.
        load_model: loads models.
        console: for progress and results.

    Returns:
        The facts of each benchmark.

    Raises:
        MixreorgError: anything wrong with model, data or options, before the long run where that can be known.
    """
    tasks, model = _open(options, load_model)
    _require_ready(options, tasks)
    facts = []
    for opened in tasks:
        task = opened
        heading = f"{task.split.name}: protocol {task.protocol.name}, {task.protocol.hash()}"
        console.print(heading, highlight=False, markup=False)
        make = MakeEvaluator(options, task.protocol, load_model)
        evaluator = _evaluator(make, model)
        if task.calibration is not None:
            chosen = _count(options, task, task.calibration, make, evaluator, console, calibration=True)
            task = replace(task, protocol=replace(task.protocol, threshold=chosen.result.best_threshold()))
        counted = _count(options, task, task.split, make, evaluator, console, calibration=False)
        description = {"name": _model_name(options.model), "source": options.model, **evaluator.identity()}
        official = _official_counts(task.name, options.split)
        facts.append(_write(task, counted, evaluator, {**description, "device": options.device}, official))
        for line in (headline(facts[-1]), *caveats(facts[-1])):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        console.print(f"report: {task.folder / 'report.html'}", highlight=False, markup=False, soft_wrap=True)
    if len(facts) > 1:
        _write_summary(options.out, facts)
    return facts


def check_evaluation(options: EvalOptions, load_model: LoadModel, console: Console) -> list[Prepared]:
    """Everything that can be found wrong without the long run: model, protocol, data, every photo's files.

    Nothing is written, not even to the cache.

    Returns:
        Per benchmark what :func:`~mixreorg.eval.benchmarks.prepare.prepare` found.

    Raises:
        MixreorgError: what the run itself would stop at.
    """
    options = replace(options, cache=None)
    tasks, model = _open(options, load_model)
    _require_ready(options, tasks)
    found = []
    for task, name in zip(tasks, options.benchmarks, strict=True):
        for split in filter(None, (options.split, options.calibrate_on)):
            checks = PrepareOptions(split=split, check_only=True, sample=None, classes=options.classes)
            found.append(prepare(name, options.data, checks, console))
        evaluator = _evaluator(MakeEvaluator(options, task.protocol, load_model), model)
        if isinstance(evaluator, SegmenterEvaluator):
            for opened in filter(None, (task.split, task.calibration)):
                _require_patches(evaluator.segmenter, opened)
        photo, _ = read_pair(task.split, task.split.stems[0])
        evaluator.label(task.split, photo, 0.5 if task.split.has_background else None)
    return found


def _require_patches(segmenter: Segmenter, split: BenchmarkSplit) -> None:
    """Refuse photos thinner than one patch, by their headers."""
    for path in map(split.photo_path, split.stems):
        # Photos that cannot be read are among the findings already.
        with suppress(OSError, UnidentifiedImageError, Image.DecompressionBombError):
            plan_photo(segmenter, path, upright_size(path))


def _require_ready(options: EvalOptions, tasks: Sequence[_Task]) -> None:
    """Check what the reports need, of several benchmarks the last one's folder, too, before the first is evaluated."""
    figure_class()
    for task in tasks:
        for kind in () if options.resume else _KINDS:
            require_unused(_parts(task, kind))


def _open(options: EvalOptions, load_model: LoadModel) -> tuple[list[_Task], DualEncoder | None]:
    """Open all splits and the model, so that every error comes before the first long run."""
    names = [name if name in OWN_LAYOUTS else benchmark(name).name for name in options.benchmarks]
    if not names:
        raise MixreorgError("no benchmark is named; name one or several with --benchmark, for example voc12,ade150")
    if len(set(names)) < len(names):
        raise MixreorgError(f"a benchmark is named twice in {', '.join(options.benchmarks)}; name each once")
    is_function = is_function_spec(options.model)
    if is_function and (options.calibrate_on is not None or options.protocol == MODEL_PROTOCOL):
        raise MixreorgError("an adapter has no threshold and no protocol of its own; name a protocol, not 'model'")
    model = None if is_function else load_model(options.model, options.device)
    protocol = _protocol(options, model)
    tasks = []
    for name in names:

        def opened(split: str, name: str = name) -> BenchmarkSplit:
            return open_benchmark(
                name,
                options.data,
                split,
                naming=protocol.naming,
                classes=options.classes,
                max_images=options.max_images,
            )

        split = opened(options.split)
        resolved = resolve_protocol(
            protocol, name, split, threshold=options.threshold, calibrate_on=options.calibrate_on
        )
        calibration = opened(options.calibrate_on) if options.calibrate_on is not None else None
        if calibration is not None:
            _require_apart(split, calibration)
        folder = options.out / name if len(names) > 1 else options.out
        tasks.append(_Task(name, split, calibration, resolved, folder))
    return tasks, model


def _require_apart(split: BenchmarkSplit, calibration: BenchmarkSplit) -> None:
    """A threshold is chosen on other photos: one split may hold another, or have two names."""
    evaluated = {split.photo_path(stem).resolve() for stem in split.stems}
    shared = sum(calibration.photo_path(stem).resolve() in evaluated for stem in calibration.stems)
    if shared:
        raise MixreorgError(
            f"the threshold cannot be chosen on {calibration.name}: {shared:,} of its {len(calibration.stems):,} "
            f"photos are in {split.name}, which is evaluated; name a split of other photos"
        )


def _protocol(options: EvalOptions, model: DualEncoder | None) -> EvaluationProtocol:
    if options.protocol != MODEL_PROTOCOL:
        return find_protocol(options.protocol)
    assert model is not None
    own = default_protocol(model)
    return EvaluationProtocol(
        # Not its own name: that of a published protocol would say that numbers are comparable.
        name=MODEL_PROTOCOL,
        source="saved with the model",
        segmentation=own.updated(background_threshold=None),
        background_threshold=own.background_threshold,
    )


def _evaluator(make: MakeEvaluator, model: DualEncoder | None) -> SegmenterEvaluator | FunctionEvaluator:
    if model is None:
        return load_function(make.options.model, make.protocol, make.options.device)
    return SegmenterEvaluator(model, make.protocol, window_batch=make.options.window_batch, cache=make.options.cache)


def _parts(task: _Task, kind: str) -> Path:
    """Folder of the finished parts of one of :data:`_KINDS`."""
    return task.folder / "parts" / kind


def _count(
    options: EvalOptions,
    task: _Task,
    split: BenchmarkSplit,
    make: MakeEvaluator,
    evaluator: Evaluator,
    console: Console,
    *,
    calibration: bool,
) -> Counted:
    is_function = is_function_spec(options.model)
    curve = BACKGROUND_THRESHOLDS if split.has_background and not is_function else ()
    measure = Measure(curve, None if calibration else task.protocol.threshold, detail=not calibration)
    job = PartsJob(
        split,
        measure,
        _parts(task, "calibration" if calibration else "evaluation"),
        {
            "protocol": task.protocol.hash(),
            "threshold": measure.threshold,
            "split": split.name,
            "photos": f"{len(split.stems):,} ({hash_values({'stems': split.stems})})",
            "masks": split.form.name,
            "files": split.files_digest(),
            "mixreorg": mixreorg.__version__,
            "model": evaluator.identity(),
        },
        make,
        max(1, (os.cpu_count() or 1) // options.workers) if options.workers > 1 else 0,
    )
    with progress_bars(console, decimals=1) as progress:
        bar = progress.add_task(split.name, total=len(split.stems))

        def advance(photos: int, counted: Counted) -> None:
            progress.update(bar, advance=photos, description=f"{split.name} mIoU {number(_running_miou(counted))}")

        return run_parts(job, evaluator=evaluator, workers=options.workers, resume=options.resume, advance=advance)


def _running_miou(counted: Counted) -> float:
    details = counted.result.details
    return counted.result.foreground.miou() if details is None else details.photos.confusion().miou()


def _official_counts(name: str, split: str) -> tuple[int, ...]:
    return () if name in OWN_LAYOUTS else benchmark(name).counts.get(split, ())


def _write(
    task: _Task, counted: Counted, evaluator: Evaluator, model: dict[str, Any], official: tuple[int, ...]
) -> dict[str, Any]:
    facts = build_facts(counted, task.split, task.protocol, task.name, model, official)
    details = counted.result.details
    assert details is not None
    best, worst = (_labelled(task, evaluator, facts[kind]) for kind in ("best_photos", "worst_photos"))
    # An older report beside new counts would be taken for theirs.
    (task.folder / "report.json").unlink(missing_ok=True)
    write_arrays(task.folder / "photos.npz", details.photos.to_arrays())
    write_text(task.folder / "report.html", write_html(facts, best, worst))
    write_text(task.folder / "report.md", write_markdown(facts))
    # Last: a folder with a report.json is complete.
    write_json(task.folder / "report.json", facts)
    return facts


@torch.inference_mode()
def _labelled(task: _Task, evaluator: Evaluator, chosen: Sequence[dict[str, Any]]) -> list[LabelledPhoto]:
    labelled = []
    for item in chosen:
        photo, truth = read_pair(task.split, item["stem"])
        labels = evaluator.label(task.split, photo, task.protocol.threshold)
        labelled.append(LabelledPhoto(item["stem"], item["miou"], photo, labels, truth))
    return labelled


def _write_summary(out: Path, facts: Sequence[dict[str, Any]]) -> None:
    header = ("benchmark", "photos", "mIoU %", "95 % interval", "protocol", "hash")
    rows = [
        (
            item["benchmark"],
            f"{item['num_images']:,}",
            number(item["miou"]),
            f"{number(item['miou_interval'][0])} to {number(item['miou_interval'][1])}",
            item["protocol"]["name"],
            item["protocol_hash"],
        )
        for item in facts
    ]
    notes = "".join(f"- {item['benchmark']}: {line}\n" for item in facts for line in caveats(item))
    write_text(
        out / "summary.md",
        f"# {facts[0]['model']['name']}\n\n{table(header, rows)}\n" + (f"\n{notes}" if notes else ""),
    )


def _model_name(model: str) -> str:
    """The last part of a path; of a hub's name or an adapter all of it."""
    path = Path(model)
    return path.resolve().name if path.exists() else model
