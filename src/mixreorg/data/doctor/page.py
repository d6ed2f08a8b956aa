"""The report of a check for people: one HTML file with its pictures inside, no scripts, nothing loaded."""

import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from mixreorg.data.doctor.captions import printable
from mixreorg.data.doctor.console import VERDICTS
from mixreorg.data.doctor.examine import Suspect
from mixreorg.data.doctor.histograms import draw
from mixreorg.data.doctor.inventory import display_name
from mixreorg.data.doctor.kinds import SEVERITIES
from mixreorg.data.doctor.pictures import Pictures
from mixreorg.data.doctor.report import Finding, Report
from mixreorg.files import write_json, write_text
from mixreorg.html_page import html_page

_CAPTION_SHOWN = 240
_SHARDS_SHOWN = 50
_MEASURES = {
    "num_words": ("words per caption", "parted by spaces; each Chinese or Japanese character counts as one"),
    "num_tokens": ("tokens per caption", "start and end included, before cutting"),
    "short_side": ("short side of the image", "pixels"),
    "aspect": ("aspect ratio", "long side over short side"),
    "kilobytes": ("size of the image file", "KiB"),
}


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json`` and ``report.html`` into a folder; both are replaced whole.

    Raises:
        MixreorgError: they cannot be written.
    """
    write_json(folder / "report.json", report.to_dict())
    pictures = Pictures(report.config)
    body = "\n".join(
        (
            _introduction(report),
            _tiles(report),
            _findings(report),
            _shards(report),
            _suspects(report.findings, pictures),
            _measures(report),
            _captions(report),
            _healthy(report.healthy, pictures),
        )
    )
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    write_text(folder / "report.html", html_page("Data check", style, body))


def _introduction(report: Report) -> str:
    specs = ", ".join(f"<code>{_text(display_name(spec))}</code>" for spec in report.specs)
    css = {0: "good", 1: "warning", 2: "serious"}[report.exit_code]
    looked = "all of them" if report.num_examined == report.num_indexed else f"{report.num_examined:,} of them"
    processes = f"{report.effort.num_processes} process{'es' if report.effort.num_processes > 1 else ''}"
    stored = ""
    if report.asked and report.stored is not None:
        stored = (
            f" By the statistics files beside the shards {report.asked:,} pairs were asked for and {report.stored:,} "
            f"stored ({report.stored / report.asked:.1%})."
        )
    return f"""<header>
<h1>Data check</h1>
<p class="verdict {css}">{VERDICTS[report.exit_code].capitalize()}.</p>
<p>{specs}: {len(report.parts):,} shards and captions files with {report.num_indexed:,} pairs. The check looked into
{looked} in {report.effort.seconds:,.1f} seconds with {processes}.{stored}</p>
</header>"""


def _tiles(report: Report) -> str:
    count = {name: sum(finding.severity == name for finding in report.findings) for name in SEVERITIES}
    tokens, sides = report.statistics["num_tokens"], report.statistics["short_side"]
    usable, expected = report.num_usable, report.config.expect
    share = f"of {report.num_examined:,} looked into" + (f"; {expected:,} expected" if expected else "")
    tiles = [
        ("usable pairs", f"{usable:,}", share),
        ("kinds of findings", f"{count['serious']} + {count['warning']}", "serious + warnings"),
        ("different images", f"{report.num_distinct_images:,}", _share(report.num_distinct_images, usable)),
        ("different captions", f"{report.num_distinct_captions:,}", _share(report.num_distinct_captions, usable)),
    ]
    if usable:
        cut = f"tokens in the median; {_percent(report.num_cut / usable)} cut at {report.context_length}"
        tiles.append(("caption length", f"{tokens['median']:g}", cut))
        tiles.append(("short side", f"{sides['median']:g}", f"pixels in the median; {sides['min']:g} at least"))
    items = "\n".join(
        f"<div><dt>{name}</dt><dd class='value'>{value}</dd><dd class='note'>{note}</dd></div>"
        for name, value, note in tiles
    )
    return f'<section aria-label="Headline figures">\n<dl class="tiles">\n{items}\n</dl>\n</section>'


def _findings(report: Report) -> str:
    if not report.findings:
        return ""
    rows = [
        (
            f'<td class="name {finding.severity}">{finding.kind.name}</td><td class="{finding.severity}">'
            f'{finding.severity}</td><td class="number">{finding.count:,}</td>'
            f'<td class="text">{_text(finding.kind.meaning)} {_text(finding.kind.remedy)}</td>'
        )
        for finding in report.findings
    ]
    head = '<th>finding</th><th>severity</th><th class="number">count</th><th>what it means, what to do</th>'
    return f"<section>\n<h2>Findings</h2>\n{_table(head, rows)}\n</section>"


def _shards(report: Report) -> str:
    """Shards with findings that are more than a few odd pairs, the worst first."""
    by_name = {part.name: part for part in report.parts}
    worst = sorted(by_name.keys() & report.part_counts.keys(), key=lambda name: (-_weight(report, name), name))
    rows = []
    for name in worst[:_SHARDS_SHOWN]:
        part, counts = by_name[name], report.part_counts[name]
        listed = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
        rows.append(
            f'<td class="path"><code>{_text(display_name(name))}</code></td><td class="number">{part.num_pairs:,}</td>'
            f'<td class="number">{part.num_bytes / 1e6:,.1f}</td><td class="text">{_text(listed)}</td>'
        )
    if not rows:
        return ""
    more = f'<p class="note">The worst {_SHARDS_SHOWN}; report.json lists all.</p>' if len(worst) > len(rows) else ""
    head = '<th>shard</th><th class="number">pairs</th><th class="number">MB</th><th>findings in it</th>'
    return f"<section>\n<h2>Shards with findings</h2>\n{_table(head, rows)}\n{more}\n</section>"


def _weight(report: Report, name: str) -> int:
    """How bad a shard is: any serious finding outweighs all others."""
    counts = report.part_counts[name]
    serious = {finding.kind.name for finding in report.findings if finding.severity == "serious"}
    return sum(count + 10**12 * (kind in serious) for kind, count in counts.items())


def _suspects(findings: Iterable[Finding], pictures: Pictures) -> str:
    groups = []
    for finding in findings:
        few = f", {len(finding.examples)} of them shown" if len(finding.examples) < finding.count else ""
        groups.append(f'<h3><span class="{finding.severity}">{finding.kind.name}</span>: {finding.count:,}{few}</h3>')
        # What has no place in an index cannot be shown, only named.
        rows = [
            f'<td class="path"><code>{_text(display_name(example.shard))}</code> {_text(example.key)}</td>'
            f'<td class="text">{_text(example.detail)}</td>'
            for example in finding.examples
            if example.sample is None
        ]
        if rows:
            groups.append(_table("", rows))
        if len(rows) < len(finding.examples):
            groups.append(_cards([example for example in finding.examples if example.sample is not None], pictures))
    return "<section>\n<h2>Suspects</h2>\n" + "\n".join(groups) + "\n</section>" if groups else ""


def _measures(report: Report) -> str:
    if not report.num_usable:
        return ""
    charts = []
    for name, (title, note) in _MEASURES.items():
        numbers = report.statistics[name]
        line = f"median {numbers['median']:g}, 1 % below {numbers['p1']:g}, 99 % up to {numbers['p99']:g}, at most "
        charts.append(
            f"<figure><figcaption>{title}<span class='note'>{note}; {line}{numbers['max']:g}</span></figcaption>"
            f"{draw(report.histograms[name], title)}</figure>"
        )
    formats = ", ".join(f"{_text(name)} {count:,}" for name, count in report.formats.items())
    return f"""<section>
<h2>Measures of the usable pairs</h2>
<div class="charts">
{chr(10).join(charts)}
</div>
<p class="note">Bars begin at the numbers beneath them. Formats: {formats}.</p>
</section>"""


def _captions(report: Report) -> str:
    if not report.num_usable:
        return ""
    rows = [
        f'<td class="number">{value.count:,}</td><td class="text">{_text(value.suspect.caption, _CAPTION_SHOWN)}</td>'
        for value in report.frequent_captions
    ]
    head = '<th class="number">times</th><th>caption</th>'
    table = _table(head, rows) if rows else "<p>No caption occurs twice.</p>"
    words = "".join(
        f"<li>{_text(item['word'], 40)}<span>{item['count']:,}</span></li>" for item in report.frequent_words
    )
    return f"""<section>
<h2>Most frequent captions</h2>
{table}
<h2>Most frequent words</h2>
<ul class="words">{words}</ul>
</section>"""


def _healthy(pairs: Sequence[Suspect], pictures: Pictures) -> str:
    if not pairs:
        return ""
    return f"""<section>
<h2>A sample of healthy pairs</h2>
<p class="note">Picked at equal distances from all pairs without a finding of their own.</p>
{_cards(pairs, pictures)}
</section>"""


def _cards(suspects: Iterable[Suspect], pictures: Pictures) -> str:
    return '<div class="cards">\n' + "\n".join(_card(suspect, pictures) for suspect in suspects) + "\n</div>"


def _card(suspect: Suspect, pictures: Pictures) -> str:
    uri = pictures.data_uri(suspect)
    picture = f'<img src="{uri}" alt="">' if uri else '<div class="blank">no picture can be made of it</div>'
    caption = f"<q>{_text(suspect.caption, _CAPTION_SHOWN)}</q>" if suspect.caption else ""
    detail = f'<span class="detail">{_text(suspect.detail, _CAPTION_SHOWN)}</span>' if suspect.detail else ""
    where = f"{_text(suspect.key)} in {_text(display_name(suspect.shard).rpartition('/')[2])}"
    return f'<figure class="card">{picture}{caption}{detail}<span class="where">{where}</span></figure>'


def _table(head: str, rows: Iterable[str]) -> str:
    header = f"<thead><tr>{head}</tr></thead>\n" if head else ""
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n{header}<tbody>\n{body}\n</tbody>\n</table></div>'


def _text(text: str, limit: int = 400) -> str:
    """Any text as HTML text, shortened: names and captions come from strangers."""
    whole = printable(text)
    return html.escape(whole if len(whole) <= limit else whole[: limit - 1] + "…")


def _share(part: int, whole: int) -> str:
    return f"{_percent(part / whole)} of the usable pairs" if whole else "–"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
