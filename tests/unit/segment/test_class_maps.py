import pytest
import torch
from torch.nn import functional

from mixreorg.segment.class_maps import WindowScores, decode_windows, map_segments


def _unit(*shape, seed):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _inputs(batch=3, segments=4, grid=(3, 5), classes=9, width=16):
    assignment = torch.randn(batch, segments, grid[0] * grid[1], generator=torch.Generator().manual_seed(0))
    return {
        "soft_assignment": assignment.softmax(1),
        "grid": grid,
        "size": (24, 40),
        "segment_embeddings": _unit(batch, segments, width, seed=1),
        "image_embeddings": _unit(batch, width, seed=2),
        "class_embeddings": _unit(classes, width, seed=3),
        "owners": torch.arange(classes),
        "logit_scale": 10.0,
    }


def _published(inputs, window, shortlist, threshold):
    """The zero-shot decoding of GroupViT for one window, pixel by pixel, in plain steps."""
    classes = inputs["class_embeddings"]
    logits = inputs["segment_embeddings"][window] @ classes.T * inputs["logit_scale"]
    kept = (inputs["image_embeddings"][window] @ classes.T).topk(min(shortlist, len(classes))).indices
    masked = torch.full_like(logits, -torch.inf)
    masked[:, kept] = logits[:, kept]
    product = masked.softmax(-1) * logits.softmax(-1)
    maps = inputs["soft_assignment"][window].reshape(1, -1, *inputs["grid"])
    segments = functional.interpolate(maps, size=inputs["size"], mode="bilinear").argmax(1)[0]
    scores = product[segments].permute(2, 0, 1)
    if threshold is None:
        return scores
    background = (scores.amax(0) < min(threshold, product.max().item())).float()
    return torch.cat([background[None], scores])


@pytest.mark.parametrize("threshold", [None, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("shortlist", [1, 5, 100])
def test_equals_the_published_steps(shortlist, threshold):
    inputs = _inputs()
    windows = decode_windows(**inputs, shortlist=shortlist, background_threshold=threshold)
    expected = torch.stack([_published(inputs, window, shortlist, threshold) for window in range(3)])
    torch.testing.assert_close(windows.expand(), expected)
    assert torch.equal(windows.expand().argmax(1), expected.argmax(1))


def test_threshold_is_of_each_window_alone():
    inputs = _inputs()
    inputs["image_embeddings"][1] = -inputs["image_embeddings"][1]
    together = decode_windows(**inputs, background_threshold=1.0).segment_scores
    per_window = (together[..., 1:].amax(dim=(1, 2))).tolist()
    assert len(set(per_window)) == 3
    for window in range(3):
        best = together[window, :, 1:].amax(-1)
        assert (together[window, :, 0] == 0).sum() == (best == best.max()).sum() == 1


def test_batched_equals_single():
    inputs = _inputs()
    batched = decode_windows(**inputs, background_threshold=0.3)
    per_window = ["soft_assignment", "segment_embeddings", "image_embeddings"]
    parts = [
        decode_windows(**{**inputs, **{n: inputs[n][i : i + 1] for n in per_window}}, background_threshold=0.3)
        for i in range(3)
    ]
    single = WindowScores.concatenate(parts)
    assert torch.equal(single.segment_map, batched.segment_map)
    torch.testing.assert_close(single.segment_scores, batched.segment_scores)


def test_classes_off_the_shortlist_score_exactly_zero():
    scores = decode_windows(**_inputs(), shortlist=5).segment_scores
    assert ((scores > 0).any(1).sum(-1) == 5).all()
    assert decode_windows(**_inputs(classes=2), shortlist=5).segment_scores.shape == (3, 4, 2)


def test_a_repeated_synonym_changes_nothing():
    inputs = _inputs()
    expected = decode_windows(**inputs, background_threshold=0.3).segment_scores
    order = torch.tensor([8, 0, 1, 1, 2, 3, 4, 5, 5, 5, 6, 7])
    doubled = {**inputs, "class_embeddings": inputs["class_embeddings"][order], "owners": order}
    torch.testing.assert_close(decode_windows(**doubled, background_threshold=0.3).segment_scores, expected)


def test_a_further_synonym_only_raises_its_class():
    inputs = _inputs()
    before = decode_windows(**inputs, shortlist=100).segment_scores
    inputs["class_embeddings"] = torch.cat([inputs["class_embeddings"], _unit(1, 16, seed=9)])
    inputs["owners"] = torch.cat([inputs["owners"], torch.tensor([4])])
    after = decode_windows(**inputs, shortlist=100).segment_scores
    assert (after[..., 4] >= before[..., 4] - 1e-7).all()
    assert (after[..., 4] > before[..., 4] + 1e-3).any()
    others = [index for index in range(9) if index != 4]
    assert (after[..., others] <= before[..., others] + 1e-7).all()


def test_ties_of_the_shortlist_go_to_the_first_classes():
    inputs = _inputs()
    inputs["image_embeddings"] = torch.zeros_like(inputs["image_embeddings"])
    scores = decode_windows(**inputs, shortlist=2).segment_scores
    assert (scores[..., :2] > 0).all()
    assert (scores[..., 2:] == 0).all()


def test_autocast_does_not_coarsen_the_scores():
    expected = decode_windows(**_inputs()).segment_scores
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decode_windows(**_inputs()).segment_scores, expected)


def test_arg_max_follows_the_resize():
    # At pixel 3 of 8 the resized maps are (0.55, 0.49): the first segment reaches past the middle.
    maps = torch.tensor([[[1.0, 0.2], [0.1, 0.8]]])
    assert map_segments(maps, (1, 2), (1, 8)).tolist() == [[[0, 0, 0, 0, 1, 1, 1, 1]]]
    maps = torch.tensor([[[1.0, 0.4], [0.0, 0.6]]])
    assert map_segments(maps, (1, 2), (1, 8)).tolist() == [[[0, 0, 0, 0, 0, 1, 1, 1]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (4, 5)}, "does not fit the grid"),
        ({"owners": torch.arange(8)}, "class of each"),
        ({"owners": torch.arange(9) + 1}, "every class"),
        ({"owners": torch.arange(9) - 1}, "every class"),
        ({"shortlist": 0}, "at least 1"),
    ],
)
def test_inputs_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        decode_windows(**{**_inputs(), **change})


def test_negatives_leave_the_shortlist_and_the_ratios_of_the_wanted_classes_alone():
    inputs = _inputs(classes=12)
    with_negatives = decode_windows(**inputs, shortlist=3, num_negatives=4).segment_scores
    wanted = {**inputs, "class_embeddings": inputs["class_embeddings"][:8], "owners": torch.arange(8)}
    alone = decode_windows(**wanted, shortlist=3).segment_scores
    assert torch.equal(with_negatives[..., :8] > 0, alone > 0)
    assert (with_negatives[..., 8:] > 0).sum(-1).tolist() == [[3] * 4] * 3
    shares = with_negatives[..., :8] / with_negatives[..., :8].sum(-1, keepdim=True)
    torch.testing.assert_close(shares, alone / alone.sum(-1, keepdim=True))


@pytest.mark.parametrize("decoding", ["groupvit", "softmax"])
def test_absent_classes_score_nothing_and_take_no_place(decoding):
    inputs = _inputs()
    plain = decode_windows(**inputs, shortlist=4, decoding=decoding).segment_scores
    kept = plain[0].amax(0).argsort(descending=True)[:2].tolist()
    absent = decode_windows(**inputs, shortlist=4, decoding=decoding, absent=kept).segment_scores
    assert not absent[..., kept].any()
    if decoding == "groupvit":
        assert (absent[0, 0] > 0).sum() == 4
        # One class left keeps its probability among all names: it is not certain because the others are gone.
        logits = inputs["segment_embeddings"] @ inputs["class_embeddings"].T * inputs["logit_scale"]
        last = decode_windows(**inputs, absent=range(8)).segment_scores
        torch.testing.assert_close(last[..., 8], logits.softmax(-1)[..., 8])


def test_no_class_left_is_background_everywhere():
    windows = decode_windows(**_inputs(), absent=range(9), background_threshold=0.5)
    assert not windows.segment_scores.any()
    assert not windows.expand().argmax(1).any()
