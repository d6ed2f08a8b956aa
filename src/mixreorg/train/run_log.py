"""Reading a run's ``log.jsonl``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def whole_records(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a log that need not be whole, in order; none without a log.

    What a process killed in the middle of a line or a power cut left is skipped, text or not.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line.decode())
        except ValueError:
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            yield record
