"""``mixreorg serve``: its options; the server itself has tests of its own."""

import pytest
from typer.testing import CliRunner

from mixreorg.cli.main import app
from mixreorg.errors import MixreorgError


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-megapixels", "inf", "--max-megapixels inf: a limit is a finite number"),
        ("--max-megabytes", "nan", "--max-megabytes nan: a limit is a finite number"),
        ("--max-megabytes", "1e305", r"--max-megabytes 1e\+305: a limit is a finite number"),
        ("--max-seconds", "inf", "max_seconds: .*finite"),
    ],
)
def test_limits_are_finite(monkeypatch: pytest.MonkeyPatch, option: str, value: str, message: str) -> None:
    monkeypatch.setattr("mixreorg.serve.run.serve", lambda *_, **__: pytest.fail("began to serve"))
    with pytest.raises(MixreorgError, match=message):
        CliRunner().invoke(app, ["serve", option, value], catch_exceptions=False)
