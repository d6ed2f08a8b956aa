"""What a terminal shows of a prepared benchmark."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mixreorg.eval.benchmarks.check import CheckReport
from mixreorg.eval.benchmarks.prepare import Prepared

_STYLES = {"error": "bold red", "warning": "yellow"}
_VERDICTS = ("as it should be", "doubtful: see the warnings", "not usable: see the errors")
_NUM_NAMED = 12


def print_prepared(prepared: Prepared, console: Console) -> None:
    """Print numbers, the labels of the sample and the findings with their first example."""
    report = prepared.report
    if prepared.target is not None:
        written, kept = prepared.converted.written, prepared.converted.kept
        _line(console, f"masks of the form {prepared.target}: {written:,} written, {kept:,} there already")
    _line(console, f"{report.name} in {report.folder}: photos: {report.num_photos:,}, masks read: {report.masks}")
    for line in _labels(report):
        _line(console, line)
    if report.findings:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("severity", "finding", "count", "for example"):
            table.add_column(heading, justify="right" if heading == "count" else "left", overflow="fold")
        for finding in report.findings:
            severity = Text(finding.severity, style=_STYLES[finding.severity])
            table.add_row(severity, finding.kind, f"{finding.count:,}", Text(finding.examples[0]))
        console.print()
        console.print(table)
        console.print()
    style = ("green", _STYLES["warning"], _STYLES["error"])[report.exit_code]
    console.print(_VERDICTS[report.exit_code], style=style, markup=False)


def _labels(report: CheckReport) -> list[str]:
    seen = sorted((label for label in report.labels if label.num_masks), key=lambda label: -label.share)
    shares = ", ".join(f"{label.name} {label.share:.1%}" for label in seen[:_NUM_NAMED])
    more = f", {len(seen) - _NUM_NAMED} more" if len(seen) > _NUM_NAMED else ""
    occur = f"labels in them: {len(seen)} of {len(report.labels)}"
    lines = [f"masks in the sample: {report.num_sampled:,}, {occur}, void: {report.void_share:.1%}"]
    return [*lines, f"shares: {shares}{more}"] if seen else lines


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
