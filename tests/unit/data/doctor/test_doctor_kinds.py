"""The catalogue of findings."""

import re
from pathlib import Path

import pytest

import mixreorg.data
from mixreorg.data.doctor.kinds import KINDS, SEVERITIES, allowed_kinds, exit_code, severity
from mixreorg.errors import MixreorgError

SOURCE = Path(mixreorg.data.__file__).parent


def test_every_problem_that_reading_reports_is_in_the_catalogue() -> None:
    text = "\n".join(file.read_text(encoding="utf-8") for file in SOURCE.glob("*.py"))
    reported = set(re.findall(r'(?:Problem|UnusableSampleError)\(\s*"([^"]+)"', text))
    assert {"no image", "damaged caption", "truncated shard", "stale index"} <= reported
    assert reported <= set(KINDS)


def test_the_most_serious_come_first() -> None:
    order = [SEVERITIES.index(kind.severity) for kind in KINDS.values() if kind.subject == "shard"]
    assert order == sorted(order, reverse=True)


def test_exit_codes() -> None:
    assert exit_code([]) == 0
    assert exit_code(["allowed"]) == 0
    assert exit_code(["allowed", "warning"]) == 1
    assert exit_code(["warning", "serious", "allowed"]) == 2
    assert severity("missing shard", []) == "serious"
    assert severity("missing shard", ["missing shard"]) == "allowed"
    assert allowed_kinds(KINDS) == set(KINDS)
    assert allowed_kinds(["tiny_image", "damaged-shard"]) == {"tiny image", "damaged shard"}
    with pytest.raises(MixreorgError, match="known: missing shard, "):
        allowed_kinds(["zzz"])
