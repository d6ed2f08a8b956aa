"""Running an ablation: worlds, queue, measuring, report. A second call goes on where the first was stopped."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mixreorg.ablate.accounts import Part, add_part, this_machine
from mixreorg.ablate.collect import collect, is_trained
from mixreorg.ablate.grid import PlannedRun, plan, select
from mixreorg.ablate.join import join_results
from mixreorg.ablate.measuring import MeasureJob, SplitJob, is_measured
from mixreorg.ablate.queue import Ended, Job, Slot, Stage, make_slots, run_jobs
from mixreorg.ablate.report import write_report
from mixreorg.ablate.results import read_results
from mixreorg.ablate.spec import AblationSpec, SplitConfig, read_spec
from mixreorg.ablate.status import StatusDisplay, Watched
from mixreorg.ablate.worlds import check_made_world, labelled_stuff, make_world, world_paths
from mixreorg.config import differences
from mixreorg.console import plain_console
from mixreorg.errors import MixreorgError
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.files import read_json, write_json
from mixreorg.text.nouns import NounList
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.card import CARD, read_card
from mixreorg.train.config import TrainConfig
from mixreorg.train.engine import Device
from mixreorg.train.planning.hardware import available_device
from mixreorg.train.run_lock import RunLock
from mixreorg.train.setup import FREE, FREE_DATA, open_source
from mixreorg.train.stopping import Stop

CONFIG, JOB, LOG = "ablate_config.json", "ablate_measure.json", "ablate.log"


@dataclass(frozen=True)
class AblationOutcome:
    """How a call of :func:`run_ablation` ended."""

    page: Path
    failed: tuple[str, ...]
    """Names of the runs that failed."""
    stopped: Stop | None
    """The signal that ended it before its last run, if one did."""


def run_ablation(
    spec_file: Path,
    out: Path,
    *,
    workers: int = 1,
    device: Device = "auto",
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    console: Console | None = None,
) -> AblationOutcome:
    """Train and measure what an ablation asks for and is not there yet, then write its results.

    Args:
        spec_file: the ablation, YAML or JSON.
        out: gets ``worlds/``, ``runs/ROW/seed-S/``, ``results.json``, ``results.csv``, ``results.md``,
            ``index.html``.
        workers: runs at once.
        device: as for :func:`~mixreorg.train.trainer.train`.
        only: rows to run; all by default. The report holds all that is there.
        seeds: to run of these rows; all by default.
        console: where progress goes; standard error by default.

    Raises:
        MixreorgError: something in the ablation is wrong, or ``out`` holds runs or worlds of another one. Nothing
            has been run then.
    """
    console = console or plain_console(stderr=True)
    spec, out = read_spec(spec_file), out.absolute()
    runs = plan(spec)
    chosen = select(spec, runs, only, seeds)
    device_type = available_device().type if device == "auto" else device
    slots = make_slots(workers, device_type)
    for name, world in spec.worlds.items():
        check_made_world(name, world, out)
    files = {key: _files_of(*key, spec) for key in dict.fromkeys(_measured_splits(spec, runs))}
    jobs = {run.folder: _measure_job(spec, run, files) for run in runs}
    for run in runs:
        _check_unchanged(out, run)
    _check_same_data(spec, runs, out)
    lock = RunLock(out)
    lock.acquire()
    try:
        for name in dict.fromkeys(_worlds(spec, chosen)):
            make_world(name, spec.worlds[name], out, console)
        watched = _prepare(chosen, jobs, out, device_type)
        with StatusDisplay(console, watched) as display:
            stopped = run_jobs([item.job for item in watched], slots, out, display.update)
        results = collect(spec, runs, jobs, out)
        write_json(out / "results.json", results.to_dict())
        page = write_report([results], out)
    finally:
        lock.release()
    failed = tuple(item.job.name for item in watched if item.job.state == "failed")
    return AblationOutcome(page, failed, stopped)


def report_ablations(files: Sequence[Path], out: Path) -> Path:
    """Write page, CSV and Markdown from result files.

    Returns:
        The page.

    Raises:
        MixreorgError: a file is no result file, or the report cannot be written.
    """
    return write_report([read_results(path) for path in files], out)


def join_ablations(files: Sequence[Path], out: Path) -> Path:
    """Write one ``results.json`` from those of one ablation that ran in several places, and its page, CSV and Markdown.

    Returns:
        The page.

    Raises:
        MixreorgError: a file is no result file, or they do not belong together (:func:`join_results`); nothing is
            written then.
    """
    joined = join_results([read_results(path) for path in files], [str(path) for path in files])
    write_json(out / "results.json", joined.to_dict())
    return write_report([joined], out)


def _check_unchanged(out: Path, run: PlannedRun) -> None:
    folder = out / run.folder
    path = folder / CONFIG
    if not path.is_file() or not any((folder / name).is_file() for name in ("train_config.json", CARD)):
        return  # it never began
    # Read as a configuration: one that an earlier version wrote lacks the newest fields.
    written = TrainConfig.from_dict(read_json(path), source=str(path)).to_dict()
    changed = differences(_compared(written), _compared(run.config.to_dict()))
    if changed:
        raise MixreorgError(
            f"{run.name}: {folder} holds a run with another {', '.join(changed[:5])}; give the row another "
            "name, or remove that folder"
        )


def _check_same_data(spec: AblationSpec, runs: Sequence[PlannedRun], out: Path) -> None:
    """What was trained on data that exist must have been trained on the pairs and words that are there now."""
    for name, world in spec.worlds.items():
        trained = [run for run in runs if run.row.world == name and (out / run.folder / CARD).is_file()]
        if world.preset is not None or not trained:
            continue  # made worlds are compared by what they are made of
        pairs = open_source(trained[0].config)
        fingerprint = pairs.fingerprint()
        for run in trained:
            data = read_card(out / run.folder).data
            if data.fingerprint not in (None, fingerprint):
                raise MixreorgError(
                    f"{run.name}: {out / run.folder} holds a run that was trained on other caption pairs than those of "
                    f"world {name}: {data.num_pairs:,} then, {len(pairs):,} now, or others of the same number; restore "
                    "them, give the row another name, or remove that folder"
                )
            _check_same_words(run, out / run.folder, data.nouns)


def _check_same_words(run: PlannedRun, folder: Path, nouns: str | None) -> None:
    """The tokenizer and the word list, which are known by their paths alone in the configuration.

    ``nouns`` is the fingerprint of the words that the run was trained with.
    """
    config, changed = run.config.data, []
    copies = sorted((folder / "checkpoints").glob("step-????????/tokenizer.json"))
    if copies and Tokenizer.from_file(copies[-1]).to_dict() != Tokenizer.named(config.tokenizer).to_dict():
        changed.append(f"tokenizer than {config.tokenizer}")
    if nouns is not None and config.nouns and NounList.from_file(Path(config.nouns)).fingerprint() != nouns:
        changed.append(f"word list than {config.nouns}")
    if changed:
        raise MixreorgError(
            f"{run.name}: {folder} holds a run that was trained with another {' and another '.join(changed)} is now; "
            "restore what it was trained with, give the row another name, or remove that folder"
        )


def _compared(config: dict[str, object]) -> dict[str, object]:
    data = config["data"]
    assert isinstance(data, dict)
    kept = {name: value for name, value in config.items() if name not in FREE}
    return {**kept, "data": {name: value for name, value in data.items() if name not in FREE_DATA}}


def _worlds(spec: AblationSpec, runs: Sequence[PlannedRun]) -> list[str]:
    """Worlds that runs train and are measured on."""
    measured = [split.world for split in spec.measure.splits if split.world is not None]
    return [run.row.world for run in runs] + measured


def _measured_splits(spec: AblationSpec, runs: Sequence[PlannedRun]) -> list[tuple[str, str]]:
    """World and split of all that is measured, the splits that choose thresholds among them."""
    trained = [run.row.world for run in runs]
    measured = [(split.world or world, split.split) for split in spec.measure.splits for world in trained]
    return [*((world, "val") for world in trained), *measured]


def _files_of(world: str, split: str, spec: AblationSpec) -> str | None:
    """Digest of the files of a split of data that exist, which may change under their names; None of a made world."""
    config = spec.worlds[world]
    root = world_paths(world, config).evaluation
    if config.preset is not None or root is None:
        return None
    return open_voc_split(Path(root), split).files_digest()


def _measure_job(spec: AblationSpec, run: PlannedRun, files: dict[tuple[str, str], str | None]) -> MeasureJob:
    measure, world = spec.measure, run.row.world
    return MeasureJob(
        splits=tuple(_split_job(spec, split, run, files) for split in measure.splits),
        validation=world_paths(world, spec.worlds[world]).evaluation,
        validation_files=files[world, "val"],
        mixed_scenes=measure.mixed_scenes,
        mixing=measure.mixing,
    )


def _split_job(
    spec: AblationSpec, split: SplitConfig, run: PlannedRun, files: dict[tuple[str, str], str | None]
) -> SplitJob:
    world = split.world or run.row.world
    root = world_paths(world, spec.worlds[world]).evaluation
    assert root is not None, "the plan has checked it"
    protocol, stuff = run.split_protocols[split.name], labelled_stuff(world, spec.worlds[world])
    return SplitJob(
        name=split.name,
        root=root,
        split=split.split,
        files=files[world, split.split],
        max_images=split.max_images,
        protocol=protocol,
        stuff=stuff,
    )


def _prepare(runs: Sequence[PlannedRun], jobs: dict[Path, MeasureJob], out: Path, device: str) -> list[Watched]:
    """A job for every run that is not both trained and measured."""
    watched = []
    for run in runs:
        folder = out / run.folder
        trained = is_trained(folder, run.config.steps)
        if trained and is_measured(folder, jobs[run.folder]):
            continue
        write_json(folder / CONFIG, run.config.to_dict())
        write_json(folder / JOB, jobs[run.folder].to_dict())
        stages = [] if trained else [_train_stage(run, out, device)]
        stages.append(_measure_stage(run, out, device))
        job = Job(run.name, stages)
        job.ended = _Accountant(folder, device)
        watched.append(Watched(job, folder, run.config.steps))
    return watched


def _train_stage(run: PlannedRun, out: Path, device: str) -> Stage:
    command = [sys.executable, "-m", "mixreorg", "train", "--config", str(run.folder / CONFIG)]
    command += ["--out", str(run.folder), "--resume", "auto", "--device", device]
    return Stage("train", tuple(command), out / run.folder / LOG)


def _measure_stage(run: PlannedRun, out: Path, device: str) -> Stage:
    command = [sys.executable, "-m", "mixreorg.ablate.measuring"]
    command += [str(run.folder), str(run.folder / JOB), device]
    return Stage("measure", tuple(command), out / run.folder / LOG)


@dataclass(frozen=True)
class _Accountant:
    """Writes down what each process of a run has used."""

    folder: Path
    device: str

    def __call__(self, end: Ended, slot: Slot) -> None:
        machine = this_machine(self.device, slot.threads)
        part = Part(
            stage=end.stage.name,
            seconds=end.seconds,
            cpu_seconds=end.cpu_seconds,
            exit_code=end.exit_code,
            machine=machine,
        )
        add_part(self.folder, part)
