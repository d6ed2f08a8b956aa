"""``mixreorg compare``: paired intervals, seeds, refusals, plain words."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from eval_kit import blobs
from mixreorg.cli.compare_command import compare as compare_command
from mixreorg.errors import MixreorgError
from mixreorg.eval.bootstrap import interval, miou_of, resample_miou
from mixreorg.eval.compare import Column, Contender, compare, parse_contender, read_evaluation
from mixreorg.eval.confusion import Confusion, count_pairs
from mixreorg.eval.photo_counts import PhotoCounts, PhotoTotals
from mixreorg.eval.report.diagrams import ForestRow, class_chart, forest_chart
from mixreorg.eval.report.facts import FORMAT
from mixreorg.files import write_json
from page_kit import Page

app = typer.Typer()
app.command()(compare_command)


def predicted(error_rate: float, seed: int, num_photos: int = 40) -> PhotoCounts:
    """Photos whose truth is always the same, and predictions with a share of wrong pixels."""
    photos = PhotoCounts(3)
    truths, errors = np.random.default_rng(0), np.random.default_rng(seed)
    for index in range(num_photos):
        truth = blobs(truths, 24, 24, 3)
        wrong = errors.random(truth.shape) < error_rate + 0.2 * np.sin(index)
        photos.add(f"photo {index}", count_pairs(truth, np.where(wrong, (truth + 1) % 3, truth), 3))
    return photos


def write_result(folder: Path, photos: PhotoCounts, protocol_hash: str = "0123", benchmark: str = "voc21") -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "photos.npz", **photos.to_arrays())
    protocol = {"name": "groupvit", "background": "background threshold 0.95, the protocol's"}
    facts = {
        "format": FORMAT, "benchmark": benchmark, "split": f"{benchmark}/val", "protocol": protocol,
        "protocol_hash": protocol_hash, "label_names": ["background", "dog", "cat"],
    }  # fmt: skip
    write_json(folder / "report.json", facts)
    return folder


def compared(*runs: str | Path) -> Column:
    (column,) = compare([parse_contender(str(run)) for run in runs], resamples=300)
    return column


def test_an_interval_holds_95_percent_of_the_values() -> None:
    found = interval(np.arange(101.0))
    assert (found.low, found.high) == pytest.approx((2.5, 97.5))


def test_resampling_is_the_miou_of_the_drawn_photos() -> None:
    random = np.random.default_rng(0)
    pairs = [random.integers(0, 9, (3, 3)) * random.integers(0, 2, (3, 1)) for _ in range(6)]
    photos = PhotoCounts(3)
    for index, counts in enumerate(pairs):
        photos.add(str(index), counts)
    values = resample_miou([photos.totals(), photos.totals()], resamples=5, seed=3)
    assert (values[0] == values[1]).all()
    weights = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=5)
    for value, weight in zip(values[0], weights, strict=True):
        confusion = Confusion(3)
        confusion.matrix += sum(int(times) * counts for times, counts in zip(weight, pairs, strict=True))
        assert value == pytest.approx(confusion.miou())
    assert miou_of(photos.totals()) == pytest.approx(photos.confusion().miou())
    with pytest.raises(ValueError, match="different numbers of photos"):
        resample_miou([photos.totals(), PhotoTotals(*(np.zeros((2, 3), dtype=np.int64) for _ in range(3)))])
    assert np.isnan(interval(np.array([np.nan])).low)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        quality = np.clip(random.normal(0.6, 0.15, 60), 0.05, 0.95)
        hit = np.round(1000 * quality).astype(np.int64)
        counts = np.full(60, 1000, dtype=np.int64)
        totals = PhotoTotals(hit[:, None], counts[:, None], hit[:, None])
        held += 60 in interval(resample_miou([totals], resamples=200)[0])
    assert 50 <= held <= 60


def test_rare_classes_stay_in_every_draw() -> None:
    """Of 19 classes seen once and never found, a draw without their photos must not be a mean over the others alone."""
    photos = PhotoCounts(20)
    for index in range(19):
        counts = np.zeros((20, 20), dtype=np.int64)
        counts[0, 0], counts[index + 1, 0] = 50, 50
        photos.add(str(index), counts)
    whole = miou_of(photos.totals())
    assert whole in interval(resample_miou([photos.totals()], resamples=200)[0])


def test_names_in_charts_are_no_mathematics() -> None:
    name = r"cost in $\bad$"
    assert name in class_chart([(name, 40.0), ("dog", 30.0)])
    chart = forest_chart([ForestRow(name, 1.0, 0.5, 1.5, clear=True)], f"difference to {name}")
    assert f">{name}<" in chart
    assert f">difference to {name}<" in chart


def test_names_that_matplotlib_has_no_glyphs_for_are_written_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chart = class_chart([("猫", 40.0), ("กา", 30.0), ("कुत्ता", 20.0)])
    assert all(f">{name}<" in chart for name in ("猫", "กา", "कुत्ता"))


def test_a_clear_difference_and_one_within_noise(tmp_path: Path) -> None:
    base = write_result(tmp_path / "base", predicted(0.4, 1))
    twin = write_result(tmp_path / "twin", predicted(0.4, 2))
    better = write_result(tmp_path / "better", predicted(0.3, 3))
    column = compared(base, f"same={twin}", f"new method={better}")
    first, second, third = column.results
    assert (first.label, second.label, third.label) == ("base", "same", "new method")
    assert first.difference is None
    assert second.within_noise
    assert "within noise of base" in second.verdict("base")
    assert not third.within_noise
    assert third.difference is not None
    assert third.difference_sampled is not None
    assert third.difference_sampled.low < third.difference < third.difference_sampled.high
    assert third.verdict("base") == f"better than base by {third.difference:.1f} points"
    assert compared(better, base).results[1].verdict("better").startswith("worse than better by")
    # Paired: the difference is known better than either result.
    width = third.difference_sampled.high - third.difference_sampled.low
    assert width < third.sampled.high - third.sampled.low


def test_seeds_widen_the_interval(tmp_path: Path) -> None:
    base = write_result(tmp_path / "base", predicted(0.4, 1))
    seeds = [write_result(tmp_path / f"seed{index}", predicted(rate, index)) for index, rate in enumerate((0.25, 0.4))]
    column = compared(base, "ours=" + ",".join(map(str, seeds)))
    ours = column.results[1]
    values = [predicted(rate, index).confusion().miou() for index, rate in enumerate((0.25, 0.4))]
    assert ours.num_seeds == 2
    assert ours.miou == pytest.approx(np.mean(values))
    assert ours.deviation == pytest.approx(np.std(values, ddof=1))
    alone = compared(base, seeds[0]).results[1]
    assert ours.sampled.high - ours.sampled.low > alone.sampled.high - alone.sampled.low


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    base = write_result(tmp_path / "base", predicted(0.4, 1))
    with pytest.raises(MixreorgError, match=r"by different protocols .* do not belong in one column"):
        compared(base, write_result(tmp_path / "protocol", predicted(0.4, 1), protocol_hash="9999"))
    with pytest.raises(MixreorgError, match=r"on different photos \(40 and 39\)"):
        compared(base, write_result(tmp_path / "photos", predicted(0.4, 1, 39)))
    other_truth = predicted(0.4, 1)
    other_truth.cells[5] = other_truth.cells[5][:-1]
    other_truth.pixels[5] = other_truth.pixels[5][:-1]
    with pytest.raises(MixreorgError, match=r"the masks of voc21 that .* were evaluated with differ"):
        compared(base, write_result(tmp_path / "masks", other_truth))
    void = PhotoCounts(3)
    void.add("photo", np.zeros((3, 3), dtype=np.int64))
    with pytest.raises(MixreorgError, match=r"no pixel of voc21 in .*void has a class"):
        compared(write_result(tmp_path / "void", void), write_result(tmp_path / "void again", void))
    with pytest.raises(MixreorgError, match="no benchmark in common"):
        compared(base, write_result(tmp_path / "benchmark", predicted(0.4, 1), benchmark="ade150"))
    with pytest.raises(MixreorgError, match="called the same"):
        compared(base, base)
    with pytest.raises(MixreorgError, match="nothing to compare"):
        compared(base)
    with pytest.raises(MixreorgError, match="none does not exist"):
        compared(base, tmp_path / "none")
    (tmp_path / "lr=0.1").mkdir()
    assert parse_contender(str(tmp_path / "lr=0.1")) == Contender("lr=0.1", (tmp_path / "lr=0.1",))
    (tmp_path / "lr=0.1" / "s0").mkdir()
    seed = tmp_path / "lr=0.1" / "s0"
    assert parse_contender(f"ours={seed}") == Contender("ours", (seed,))
    assert parse_contender(f"{seed},{tmp_path}") == Contender("s0", (seed, tmp_path))
    with pytest.raises(MixreorgError, match="names no folder"):
        parse_contender("ours=")
    with pytest.raises(MixreorgError, match="names a folder twice"):
        parse_contender(f"{base},{base}")
    for name in ("first", "second"):
        write_result(tmp_path / "seeds" / name, predicted(0.4, 1))
    with pytest.raises(MixreorgError, match=r"seeds holds two results on voc21, first and second; write LABEL="):
        compared(base, tmp_path / "seeds")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MixreorgError, match=r"empty holds no report\.json"):
        compared(base, tmp_path / "empty")
    damaged = write_result(tmp_path / "damaged", predicted(0.4, 1))
    (damaged / "photos.npz").write_bytes(b"")
    with pytest.raises(MixreorgError, match=r"photos\.npz is missing or damaged"):
        compared(base, damaged)
    write_json(damaged / "report.json", {"format": FORMAT, "benchmark": "voc21", "split": "val"})
    with pytest.raises(MixreorgError, match=r"report\.json lacks protocol, protocol_hash, label_names; evaluate again"):
        compared(base, damaged)
    write_json(damaged / "report.json", {"format": "other"})
    with pytest.raises(MixreorgError, match=r"is not a report of mixreorg eval"):
        compared(base, damaged)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cells": np.array([9] * 40)},
        {"cells": np.array([-1] * 40)},
        {"cells": np.array(["a"] * 40)},
        {"cells": np.zeros(39, dtype=np.int64)},
        {"pixels": np.ones(41, dtype=np.int64)},
        {"lengths": np.array([2] * 20)},
        {"lengths": np.array([-1, 3] * 20)},
        {"stems": np.array(["other"])},
    ],
)
def test_a_report_beside_counts_that_are_not_its_own_is_refused(tmp_path: Path, wrong: dict[str, np.ndarray]) -> None:
    folder = write_result(tmp_path / "base", predicted(0.4, 1))
    fitting = {
        "stems": np.array([f"photo {index}" for index in range(40)]),
        "lengths": np.ones(40, dtype=np.int64),
        "cells": np.zeros(40, dtype=np.int64),
        "pixels": np.ones(40, dtype=np.int64),
    }
    np.savez(folder / "photos.npz", **fitting)
    assert len(read_evaluation(folder).stems) == 40
    np.savez(folder / "photos.npz", **(fitting | wrong))
    with pytest.raises(MixreorgError, match=r"base: the counts per photo .* not of 3 classes; evaluate again"):
        read_evaluation(folder)


@pytest.mark.parametrize("wrong", [{"label_names": 3}, {"protocol": "groupvit"}, {"protocol": {}}, {"benchmark": []}])
def test_a_report_of_another_form_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    folder = write_result(tmp_path / "base", predicted(0.4, 1))
    path = folder / "report.json"
    write_json(path, json.loads(path.read_text()) | wrong)
    with pytest.raises(MixreorgError, match=rf"report\.json has another form of {next(iter(wrong))} than"):
        read_evaluation(folder)


def test_the_command_prints_a_table_and_writes_a_forest_plot(tmp_path: Path) -> None:
    for name, rate in (("a", 0.4), ("b", 0.3)):
        for benchmark in ("voc21", "context60"):
            write_result(tmp_path / name / benchmark, predicted(rate, 5), benchmark=benchmark)
    arguments = [str(tmp_path / "a"), f"<b>={tmp_path / 'b'}", "--out", str(tmp_path / "out"), "--resamples", "100"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "| <b> | 1 |" in result.output
    assert "better than a by" in result.output
    page = Page((tmp_path / "out" / "comparison.html").read_text())
    assert page.tags.count("svg") == page.tags.count("table") == 2
    assert "b" not in page.tags
    columns = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [item["benchmark"] for item in columns] == ["context60", "voc21"]
    assert columns[0]["results"][1]["within_noise"] is False
    assert "better than a by" in (tmp_path / "out" / "comparison.md").read_text()
