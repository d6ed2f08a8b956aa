"""Make docs/results.md, docs/results.json and their pictures from the committed results of ablations.

python docs/make_results.py
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixreorg.ablate.figures import Chart, all_charts
from mixreorg.ablate.report import markdown_cell, to_markdown
from mixreorg.ablate.results import FORMAT, AblationResults, RowResult, read_results
from mixreorg.ablate.tables import difference, metric_name, write_difference
from mixreorg.charts import save_png
from mixreorg.files import read_json, write_text

DOCS = Path(__file__).parent

_FIRST = ("easy", "named", "large", "medium")
"""Files that the page begins with; the others follow by name."""
_GAINS = ("foreground_miou", "background_miou", "present_miou", "recognition")
"""Metrics of the overview."""
_LEAST_SEEDS = 3
"""Of a row of the overview: the interval of two says nothing."""
_INTRODUCTION = """# Results

Written by `docs/make_results.py` from the result files in [results](results), which also hold the command of every
run, its curves, the versions and the machine. [ablate.md](ablate.md) says how such files are made.
"""


def result_files(folder: Path = DOCS / "results") -> list[Path]:
    """Result files of ablations in a folder, the comparisons first; others are left out."""
    found = {path.stem: path for path in sorted(folder.glob("*.json")) if _is_ablation(path)}
    return [found[name] for name in sorted(found, key=lambda name: (*_FIRST, name).index(name))]


def markdown(files: list[Path]) -> str:
    """The page."""
    all_results = {path: with_finished_runs(read_results(path)) for path in files}
    parts = [_INTRODUCTION, overview(list(all_results.values()))]
    for path, results in all_results.items():
        parts.append(to_markdown(results, [(chart, f"images/{name}") for chart, name in _pictures(path, results)]))
    return "\n".join(part for part in parts if part)


def overview(all_results: Sequence[AblationResults]) -> str:
    """What the rows of MixReorg gain over the GroupViT they are compared with, on test scenes; empty without any.

    Rows that share fewer seeds with it than :data:`_LEAST_SEEDS` are left to their sections.
    """
    lines = []
    for results in all_results:
        (split, *_) = results.splits
        if split.name != "test":
            continue
        groupvit = {row.name: row.label for row in results.rows if row.method == "groupvit"}
        for row in results.rows:
            if row.method != "mixreorg" or row.baseline not in groupvit:
                continue
            gains = [difference(results, row, split, metric) for metric in _GAINS]
            if gains[0] is None or gains[0].count < _LEAST_SEEDS:
                continue
            title = row.section or results.title
            link = f"[{markdown_cell(title)}](#{_anchor(title)})"
            cells = [row.label, groupvit[row.baseline], str(gains[0].count), *map(write_difference, gains)]
            lines.append(f"| {row.world} | {link} | {' | '.join(map(markdown_cell, cells))} |")
    if not lines:
        return ""
    header = ["world", "comparison", "row", "against", "seeds", *map(metric_name, _GAINS)]
    return f"""## At a glance

What MixReorg gains over GroupViT on test scenes, in points, with the 95 % interval over the seeds that both have. Rows
of fewer than three seeds, the controls among them, are in their sections.

| {" | ".join(header)} |
| {" | ".join(["---"] * 4 + ["---:"] * (len(header) - 4))} |
""" + "".join(f"{line}\n" for line in lines)


def with_finished_runs(results: AblationResults) -> AblationResults:
    """An ablation without the rows of which no run is finished; its note names them instead."""
    wanted = {row.name for row in results.rows if results.finished(row.name)}
    baselines = {row.name: row.baseline for row in results.rows}
    found = wanted
    while found:  # a baseline may have one of its own
        found = {baseline for name in found if (baseline := baselines[name]) is not None} - wanted
        wanted |= found
    missing = [f"{row.label} ({row.name})" for row in results.rows if row.name not in wanted]
    if not missing:
        return results
    note = f"{results.budget_note} Not run yet: {'; '.join(missing)}.".strip()
    return results.updated(rows=tuple(row for row in results.rows if row.name in wanted), budget_note=note)


def numbers(files: list[Path]) -> str:
    """JSON: by file, preset (or world, where the data existed) and row, the metrics of each seed."""
    return (
        json.dumps({path.stem: _by_preset(read_results(path)) for path in files}, indent=1, ensure_ascii=False) + "\n"
    )


def main() -> None:
    """Write everything."""
    files = result_files()
    write_text(DOCS / "results.md", markdown(files))
    write_text(DOCS / "results.json", numbers(files))
    for old in (DOCS / "images").glob("results_*.png"):
        old.unlink()
    for path in files:
        results = with_finished_runs(read_results(path))
        for chart, name in _pictures(path, results):
            save_png(chart.draw(), DOCS / "images" / name)


def _anchor(heading: str) -> str:
    """Where a heading is found on its page."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _is_ablation(path: Path) -> bool:
    content = read_json(path)
    return isinstance(content, dict) and content.get("format") == FORMAT


def _pictures(path: Path, results: AblationResults) -> list[tuple[Chart, str]]:
    return [(chart, f"results_{path.stem}_{number}.png") for number, chart in enumerate(all_charts(results), start=1)]


def _by_preset(results: AblationResults) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = {}
    for row in results.rows:
        content.setdefault(row.preset or row.world, {})[row.name] = _row(results, row)
    return content


def _row(results: AblationResults, row: RowResult) -> dict[str, Any]:
    runs = results.finished(row.name)
    return {
        "label": row.label,
        "method": row.method,
        "recipe": row.recipe,
        "seeds": [run.seed for run in runs],
        "runs": [
            {
                "seed": run.seed,
                "steps": run.steps,
                "train_seconds": run.cost.train_seconds,
                "train_cpu_seconds": run.cost.train_cpu_seconds,
                "mixed_mask_accuracy": run.checkpoints["best"].mixed_mask_accuracy,
                "splits": run.checkpoints["best"].splits,
            }
            for run in runs
        ],
    }


if __name__ == "__main__":
    main()
