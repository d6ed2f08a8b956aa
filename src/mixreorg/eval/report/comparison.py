"""A comparison as JSON, Markdown and one page."""

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from pathlib import Path

from mixreorg.eval.bootstrap import Interval
from mixreorg.eval.compare import Column, ContenderResult
from mixreorg.eval.report.diagrams import ForestRow, forest_chart
from mixreorg.eval.report.markdown import table
from mixreorg.eval.report.page import html_table
from mixreorg.eval.report.words import number
from mixreorg.files import write_json, write_text
from mixreorg.html_page import html_page

HEADER = ("", "seeds", "mIoU %", "95 % interval", "difference", "95 % interval", "verdict")
NOTE = (
    "Intervals are of a bootstrap over photos, the same ones for all, and over seeds. A difference whose interval "
    "holds 0 is within noise."
)


def column_rows(column: Column) -> list[tuple[str, ...]]:
    """The table of one benchmark."""
    baseline = column.results[0].label
    return [
        (
            item.label,
            str(item.num_seeds),
            number(item.miou) + ("" if item.deviation is None else f" ± {item.deviation:.1f}"),
            _interval(item.sampled),
            "" if item.difference is None else f"{item.difference:+.1f}",
            "" if item.difference_sampled is None else _interval(item.difference_sampled),
            item.verdict(baseline),
        )
        for item in column.results
    ]


def comparison_markdown(columns: Sequence[Column]) -> str:
    """All benchmarks."""
    parts = [f"## {_title(column)}\n\n{table(HEADER, column_rows(column))}" for column in columns]
    return "\n\n".join(["# Comparison", NOTE, *parts]) + "\n"


def write_comparison(columns: Sequence[Column], folder: Path) -> None:
    """Write ``comparison.json``, ``comparison.md`` and ``comparison.html`` with a forest plot per benchmark.

    Raises:
        MixreorgError: a file that cannot be written, or matplotlib is not installed.
    """
    sections = [
        f"<h2>{escape(_title(column))}</h2><figure>{_forest(column)}</figure>" + html_table(HEADER, column_rows(column))
        for column in columns
    ]
    style = files("mixreorg.eval.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "\n".join(["<h1>Comparison</h1>", f'<p class="note">{NOTE}</p>', *sections])
    write_text(folder / "comparison.html", html_page("Comparison", style, body))
    write_text(folder / "comparison.md", comparison_markdown(columns))
    write_json(folder / "comparison.json", [_plain(column) for column in columns])


def _plain(column: Column) -> dict[str, object]:
    results = [{**asdict(item), "within_noise": item.within_noise} for item in column.results]
    return {**asdict(column), "results": results}


def _title(column: Column) -> str:
    return f"{column.split}, {column.num_photos:,} photos, protocol {column.protocol} ({column.protocol_hash})"


def _interval(value: Interval) -> str:
    return f"{number(value.low)} to {number(value.high)}"


def _forest(column: Column) -> str:
    baseline = column.results[0].label
    rows = [row for item in column.results if (row := _forest_row(item)) is not None]
    return forest_chart(rows, f"difference in mIoU to {baseline} (points)")


def _forest_row(item: ContenderResult) -> ForestRow | None:
    if item.difference is None or item.difference_sampled is None:
        return None
    sampled = item.difference_sampled
    return ForestRow(item.label, item.difference, sampled.low, sampled.high, clear=not item.within_noise)
