import math

import pytest
import torch
import torch.nn.functional as F

from mixreorg.objectives.losses import (
    MISSING,
    MixedLossForm,
    contrastive_loss,
    mixed_loss,
    mixed_mask_accuracy,
    mixed_noun_loss,
    text_to_patch_loss,
)
from mixreorg.objectives.terms import WeightSchedule


def test_contrastive_loss_of_perfect_and_of_uninformative_embeddings() -> None:
    eye = torch.eye(4)
    every = slice(0, 4)
    assert contrastive_loss(eye, eye, torch.tensor(100.0), every).item() == pytest.approx(0, abs=1e-6)
    same = F.normalize(torch.ones(4, 4), dim=-1)
    assert contrastive_loss(same, same, torch.tensor(10.0), every).item() == pytest.approx(math.log(4))


def test_contrastive_loss_of_shares_averages_to_the_whole() -> None:
    torch.manual_seed(0)
    images, texts = F.normalize(torch.randn(6, 8), dim=-1), F.normalize(torch.randn(6, 8), dim=-1)
    scale = torch.tensor(5.0)
    whole = contrastive_loss(images, texts, scale, slice(0, 6))
    shares = [contrastive_loss(images, texts, scale, slice(start, start + 2)) for start in (0, 2, 4)]
    torch.testing.assert_close(torch.stack(shares).mean(), whole)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    assignment = torch.randn(3, 4, 10).softmax(dim=1)
    similarity = 3 * torch.randn(3, 4, 5)
    targets = torch.randint(0, 5, (3, 10))
    return assignment, similarity, targets


def test_mixed_loss_forms_follow_their_formulas() -> None:
    assignment, similarity, targets = inputs()
    logits = torch.einsum("msn,mst->mnt", assignment, similarity)
    probability = torch.einsum("msn,mst->mnt", assignment, similarity.softmax(dim=-1))
    truth = F.one_hot(targets, 5).float()
    own = probability.gather(2, targets[..., None]).squeeze(-1)
    overlap, total = (probability * truth).sum(1), (probability + truth).sum(1)
    dice = 1 - (2 * overlap + 1) / (total + 1)
    expected = {
        "cross_entropy": -(logits.log_softmax(-1) * truth).sum(-1).mean(),
        "mixed_probability": -own.log().mean(),
        "binary_cross_entropy": F.binary_cross_entropy(logits.sigmoid(), truth),
        "dice": dice[truth.sum(1) > 0].mean(),
    }
    for form, value in expected.items():
        torch.testing.assert_close(mixed_loss(assignment, similarity, targets, form), value)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["cross_entropy", "mixed_probability", "binary_cross_entropy", "dice"])
def test_a_right_mask_costs_little_and_a_wrong_one_much(form: str) -> None:
    segments = torch.tensor([[0, 0, 1, 1, 2, 2]])
    assignment = F.one_hot(segments, 3).float().transpose(1, 2)
    similarity = 20 * (2 * torch.eye(3)[None] - 1)
    good = mixed_loss(assignment, similarity, segments, form)  # type: ignore[arg-type]
    bad = mixed_loss(assignment, similarity, (segments + 1) % 3, form)  # type: ignore[arg-type]
    assert good < 1e-3
    assert bad > 100 * good + 0.3
    assert mixed_mask_accuracy(assignment, similarity, segments) == 1
    assert mixed_mask_accuracy(assignment, similarity, (segments + 1) % 3) == 0


def test_the_most_wrong_patch_has_a_finite_loss_and_a_gradient() -> None:
    assignment = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    similarity = torch.tensor([[[100.0, -100.0], [-100.0, 100.0]]], requires_grad=True)
    loss = mixed_loss(assignment, similarity, torch.tensor([[1, 0]]), "mixed_probability")
    loss.backward()
    assert loss.isfinite()
    assert similarity.grad is not None
    assert similarity.grad.abs().max() > 0.1


def test_binary_cross_entropy_leaves_out_candidates_that_do_not_exist() -> None:
    assignment, similarity, _ = inputs()
    targets = torch.randint(0, 3, (3, 10))
    padded = torch.cat([similarity[..., :3], torch.full((3, 4, 2), MISSING)], dim=-1)
    expected = mixed_loss(assignment, similarity[..., :3], targets, "binary_cross_entropy")
    torch.testing.assert_close(mixed_loss(assignment, padded, targets, "binary_cross_entropy"), expected)


@pytest.mark.parametrize("form", ["cross_entropy", "mixed_probability", "binary_cross_entropy", "dice"])
def test_losses_stay_in_float32_under_autocast(form: str) -> None:
    assignment, similarity, targets = inputs()
    plain = mixed_loss(assignment, similarity, targets, form)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mixed_loss(assignment, similarity, targets, form), plain)  # type: ignore[arg-type]


def test_weight_schedule() -> None:
    schedule = WeightSchedule(weight=2.0, start_step=10, ramp_steps=4)
    assert [schedule.at(step) for step in (0, 9, 10, 11, 13, 14, 500)] == [0, 0, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert WeightSchedule(weight=0.5).at(0) == 0.5


@pytest.mark.parametrize("form", ["cross_entropy", "mixed_probability", "binary_cross_entropy"])
def test_weights_choose_which_patches_count(form: MixedLossForm) -> None:
    torch.manual_seed(3)
    assignment = torch.rand(2, 3, 4).softmax(dim=1)
    similarity, targets = torch.randn(2, 3, 5), torch.randint(0, 5, (2, 4))
    first_half = torch.tensor([2.0, 2.0, 0.0, 0.0]).expand(2, 4)
    weighted = mixed_loss(assignment, similarity, targets, form, first_half)
    torch.testing.assert_close(weighted, mixed_loss(assignment[:, :, :2], similarity, targets[:, :2], form))
    torch.testing.assert_close(
        mixed_loss(assignment, similarity, targets, form, torch.ones(2, 4)),
        mixed_loss(assignment, similarity, targets, form),
    )


@pytest.mark.parametrize("form", ["cross_entropy", "mixed_probability", "binary_cross_entropy"])
def test_a_share_of_the_patches_counts_those_that_fit_best(form: MixedLossForm) -> None:
    torch.manual_seed(4)
    assignment = torch.rand(3, 4, 6).softmax(dim=1).requires_grad_()
    similarity, targets = 5 * torch.randn(3, 4, 5), torch.randint(0, 5, (3, 6))
    with torch.no_grad():
        patches = [
            mixed_loss(assignment[[m]][:, :, [n]], similarity[[m]], targets[[m]][:, [n]], form)
            for m in range(3)
            for n in range(6)
        ]
        alone = torch.stack(patches).reshape(3, 6)
    loss = mixed_loss(assignment, similarity, targets, form, counted=0.5)
    torch.testing.assert_close(loss.detach(), alone.sort(dim=1).values[:, :3].mean())
    loss.backward()
    assert assignment.grad is not None
    counted = assignment.grad.abs().sum(dim=1) > 0
    assert counted.sum(dim=1).tolist() == [3, 3, 3]
    torch.testing.assert_close(
        mixed_loss(assignment, similarity, targets, form, counted=0.01).detach(), alone.min(dim=1).values.mean()
    )


def test_the_loss_over_nouns_counts_any_noun_of_the_patch() -> None:
    torch.manual_seed(5)
    assignment = torch.rand(2, 3, 4).softmax(dim=1)
    similarity = (3 * torch.randn(2, 3, 5)).requires_grad_()
    named = torch.tensor([[[1, 0, 1, 0, 0], [0, 0, 0, 1, 0]], [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]]).bool()
    targets = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])
    loss = mixed_noun_loss(assignment, similarity, named, targets)
    probability = assignment.transpose(1, 2) @ similarity.softmax(dim=-1)
    own = [
        -probability[m, n, named[m, targets[m, n]]].sum().log()
        for m in range(2)
        for n in range(4)
        if named[m, targets[m, n]].any()
    ]
    assert len(own) == 6
    torch.testing.assert_close(loss, torch.stack(own).mean())
    assert mixed_noun_loss(assignment, similarity, torch.zeros_like(named), targets) == 0
    loss.backward()
    assert similarity.grad is not None
    assert similarity.grad.isfinite().all()


def test_texts_look_for_the_patches_of_their_images_among_all_mixed_ones() -> None:
    torch.manual_seed(6)
    assignment = torch.rand(2, 3, 4).softmax(dim=1)
    similarity = (3 * torch.randn(2, 3, 5)).requires_grad_()
    # The second text belongs to images of both mixed images, the last one to none.
    named = torch.tensor([[[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]], [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]]]).bool()
    targets = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    loss = text_to_patch_loss(assignment, similarity, named, targets)
    attention = assignment.transpose(1, 2) @ similarity.exp()
    losses = []
    for text in range(4):
        own = [attention[m, n, text] for m in range(2) for n in range(4) if named[m, targets[m, n], text]]
        losses.append(-(torch.stack(own).sum() / attention[..., text].sum()).log())
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    loss.backward()
    assert similarity.grad is not None
    assert similarity.grad[..., :4].abs().sum() > 0
    assert torch.equal(similarity.grad[..., 4], torch.zeros(2, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(text_to_patch_loss(assignment, similarity, named, targets), loss)
    assert text_to_patch_loss(assignment, similarity, torch.zeros_like(named), targets) == 0


def test_a_text_needs_one_segment_of_its_image_and_no_other_image_s() -> None:
    """The other side asks every segment of an image to fit its caption; this one is content with the best."""
    assignment = F.one_hot(torch.tensor([[0, 1, 2, 3]]), 4).float().transpose(1, 2)
    named, targets = torch.eye(2, dtype=torch.bool)[None], torch.tensor([[0, 0, 1, 1]])
    right = torch.tensor([[[30.0, 0.0], [0.0, 0.0], [0.0, 30.0], [0.0, 0.0]]])
    assert text_to_patch_loss(assignment, right, named, targets) < 1e-6
    shared = right.clone()
    shared[0, 3, 0] = 30.0
    assert text_to_patch_loss(assignment, shared, named, targets) == pytest.approx(math.log(2) / 2)
    wrong = (10 * right.flip(2)).requires_grad_()
    loss = text_to_patch_loss(assignment, wrong, named, targets)
    assert loss.item() == pytest.approx(300 - math.log(2))
    loss.backward()
    assert wrong.grad is not None
    assert wrong.grad.isfinite().all()
    assert wrong.grad.abs().max() > 0.1
