"""What a terminal shows of a check: progress, and the findings in a table."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mixreorg.data.doctor.captions import printable
from mixreorg.data.doctor.inventory import display_name
from mixreorg.data.doctor.kinds import SEVERITIES
from mixreorg.data.doctor.report import Finding, Report

_STYLES = {"serious": "bold red", "warning": "yellow", "allowed": "dim"}
VERDICTS = ("nothing worth naming", "suspects, which training skips or survives", "serious: pairs are missing or lost")


def print_summary(report: Report, console: Console) -> None:
    """Print numbers, findings with one example each, and the verdict."""
    for line in _numbers(report):
        console.print(line, markup=False, highlight=False)
    if report.findings:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("severity", "finding", "count", "for example"):
            table.add_column(heading, justify="right" if heading == "count" else "left", overflow="fold")
        for finding in report.findings:
            # Text, not markup: captions and names may hold square brackets.
            table.add_row(
                Text(finding.severity, style=_STYLES[finding.severity]),
                finding.kind.name,
                f"{finding.count:,}",
                Text(_example(finding)),
            )
        console.print()
        console.print(table)
        console.print()
    console.print(VERDICTS[report.exit_code], style=_STYLES[SEVERITIES[report.exit_code]], markup=False)


def _numbers(report: Report) -> list[str]:
    words, tokens = report.statistics["num_words"], report.statistics["num_tokens"]
    sides, effort = report.statistics["short_side"], report.effort
    shards = f"{len(report.parts):,} shards and files, {sum(part.num_bytes for part in report.parts) / 1e9:,.2f} GB"
    lines = [
        f"{shards}; {report.num_indexed:,} pairs, {report.num_examined:,} of them looked into in "
        f"{effort.seconds:,.1f} s ({report.pairs_per_second:,.0f}/s, processes: {effort.num_processes}): "
        f"{report.num_usable:,} usable"
    ]
    if report.asked and report.stored is not None:
        lines.append(
            f"by the statistics files {report.asked:,} pairs were asked for and {report.stored:,} stored "
            f"({report.stored / report.asked:.1%})"
        )
    if report.num_usable:
        lines.append(
            f"captions: {words['median']:g} words in the median, {tokens['median']:g} tokens; "
            f"{report.num_cut / report.num_usable:.2%} are longer than {report.context_length} tokens and are cut"
        )
        lines.append(
            f"images: short side {sides['median']:g} pixels in the median, {sides['min']:g} to {sides['max']:g}; "
            + ", ".join(f"{name} {count:,}" for name, count in report.formats.items())
        )
    return lines


def _example(finding: Finding) -> str:
    if not finding.examples:
        return ""
    example = finding.examples[0]
    caption = f"“{example.caption[:80]}”" if example.caption else ""
    return printable(
        " ".join(part for part in (display_name(example.shard), example.key, example.detail, caption) if part)
    )
