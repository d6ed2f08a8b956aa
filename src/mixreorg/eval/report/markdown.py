"""A report as Markdown."""

from collections.abc import Sequence
from typing import Any

from mixreorg.eval.report import words

PUBLISHED_NOTE = (
    "Numbers of other protocols are not comparable with this one; those of the same protocol are, as far as the paper "
    "followed it to the letter."
)
CURVE_NOTE = "The curve over background thresholds is shown, not used: nothing was chosen by it."


def write_markdown(facts: dict[str, Any]) -> str:
    """The report of one evaluation."""
    parts = [
        f"# {facts['model']['name']} on {facts['split']}",
        f"**{words.headline(facts)}**",
        "\n".join(f"- {line}" for line in (*words.caveats(facts), words.protocol_line(facts), words.cost_line(facts))),
        "## Measures\n\n" + table(("measure", "%", "meaning"), words.measure_rows(facts)),
        "## IoU by class\n\n" + table(("class", "IoU %"), words.class_rows(facts)),
    ]
    if facts["confusion_pairs"]:
        errors = table(("truth", "taken for", "% of the truth"), words.pair_rows(facts))
        parts.append(f"## Commonest errors\n\n{errors}")
    if facts["threshold_curve"]:
        rows = [(f"{value:g}", words.number(miou)) for value, miou in facts["threshold_curve"][1::4]]
        parts.append(f"## Background thresholds\n\n{CURVE_NOTE}\n\n" + table(("threshold", "mIoU %"), rows))
    if facts["published"]:
        header = ("system", "training data", "mIoU %", "protocol", "source")
        parts.append(f"## Published numbers\n\n{PUBLISHED_NOTE}\n\n" + table(header, words.published_rows(facts)))
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
