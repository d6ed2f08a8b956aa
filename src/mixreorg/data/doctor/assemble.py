"""From totals to a report: repeats, frequent values, a sample of healthy pairs, findings by severity."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from mixreorg.data.doctor.examine import SUSPECTS_KEPT, Suspect
from mixreorg.data.doctor.histograms import SCALES, histogram
from mixreorg.data.doctor.inventory import display_name
from mixreorg.data.doctor.kinds import KINDS, allowed_kinds, severity
from mixreorg.data.doctor.report import CheckConfig, Effort, Finding, FrequentValue, PartFacts, Report
from mixreorg.data.doctor.totals import Place, RepeatedPair, Totals
from mixreorg.data.doctor.work import Run, Worker, load_tokenizer

_FREQUENT_SHOWN = 20
_WORDS_SHOWN = 60
_HEALTHY_SHOWN = 24
_HEALTHY_TRIED = 4 * _HEALTHY_SHOWN


def assemble(
    specs: Sequence[str],
    config: CheckConfig,
    parts: Sequence[PartFacts],
    totals: Totals,
    effort: Effort,
) -> Report:
    """Make the report of a check.

    Args:
        specs: as they were given.
        config: of the check.
        parts: all parts, by their number.
        totals: of all pairs looked into; repeats are added to them.
        effort: what it took.

    Raises:
        MixreorgError: a part can no longer be read.
    """
    reader = _Reader(config, parts)
    repeats = totals.repeats(_FREQUENT_SHOWN)
    for kind, found in repeats.items():
        if found.surplus:
            suspects = [reader.repeated(kind, repeat) for repeat in found.most_frequent[:SUSPECTS_KEPT]]
            totals.add(suspects, Counter({kind: found.surplus}), "")
    images, captions = repeats["duplicate image"], repeats["duplicate caption"]
    context_length = load_tokenizer(config.tokenizer).context_length
    return Report(
        specs=tuple(specs),
        config=config,
        effort=effort,
        parts=tuple(parts),
        part_counts=totals.part_counts,
        findings=_findings(totals, allowed_kinds(config.allow)),
        num_usable=totals.num_usable,
        num_distinct_images=images.distinct,
        num_distinct_captions=captions.distinct,
        frequent_images=tuple(reader.frequent("duplicate image", repeat) for repeat in images.most_frequent),
        frequent_captions=tuple(reader.frequent("duplicate caption", repeat) for repeat in captions.most_frequent),
        frequent_words=tuple(totals.words.most_frequent(_WORDS_SHOWN)),
        statistics={name: measure.summary(SCALES[name].unit) for name, measure in totals.distributions.items()},
        histograms={name: histogram(name, measure) for name, measure in totals.distributions.items()},
        formats=dict(totals.formats.most_common()),
        context_length=context_length,
        num_cut=totals.distributions["num_tokens"].at_least(context_length + 1),
        healthy=tuple(reader.healthy(_HEALTHY_SHOWN)),
    )


class _Reader:
    """Reads single pairs of the parts again, to name or to show them."""

    def __init__(self, config: CheckConfig, parts: Sequence[PartFacts]) -> None:
        self._worker = Worker(config)
        self._parts = parts

    def suspect(self, kind: str, place: Place) -> Suspect:
        name = self._parts[place.part].name
        part = self._worker.part(name)
        caption = part.caption(place.sample)
        return Suspect(kind, name, part.key(place.sample), caption=caption, sample=place.sample)

    def repeated(self, kind: str, repeat: RepeatedPair) -> Suspect:
        first = self.suspect(kind, repeat.first)
        second = self.suspect(kind, repeat.second)
        there = "" if first.shard == second.shard else f" in {display_name(first.shard).rpartition('/')[2]}"
        return second._replace(detail=f"as {first.key}{there}; {repeat.times:,} times in all")

    def frequent(self, kind: str, repeat: RepeatedPair) -> FrequentValue:
        return FrequentValue(self.suspect(kind, repeat.first), repeat.times)

    def healthy(self, number: int) -> list[Suspect]:
        """Pairs without findings of their own, spread evenly."""
        ends = np.cumsum([part.num_pairs for part in self._parts])
        total = int(ends[-1]) if len(ends) else 0
        tried = min(total, _HEALTHY_TRIED)
        found: list[Suspect] = []
        for position in (np.arange(tried) * total // max(tried, 1)).tolist():
            part = int(np.searchsorted(ends, position, side="right"))
            index = position - int(ends[part]) + self._parts[part].num_pairs
            run = Run(part, self._parts[part].name, np.array([index], dtype=np.int32))
            if not self._worker.examine(run).counts:
                found.append(self.suspect("", Place(part, index)))
        # Thinned out evenly: the first ones alone would show the first shards alone.
        return found[:: max(1, len(found) // number)][:number]


def _findings(totals: Totals, allowed: Collection[str]) -> tuple[Finding, ...]:
    """All findings in the order of the catalogue, those that are allowed last."""
    findings = [
        Finding(kind, severity(name, allowed), totals.counts[name], tuple(totals.suspects[name]))
        for name, kind in KINDS.items()
        if totals.counts[name]
    ]
    return tuple(sorted(findings, key=lambda finding: finding.severity == "allowed"))
