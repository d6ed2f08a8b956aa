"""Which shards should be there: gaps in their numbers, and img2dataset's statistics files beside them."""

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mixreorg.data.remote import printable as without_secrets
from mixreorg.data.specs import expand, expand_braces
from mixreorg.errors import MixreorgError
from mixreorg.files import exists

_NUMBERED = re.compile(r"(.*?)(\d+)((?:-of-\d+)?\D*)", re.DOTALL)
_WIDEST_GAP = 10_000
"""A gap as wide as this is two sets of shards rather than one with so many missing."""


class Statistics(NamedTuple):
    """What a statistics file says of its shard."""

    asked: int
    """Pairs that were asked for."""
    stored: int
    """Pairs that were written."""


class Parts(NamedTuple):
    """What specs name."""

    present: list[str]
    """Shards and captions files that are there, in the order of the specs, each once."""
    missing: list[str]
    """Names and patterns without any file."""
    listed: list[str]
    """Those of ``present`` that a folder or a pattern of shards brought, not their own names."""


def find_parts(specs: Iterable[str]) -> Parts:
    """Expand specs as :func:`~mixreorg.data.pairs.open_pairs` does, keeping account of what is not there.

    Raises:
        MixreorgError: a spec that cannot be understood, or a file that is neither a shard nor a captions file.
    """
    present: dict[str, bool] = {}
    missing: list[str] = []
    for spec in specs:
        for name in [spec] if _exists(spec) else expand_braces(spec):
            try:
                found = [str(part) for part in expand(name)]
            except MixreorgError:
                if _exists(name) or name.startswith("pipe:") or "://" in name or not name.strip():
                    raise
                missing.append(name)
                continue
            for part in found:
                present[part] = present.get(part, False) or part != name
    return Parts(list(present), missing, [name for name, is_listed in present.items() if is_listed])


def statistics_file(shard: str) -> Path:
    """The statistics file that belongs to a shard, whether it exists or not."""
    path = Path(shard)
    return path.with_name(f"{path.stem}_stats.json")


def read_statistics(shard: str) -> Statistics | None:
    """Read the statistics file beside a shard; None without one.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        values = json.loads(statistics_file(shard).read_bytes())
    except FileNotFoundError:
        return None
    asked, stored = (values.get(name) if isinstance(values, dict) else None for name in ("count", "successes"))
    if not (isinstance(asked, int) and isinstance(stored, int)):
        raise ValueError("no whole numbers 'count' and 'successes'")
    return Statistics(asked, stored)


def numbering_gaps(shards: Iterable[str]) -> list[str]:
    """Names of shards that are missing between the first and the last number of each series of names.

    A series is made of the names in one folder that differ in their last number alone (``00001.tar``,
    ``train-7.tar``), or in the last one before a total (``00001-of-00100.tar``).
    """
    series: defaultdict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for shard in shards:
        # Not as a path, which would change the slashes of a URL.
        folder, slash, name = shard.rpartition("/")
        match = _NUMBERED.fullmatch(name)
        if match:
            prefix, digits, suffix = match.groups()
            series[folder + slash + prefix, suffix][int(digits)] = len(digits)
    missing = []
    for (prefix, suffix), widths in series.items():
        for before, after in itertools.pairwise(sorted(widths)):
            if after - before <= _WIDEST_GAP:
                missing += [f"{prefix}{number:0{widths[before]}}{suffix}" for number in range(before + 1, after)]
    return missing


def orphaned_statistics(shards: Iterable[str]) -> list[str]:
    """Shards that are not there although a statistics file in the folder of the given shards counts their pairs."""
    known = set(shards)
    folders = sorted({Path(shard).parent for shard in known if "://" not in shard})
    counted = [file for folder in folders for file in sorted(folder.glob("*_stats.json"))]
    named = [file.with_name(file.name.removesuffix("_stats.json") + ".tar") for file in counted]
    return [str(shard) for shard in named if str(shard) not in known and not shard.exists()]


def display_name(part: str) -> str:
    """Name of a part for people: a URL without what may be secret in it."""
    return without_secrets(part) if "://" in part else part


def _exists(name: str) -> bool:
    try:
        return exists(Path(name).expanduser())
    except RuntimeError:  # ~user without such a user
        return False
