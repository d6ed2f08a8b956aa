from unittest.mock import patch

import pytest
import torch

from mixreorg.recipes import recipe
from mixreorg.train.config import TrainConfig
from mixreorg.train.precision import has_bf16
from mixreorg.train.setup import resolve


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True, "avx512_bf16": False}, False)],
)
def test_a_processor_computes_in_bf16_if_it_has_the_instructions(capabilities: dict[str, bool], expected: bool) -> None:
    with patch.object(torch.cpu, "get_capabilities", lambda: capabilities, create=True):
        assert has_bf16("cpu") is expected


def test_unknown_devices_count_as_without() -> None:
    assert not has_bf16("mps")


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_follows_the_device_and_a_run_records_which(bf16: bool, expected: str) -> None:
    resolved, _ = resolve(recipe("scenes_mixreorg"), bf16=bf16)
    assert resolved.precision == expected


def test_a_precision_that_was_asked_for_stays() -> None:
    resolved, _ = resolve(TrainConfig(precision="bf16"), bf16=False)
    assert resolved.precision == "bf16"
