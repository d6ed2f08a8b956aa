"""Evaluation in parts: processes, resumption, and what must not be mixed."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from eval_kit import write_voc
from mixreorg.errors import MixreorgError
from mixreorg.eval.array_files import read_arrays, write_arrays
from mixreorg.eval.benchmarks.benchmark_split import BenchmarkSplit
from mixreorg.eval.evaluate import evaluate_split
from mixreorg.eval.evaluators import Evaluator, Measure, SegmenterEvaluator
from mixreorg.eval.parts import PartsJob, run_parts
from mixreorg.eval.protocols import EvaluationProtocol, ResolvedProtocol, resolve_protocol
from mixreorg.eval.voc_split import open_voc_split
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model
from mixreorg.segment.protocol import Protocol
from mixreorg.segment.segmenter import Segmenter

SEGMENTATION = Protocol(name="test", short_side=32, window=32, stride=16)
MEASURE = Measure((0.1, 0.2), 0.15)


@dataclass(frozen=True)
class Make:
    model: Path
    protocol: ResolvedProtocol

    def __call__(self) -> Evaluator:
        return SegmenterEvaluator(load_model(self.model), self.protocol, window_batch=4)


@pytest.fixture
def job(tmp_path: Path, tiny_model: DualEncoder) -> PartsJob:
    split = open_voc_split(write_voc(tmp_path / "voc", count=5), "val")
    save_model(tiny_model, tmp_path / "model")
    protocol = resolve_protocol(
        EvaluationProtocol(name="test", segmentation=SEGMENTATION), "voc_folder", split, threshold=0.15
    )
    make = Make(tmp_path / "model", protocol)
    return PartsJob(split, MEASURE, tmp_path / "out" / "parts", {"model": "tiny"}, make, 1, photos_per_part=2)


def expected(job: PartsJob, model: DualEncoder) -> dict[str, float]:
    segmenter = Segmenter(model, SEGMENTATION)
    return evaluate_split(segmenter, job.split, MEASURE.thresholds, detail=True, threshold=0.15).metrics()


def test_parts_sum_to_one_evaluation(job: PartsJob, tiny_model: DualEncoder) -> None:
    seen = []
    counted = run_parts(job, advance=lambda photos, so_far: seen.append((photos, so_far.result.num_images)))
    assert seen == [(2, 2), (2, 4), (1, 5)]
    assert counted.result.metrics() == pytest.approx(expected(job, tiny_model), nan_ok=True)
    assert counted.result.details is not None
    assert counted.result.details.photos.stems == list(job.split.stems)
    assert counted.seconds > 0
    assert counted.peak_bytes > 0


def test_two_processes_count_what_one_does_and_report_a_bad_mask(job: PartsJob) -> None:
    alone = run_parts(job).result
    assert isinstance(job.split, BenchmarkSplit)
    mask = job.split.place.folder / "SegmentationClass" / "val4.png"
    content = mask.read_bytes()
    mask.write_bytes(b"no picture")
    second = replace(job, folder=job.folder.parent / "second")
    with pytest.raises(MixreorgError, match=r"cannot read the mask .*val4\.png"):
        run_parts(second, workers=2)
    mask.write_bytes(content)
    done = [second.path(index).is_file() for index in range(second.num_parts)]
    assert done[:2] == [True, True]
    together = run_parts(second, resume=True).result
    assert (together.counts() == alone.counts()).all()
    assert together.details is not None
    assert alone.details is not None
    for name, values in alone.details.photos.to_arrays().items():
        assert (together.details.photos.to_arrays()[name] == values).all()


def test_a_stopped_run_goes_on(job: PartsJob) -> None:
    whole = run_parts(job).result

    class StopError(Exception):
        pass

    def stop(photos: int, counted: object) -> None:
        raise StopError

    second = replace(job, folder=job.folder.parent / "second")
    with pytest.raises(StopError):
        run_parts(second, advance=stop)
    assert [index for index in range(second.num_parts) if second.path(index).is_file()] == [0]
    with pytest.raises(MixreorgError, match="holds an evaluation already; go on with it by --resume"):
        run_parts(second)
    first_part = second.path(0).stat().st_mtime_ns
    assert (run_parts(second, resume=True).result.counts() == whole.counts()).all()
    assert second.path(0).stat().st_mtime_ns == first_part
    assert (run_parts(second, resume=True).result.counts() == whole.counts()).all()


def test_a_run_that_counted_nothing_leaves_the_folder_free(job: PartsJob) -> None:
    assert isinstance(job.split, BenchmarkSplit)
    mask = job.split.place.folder / "SegmentationClass" / "val0.png"
    content = mask.read_bytes()
    mask.write_bytes(b"no picture")
    with pytest.raises(MixreorgError, match="cannot read the mask"):
        run_parts(job)
    mask.write_bytes(content)
    other = replace(job, fingerprint={"model": "other"})
    assert run_parts(other).result.num_images == 5
    with pytest.raises(MixreorgError, match="model was 'other', now 'tiny'"):
        run_parts(job, resume=True)


def test_parts_of_another_evaluation_are_refused(job: PartsJob) -> None:
    run_parts(job)
    with pytest.raises(MixreorgError, match=r"parts of another evaluation \(model was 'tiny', now 'other'\)"):
        run_parts(replace(job, fingerprint={"model": "other"}), resume=True)
    arrays = read_arrays(job.path(1))
    write_arrays(job.path(1), arrays | {"cells": arrays["cells"] + 16})
    with pytest.raises(MixreorgError, match=r"part-00001\.npz: the counts per photo .* not of 4 classes; delete it"):
        run_parts(job, resume=True)
    job.path(1).write_bytes(b"damaged")
    with pytest.raises(MixreorgError, match=r"part-00001\.npz is missing or damaged .* delete it"):
        run_parts(job, resume=True)


def test_without_details_nothing_is_kept_per_photo(job: PartsJob) -> None:
    plain = replace(job, measure=Measure((0.1, 0.2), detail=False))
    counted = run_parts(plain)
    assert counted.result.details is None
    assert "cells" not in read_arrays(plain.path(0))
