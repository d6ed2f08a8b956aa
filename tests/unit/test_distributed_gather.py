"""What the gather through which gradients flow leaves alone; test_distributed checks its values on two processes."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from mixreorg.distributed import _Gather


@pytest.mark.parametrize("is_contiguous", [True, False])
def test_the_incoming_gradient_is_not_changed(monkeypatch: pytest.MonkeyPatch, is_contiguous: bool) -> None:
    def reduce(gradient: torch.Tensor) -> None:
        assert gradient.is_contiguous()
        gradient.mul_(2)

    monkeypatch.setattr(dist, "all_reduce", reduce)
    incoming = torch.ones(3, 2) if is_contiguous else torch.ones(2, 3).T
    own = _Gather.backward(SimpleNamespace(num_local=3), incoming)
    assert torch.equal(own, torch.full((3, 2), 2.0))
    assert torch.equal(incoming, torch.ones(3, 2))
