"""The whole check: which shards are there, what is in them, and what all of it amounts to."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from mixreorg.data.doctor.assemble import assemble
from mixreorg.data.doctor.examine import Suspect
from mixreorg.data.doctor.inventory import find_parts, numbering_gaps, orphaned_statistics
from mixreorg.data.doctor.kinds import allowed_kinds
from mixreorg.data.doctor.report import CheckConfig, Effort, PartFacts, Report
from mixreorg.data.doctor.totals import Totals
from mixreorg.data.doctor.work import Crew, Run, load_tokenizer
from mixreorg.data.progress import progress_bars

_RUN_LENGTH = 500


def check_pairs(specs: Sequence[str], config: CheckConfig, console: Console | None = None) -> Report:
    """Check caption pairs.

    Every shard gets its index on disk, unless ``config.index`` is off. An interrupt loses nothing of the finished
    shards: the next check finds their indexes.

    Args:
        specs: as for :func:`~mixreorg.data.pairs.open_pairs`, but shards that are not there are findings.
        config: what to look at.
        console: shows the progress; none is shown without it.

    Raises:
        MixreorgError: a spec that cannot be understood, an index that cannot be written, a wrong name in
            ``config.allow``, a tokenizer that cannot be read, a shard that disappears at the very end.
    """
    # What is wrong with these should come out before the work.
    allowed_kinds(config.allow)
    load_tokenizer(config.tokenizer)
    totals = Totals()
    names = _take_inventory(specs, totals)
    with Crew(config, config.workers or _cores()) as crew, progress_bars(console, decimals=1) as progress:
        bar = progress.add_task("index shards", total=len(names))
        parts = []
        for indexed in crew.index(names):
            totals.add(indexed.suspects, indexed.counts, indexed.facts.name)
            parts.append(indexed.facts)
            progress.advance(bar)
        runs = list(_plan(parts, config.sample))
        start = time.monotonic()
        bar = progress.add_task("look into pairs", total=sum(len(run.indices) for run in runs))
        for run, findings in zip(runs, crew.examine(runs), strict=True):
            totals.add_findings(run.part, run.name, findings)
            progress.advance(bar, len(run.indices))
        effort = Effort(sum(len(run.indices) for run in runs), time.monotonic() - start, crew.num_used)
    _compare_neighbours(parts, totals)
    _compare_numbers(parts, effort.num_examined, totals, config)
    return assemble(specs, config, parts, totals, effort)


def _take_inventory(specs: Sequence[str], totals: Totals) -> list[str]:
    """Names of the parts that are there; those that are not become findings."""
    found = find_parts(specs)
    missing = dict.fromkeys(found.missing, "named, but not there")
    for shard in orphaned_statistics(found.listed):
        missing.setdefault(shard, "its statistics file is there")
    for shard in numbering_gaps([*found.present, *missing]):
        missing.setdefault(shard, "a gap in the numbers")
    for name, reason in missing.items():
        _add(totals, Suspect("missing shard", name, detail=reason))
    return found.present


def _plan(parts: Sequence[PartFacts], sample: int | None) -> Iterator[Run]:
    """Cut what is to be looked into into runs that do not depend on the number of processes."""
    ends = np.cumsum([part.num_pairs for part in parts])
    total = int(ends[-1]) if parts else 0
    number = total if sample is None else min(sample, total)
    for place, part in enumerate(parts):
        first, last = int(ends[place]) - part.num_pairs, int(ends[place])
        # The i-th of n chosen pairs is pair i * total // n: evenly spread, and all of them where n is the total.
        chosen = np.arange(-(-first * number // total), -(-last * number // total)) if total else np.arange(0)
        indices = chosen * total // number - first if number else chosen
        for start in range(0, len(indices), _RUN_LENGTH):
            yield Run(place, part.name, indices[start : start + _RUN_LENGTH].astype(np.int32))


def _compare_neighbours(parts: Sequence[PartFacts], totals: Totals) -> None:
    """Shards without a statistics file in a folder where others have one."""
    folders = {Path(part.name).parent for part in parts if part.stored is not None}
    for part in parts:
        known = part.stored is not None or "damaged statistics" in totals.part_counts.get(part.name, ())
        if not known and Path(part.name).parent in folders:
            _add(totals, Suspect("shard without statistics", part.name))


def _compare_numbers(parts: Sequence[PartFacts], num_examined: int, totals: Totals, config: CheckConfig) -> None:
    """Usable pairs against the number expected, and against none."""
    # Without a look into all pairs, those not looked into count as usable.
    usable = sum(part.num_pairs for part in parts) - num_examined + totals.num_usable
    if usable == 0:
        _add(totals, Suspect("no usable pair", ""))
    missing = (config.expect or 0) - usable
    if config.expect and missing > 0:
        kind = "missing pairs" if missing > config.tolerance * config.expect else "few missing pairs"
        detail = f"{usable:,} of {config.expect:,}, {missing / config.expect:.2%} are missing"
        totals.add([Suspect(kind, "", detail=detail)], Counter({kind: missing}), "")


def _add(totals: Totals, suspect: Suspect) -> None:
    totals.add([suspect], Counter([suspect.kind]), suspect.shard)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
