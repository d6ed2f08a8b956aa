import json

import pytest

from mixreorg.errors import MixreorgError
from mixreorg.train.run_log import read_log

LOG = [
    {"step": 50, "train/loss": 5.0, "train/contrastive": 3.0},
    {"step": 100, "train/loss": 4.0, "train/contrastive": 2.5, "train/mixed": float("nan")},
    {"step": 100, "val/foreground_miou": 12.0, "val/background_miou": 5.0},
    {"step": 150, "train/loss": 3.5, "train/contrastive": 2.0, "train/mixed": 1.5},
]


def test_a_log_is_read_back(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in LOG))
    assert [record["step"] for record in read_log(path)] == [50, 100, 100, 150]
    path.write_text('{"step": 50}\n{"step": 10')
    with pytest.raises(MixreorgError, match="not a training log"):
        read_log(path)
    path.write_text("[1, 2]\n")
    with pytest.raises(MixreorgError, match="every line"):
        read_log(path)
    with pytest.raises(MixreorgError, match=r"cannot read .*none\.jsonl"):
        read_log(tmp_path / "none.jsonl")
