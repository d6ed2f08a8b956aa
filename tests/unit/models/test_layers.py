import pytest
import torch
import torch.nn.functional as F

from mixreorg.models.layers import DropPath, SelfAttention, attend, block_index, window_mask


@pytest.mark.parametrize("is_causal", [False, True])
def test_plain_attention_equals_the_fused_kernel(is_causal: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 8, dtype=torch.bfloat16) for _ in range(3))
    fused = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=is_causal)
    plain = attend(query, key, value, is_causal=is_causal, is_training=True)
    assert not torch.equal(plain, attend(query, key, value, is_causal=is_causal))
    torch.testing.assert_close(plain.float(), fused, atol=0.03, rtol=0.03)


def test_masked_attention_sees_only_its_window() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(8, 2)
    x = torch.randn(1, 12, 8)
    mask = window_mask((3, 4), 2, x.device)
    out = attention(x, mask)
    changed = x.clone()
    changed[:, 0] += 1  # patch (0, 0): its window holds patches 0, 1, 4, 5
    difference = (attention(changed, mask) - out).abs().amax(dim=-1)[0]
    assert difference[[0, 1, 4, 5]].min() > 0
    assert difference[[2, 3, 6, 7, 8, 9, 10, 11]].max() == 0


def test_block_index_keeps_smaller_blocks_at_the_border() -> None:
    assert block_index((3, 5), 2, torch.device("cpu")).view(3, 5).tolist() == [
        [0, 0, 1, 1, 2],
        [0, 0, 1, 1, 2],
        [3, 3, 4, 4, 5],
    ]


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    drop = DropPath(0.25, "name").train()
    keys = torch.arange(4000)
    out = drop(torch.ones(4000, 2, 3), keys)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (out.flatten(1).std(dim=1) == 0).all()
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(out, drop(torch.ones(4000, 2, 3), keys))
    assert torch.equal(drop.eval()(torch.ones(4, 2, 3), keys[:4]), torch.ones(4, 2, 3))
