"""Page, CSV and Markdown of one or several ablations, from their result files alone."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from mixreorg.ablate.figures import Chart, all_charts, run_curves
from mixreorg.ablate.results import AblationResults, to_csv
from mixreorg.ablate.tables import Section, Table, sections
from mixreorg.charts import to_svg
from mixreorg.files import write_text
from mixreorg.html_page import html_page


def write_report(all_results: Sequence[AblationResults], out: Path) -> Path:
    """Write ``index.html``, ``results.md`` and ``results.csv`` (``results-2.csv`` and so on for further ablations).

    Args:
        all_results: one or several ablations, shown one after the other.
        out: folder, created if missing.

    Returns:
        The page.

    Raises:
        MixreorgError: a file cannot be written, or the extra ``train`` is missing.
    """
    for number, results in enumerate(all_results, start=1):
        name = "results.csv" if number == 1 else f"results-{number}.csv"
        write_text(out / name, to_csv(results))
    write_text(out / "results.md", "\n".join(to_markdown(results) for results in all_results))
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    title = escape(", ".join(results.title for results in all_results))
    page = out / "index.html"
    write_text(page, html_page(title, style, "\n".join(_ablation(results) for results in all_results)))
    return page


def to_markdown(results: AblationResults, pictures: Sequence[tuple[Chart, str]] = ()) -> str:
    """The tables of an ablation.

    Args:
        results: of the ablation.
        pictures: its charts, each with the address of its picture; none by default.
    """
    shown = [(chart.section, f"![{markdown_cell(chart.title)}]({address})") for chart, address in pictures]
    parts = [f"## {markdown_cell(results.title)}", *_facts(results), *(text for place, text in shown if place is None)]
    for section in sections(results):
        if section.title:
            parts.append(f"### {markdown_cell(section.title)}")
        parts += [text for place, text in shown if place == section.title]
        parts += [f"{markdown_cell(table.title)}\n\n{_markdown_table(table)}" for table in section.tables]
    parts.append(f"{_HOW_TO_READ}\n\n{results.selection_rule}")
    return "\n\n".join(parts) + "\n"


_HOW_TO_READ = (
    "± is the standard deviation over seeds. Differences are paired by seed, with the 95 % interval of Student's t "
    "over the seeds; an interval that holds 0 shows no difference. Values are those of the best checkpoint unless a "
    "column says otherwise. Foreground mIoU, boundary IoU and the oracles are without background: every pixel takes a "
    "name, where the true names are given one of those in the picture. Boundary IoU cannot reach 100 in this way: "
    "edges of objects are borders of the truth alone. Training time counts the steps alone: no start-up, evaluation "
    "or checkpoint."
)


def _facts(results: AblationResults) -> list[str]:
    """Paragraphs about what the numbers rest on."""
    finished = [run for run in results.runs if run.state == "finished"]
    expected = sum(row.num_seeds for row in results.rows)
    sentences = [f"{len(finished)} of {expected} runs are finished."]
    machines = {machine: None for run in finished for machine in run.machines}
    sentences += [
        f"Trained on {machine.cpu} ({machine.cores} cores, threads per run: {machine.threads}, "
        f"{machine.cpu_capability}), device {machine.device}."
        for machine in machines
    ]
    codes = {(run.code.commit, run.code.dirty): None for run in finished}
    if codes:
        sentences.append(f"Code: {', '.join(_code(commit, dirty) for commit, dirty in codes)}.")
    note = [results.budget_note] if results.budget_note else []
    return [*note, " ".join(sentences)]


def _code(commit: str | None, dirty: bool) -> str:
    return f"{commit or 'no checkout'}{' with uncommitted changes' if dirty else ''}"


def _markdown_table(table: Table) -> str:
    lines = [table.header, tuple(["---"] + ["---:"] * (len(table.header) - 1)), *table.rows]
    return "\n".join("| " + " | ".join(markdown_cell(cell) for cell in line) + " |" for line in lines)


def markdown_cell(text: str) -> str:
    """Text that stays what it is in Markdown and in one line."""
    for character in "\\|*_`<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def _ablation(results: AblationResults) -> str:
    parts = [f"<header>\n<h1>{escape(results.title)}</h1>"]
    parts += [f"<p>{escape(text)}</p>" for text in _facts(results)]
    parts.append("</header>")
    charts = all_charts(results)
    parts += [_figure(chart) for chart in charts if chart.section is None]
    parts += [_section(section, charts) for section in sections(results)]
    parts.append(_curves(results))
    parts.append(_commands(results))
    parts.append(f"<footer>\n<p>{_HOW_TO_READ}</p>\n<p>{escape(results.selection_rule)}</p>\n</footer>")
    return "\n".join(parts)


def _section(section: Section, charts: Sequence[Chart]) -> str:
    heading = escape(section.title) if section.title else "Results"
    figures = "\n".join(_figure(chart) for chart in charts if chart.section == section.title)
    tables = "\n".join(_html_table(table) for table in section.tables)
    return f"<section>\n<h2>{heading}</h2>\n{figures}\n{tables}\n</section>"


def _figure(chart: Chart) -> str:
    drawn, caption = to_svg(chart.draw(), chart.title), escape(chart.caption)
    return f'<figure class="rows"><div class="scroll">{drawn}</div>\n<figcaption>{caption}</figcaption></figure>'


def _html_table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    return (
        f'<h3>{escape(table.title)}</h3>\n<div class="scroll"><table>\n<thead><tr>{header}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _curves(results: AblationResults) -> str:
    items = []
    for row in results.rows:
        runs = [run for run in results.runs if run.row == row.name]
        if not runs:
            continue
        loss, miou = run_curves(runs)
        items.append(
            f"<details>\n<summary>{escape(row.label)}</summary>\n"
            f'<div class="curves"><figure>{to_svg(loss, f"loss of {row.label}")}</figure>\n'
            f"<figure>{to_svg(miou, f'validation mIoU of {row.label}')}</figure></div>\n</details>"
        )
    return "<section>\n<h2>Curves</h2>\n" + "\n".join(items) + "\n</section>"


def _commands(results: AblationResults) -> str:
    worlds = "\n".join(escape(command) for world in results.worlds for command in world.commands)
    runs = "\n".join(escape(run.command) for run in results.runs)
    return (
        "<section>\n<h2>Run it again</h2>\n<p>Each run by itself, in an empty folder; the worlds first. Paths of data "
        "that exist are as the ablation has them: relative ones hold where it was called.</p>\n"
        f"<details>\n<summary>Commands</summary>\n<pre><code>{worlds}\n{runs}</code></pre>\n</details>\n</section>"
    )
