"""Reading a run's ``log.jsonl``."""

import json
from pathlib import Path

from mixreorg.errors import MixreorgError

LogRecord = dict[str, float]
"""One line of a run's ``log.jsonl``: the step and scalars by name."""


def read_log(path: Path) -> list[LogRecord]:
    """Read a run's ``log.jsonl``.

    Raises:
        MixreorgError: missing, unreadable or damaged.
    """
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise MixreorgError(f"cannot read {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MixreorgError(f"{path} is not a training log ({error}); resume the run, which mends its end") from error
    if not all(isinstance(record, dict) and "step" in record for record in records):
        raise MixreorgError(f"{path} is not a training log: every line must hold a step and scalars")
    return records
