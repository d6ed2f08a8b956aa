import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig, GroupViTObjective, project_texts
from mixreorg.objectives.losses import MISSING, mixed_loss, scaled_similarity
from mixreorg.objectives.mixreorg import MixReorgObjective, _group_similarity
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.source_index import draw_source_index
from mixreorg.objectives.terms import LossTerms, WeightSchedule
from mixreorg.text.tokenizer import Tokenizer

OFF = WeightSchedule(weight=0.0)


def batch(model: DualEncoder, size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    names = ["dog", "cat", "car", "grass", "sand", "photo", "dog on the sand", "cat on the grass"]
    assert model.tokenizer is not None
    ids = model.tokenizer.encode([f"a {name}" for name in names[:size]])
    return torch.randn(size, 3, 32, 32), ids, torch.arange(size) * 7919


def loss_and_gradients(
    objective: torch.nn.Module, model: DualEncoder, step: int = 0
) -> tuple[LossTerms, dict[str, Tensor]]:
    model.zero_grad()
    objective.train()
    terms: LossTerms = objective(*batch(model), step)
    terms.total.backward()
    return terms, {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("combine", ["none", "sum", "mean", "gate", "cross_attention"])
def test_without_extra_weights_it_is_exactly_groupvit(tiny_model: DualEncoder, combine: str) -> None:
    plain, expected = loss_and_gradients(GroupViTObjective(tiny_model, GroupViTConfig()), tiny_model)
    config = MixReorgConfig.from_dict({"combine": combine, "mixed": {"weight": 0.0}, "restored": {"weight": 0.0}})
    terms, gradients = loss_and_gradients(MixReorgObjective(tiny_model, config), tiny_model)
    assert torch.equal(terms.total, plain.total)
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


@pytest.mark.parametrize("contextual", [0, 1, 2, 3])
@pytest.mark.parametrize("combine", ["none", "sum", "mean", "gate", "cross_attention"])
def test_the_original_branch_does_not_know_of_the_mixing(
    tiny_model: DualEncoder, contextual: int, combine: str
) -> None:
    config = MixReorgConfig.from_dict({"num_contextual_blocks": contextual, "combine": combine})
    objective = MixReorgObjective(tiny_model, config).train()
    images, _, keys = batch(tiny_model)
    original, mixed, restored = objective.branches(images, keys, with_restored=True)
    alone = tiny_model.image_encoder(images, keys)
    torch.testing.assert_close(original.segment_tokens, alone.segment_tokens, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(original.patch_assignment, alone.patch_assignment, atol=1e-5, rtol=1e-4)
    assert mixed.encoding.segment_tokens.shape == alone.segment_tokens.shape
    assert restored is not None
    assert not torch.allclose(restored.segment_tokens, alone.segment_tokens, atol=1e-3)


def test_one_image_per_group_mixes_nothing(tiny_model: DualEncoder) -> None:
    """K = 1 with nothing combined: mixed and restored images are the original ones."""
    config = MixReorgConfig(group_size=1, combine="none", num_contextual_blocks=0)
    objective = MixReorgObjective(tiny_model, config).eval()
    images, _, _ = batch(tiny_model)
    original, mixed, restored = objective.branches(images, torch.zeros(6, dtype=torch.long), with_restored=True)
    assert restored is not None
    torch.testing.assert_close(mixed.encoding.segment_tokens, original.segment_tokens, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(restored.segment_tokens, original.segment_tokens, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("mixed", "restored", "names"),
    [(0.0, 0.0, set()), (1.0, 0.0, {"mixed"}), (0.0, 1.0, {"restored"}), (0.5, 0.25, {"mixed", "restored"})],
)
def test_the_total_is_the_weighted_sum(tiny_model: DualEncoder, mixed: float, restored: float, names: set[str]) -> None:
    config = MixReorgConfig(mixed=WeightSchedule(weight=mixed), restored=WeightSchedule(weight=restored))
    terms, _ = loss_and_gradients(MixReorgObjective(tiny_model, config), tiny_model)
    assert terms.terms.keys() == {"contrastive"} | names
    total = terms.terms["contrastive"]
    total = total + mixed * terms.terms.get("mixed", torch.tensor(0.0))
    total = total + restored * terms.terms.get("restored", torch.tensor(0.0))
    torch.testing.assert_close(terms.total.detach(), total)


def test_terms_follow_their_schedules(tiny_model: DualEncoder) -> None:
    config = MixReorgConfig(mixed=WeightSchedule(start_step=5), restored=OFF)
    objective = MixReorgObjective(tiny_model, config)
    assert "mixed" not in loss_and_gradients(objective, tiny_model, step=4)[0].terms
    assert "mixed" in loss_and_gradients(objective, tiny_model, step=5)[0].terms


def test_the_texts_side_needs_no_other_side(tiny_model: DualEncoder) -> None:
    def terms_of(config: MixReorgConfig, step: int) -> LossTerms:
        model = copy.deepcopy(tiny_model)  # with the same running statistics every time
        return loss_and_gradients(MixReorgObjective(model, config), model, step)[0]

    config = MixReorgConfig(mixed=OFF, restored=OFF, text_to_patch=WeightSchedule(weight=0.5, start_step=5))
    assert terms_of(config, 4).terms.keys() == {"contrastive"}
    alone = terms_of(config, 5)
    assert alone.terms.keys() == {"contrastive", "text_to_patch"}
    torch.testing.assert_close(alone.total.detach(), alone.terms["contrastive"] + 0.5 * alone.terms["text_to_patch"])
    both = terms_of(config.updated(mixed=WeightSchedule(weight=2.0, start_step=5)), 5)
    torch.testing.assert_close(both.total.detach(), alone.total.detach() + 2.0 * both.terms["mixed"])
    assert torch.equal(both.diagnostics["mixed_mask_accuracy"], alone.diagnostics["mixed_mask_accuracy"])


def test_mixed_segments_are_projected_by_the_statistics_of_earlier_batches(tiny_model: DualEncoder) -> None:
    config = MixReorgConfig(text_to_patch=WeightSchedule())
    objective = MixReorgObjective(tiny_model, config).train()
    features = objective.features(*batch(tiny_model), 0)
    earlier = copy.deepcopy(objective)
    terms = objective.loss(features, 0).terms
    text = project_texts(earlier.model, features["text"], slice(0, 6))
    torch.testing.assert_close(terms["mixed"], earlier.mixed_loss(features, text)[0].detach())
    torch.testing.assert_close(terms["text_to_patch"], earlier.text_to_patch_loss(features, text).detach())


def test_the_other_side_may_come_before_the_nouns(tiny_config: DualEncoderConfig, tokenizer: Tokenizer) -> None:
    """Captions look for their patches while there are no prompts yet for the nouns that patches choose from."""
    later = WeightSchedule(start_step=5)
    config = MixReorgConfig(
        mixed=later,
        restored=OFF,
        candidates="nouns",
        multi_label=MultiLabelConfig(weight=later),
        text_to_patch=WeightSchedule(),
    )
    model = DualEncoder(tiny_config.updated(multi_label=True), tokenizer)
    terms, _ = loss_and_gradients(MixReorgObjective(model, config), model, step=0)
    assert terms.terms.keys() == {"contrastive", "text_to_patch"}


@pytest.mark.parametrize("fewer", [None, 1])
def test_texts_look_for_their_patches_in_a_smaller_last_group_too(tiny_model: DualEncoder, fewer: int | None) -> None:
    config = MixReorgConfig(mixed_per_group=fewer, restored=OFF, text_to_patch=WeightSchedule())
    objective = MixReorgObjective(tiny_model, config).eval()
    images, ids, keys = batch(tiny_model, 6)
    features = objective.features(images, ids, keys, 0)
    texts = project_texts(tiny_model, features["text"], slice(0, 6)).embeddings
    attention = features["mixed_assignment"].transpose(1, 2) @ (
        (tiny_model.scale * objective.embed_segments(features["mixed_segments"]) @ texts.T).exp()
    )
    made = torch.arange(6) if fewer is None else torch.tensor([0, 4])
    source = made[:, None] // 4 * 4 + features["mixed_place"]
    found = torch.stack([attention[..., text][source == text].sum() for text in range(6)])
    exists = torch.stack([(source == text).any() for text in range(6)])
    expected = -(found / attention.sum(dim=(0, 1))).log()[exists].mean()
    torch.testing.assert_close(
        objective.loss(features, 0).terms["text_to_patch"], expected.detach(), rtol=1e-4, atol=1e-5
    )


def mixed_gradients(model: DualEncoder, **changes: Any) -> dict[str, Tensor]:
    """Gradients of the mixed loss alone."""
    objective = MixReorgObjective(model, MixReorgConfig.model_validate(changes)).train()
    model.zero_grad()
    images, ids, keys = batch(model)
    _, mixed, _ = objective.branches(images, keys, with_restored=False)
    objective.mixed_loss(mixed.features, project_texts(model, model.text_encoder(ids), slice(0, len(ids))))[
        0
    ].backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}


def test_detached_text_keeps_the_mixed_loss_out_of_the_text_encoder(tiny_model: DualEncoder) -> None:
    reached = mixed_gradients(tiny_model, detach_text=False)
    detached = mixed_gradients(tiny_model, detach_text=True)
    assert any(name.startswith("text_encoder") for name in reached)
    assert not any(name.startswith("text_") for name in detached)
    assert {name for name in reached if name.startswith("image_")} == {
        name for name in detached if name.startswith("image_")
    }


def test_the_mixed_loss_reaches_every_part_of_the_image_side(tiny_model: DualEncoder) -> None:
    reached = mixed_gradients(tiny_model)
    for part in (
        "patch_embedding.proj.weight",
        "position_embedding",
        "stages.0.blocks.0",
        "stages.0.grouping.assign.q_proj",
    ):
        assert any(name.startswith(f"image_encoder.{part}") for name in reached), part
    assert "image_projector.out.weight" in reached
    assert "logit_scale" in reached


@pytest.mark.parametrize("candidates", ["group", "batch"])
@pytest.mark.parametrize("form", ["cross_entropy", "mixed_probability", "binary_cross_entropy", "dice"])
def test_a_batch_that_the_group_size_does_not_divide(tiny_model: DualEncoder, candidates: str, form: str) -> None:
    config = MixReorgConfig.from_dict({"candidates": candidates, "mixed_form": form, "group_size": 4})
    terms, gradients = loss_and_gradients(MixReorgObjective(tiny_model, config), tiny_model)
    assert terms.total.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("form", ["cross_entropy", "mixed_probability"])
def test_missing_candidates_of_a_smaller_group_do_not_matter(tiny_model: DualEncoder, form: str) -> None:
    """The last two of six images form a group of two: their loss is that of a batch of just these two."""
    config = MixReorgConfig.from_dict(
        {"candidates": "group", "group_size": 4, "combine": "none", "num_contextual_blocks": 0, "mixed_form": form}
    )
    objective = MixReorgObjective(tiny_model, config).eval()
    images, ids, keys = batch(tiny_model)
    _, mixed, _ = objective.branches(images, keys, with_restored=False)
    text = project_texts(tiny_model, tiny_model.text_encoder(ids), slice(0, len(ids)))
    together, _ = objective.mixed_loss(mixed.features, text)
    parts = []
    for rows in (slice(0, 4), slice(4, 6)):
        _, part, _ = objective.branches(images[rows], keys[rows], with_restored=False)
        own = type(text)(text.embeddings[rows], slice(0, rows.stop - rows.start))
        parts.append(objective.mixed_loss(part.features, own)[0] * (rows.stop - rows.start))
    torch.testing.assert_close(together, sum(parts) / 6)


@pytest.mark.parametrize("where", ["mixed_group_tokens", "restored_group_tokens"])
def test_group_token_options_change_the_branch(tiny_model: DualEncoder, where: str) -> None:
    values = {"mixed_group_tokens": ("learned", "mean"), "restored_group_tokens": ("original", "mean")}[where]
    results = []
    for value in values:
        objective = MixReorgObjective(tiny_model, MixReorgConfig.from_dict({where: value})).eval()
        images, _, keys = batch(tiny_model)
        _, mixed, restored = objective.branches(images, keys, with_restored=True)
        assert restored is not None
        results.append(mixed.encoding if where == "mixed_group_tokens" else restored)
    assert not torch.allclose(results[0].segment_tokens, results[1].segment_tokens)


def test_diagnostics_are_in_range(tiny_model: DualEncoder) -> None:
    terms, _ = loss_and_gradients(MixReorgObjective(tiny_model, MixReorgConfig()), tiny_model)
    assert 1 <= terms.diagnostics["segments_in_use"] <= 3
    assert 0 <= terms.diagnostics["mixed_mask_accuracy"] <= 1
    assert terms.diagnostics["logit_scale"] == pytest.approx(1 / 0.07)


def test_more_contextual_blocks_than_stage_one_has(tiny_model: DualEncoder) -> None:
    with pytest.raises(ValueError, match="exceeds stage 1's depth 3"):
        MixReorgObjective(tiny_model, MixReorgConfig(num_contextual_blocks=4))


@pytest.mark.parametrize("config", [{}, {"candidates": "group"}, {"combine": "gate", "mixed_group_tokens": "mean"}])
def test_a_batch_can_be_encoded_in_chunks_of_whole_groups(tiny_model: DualEncoder, config: dict[str, Any]) -> None:
    objective = MixReorgObjective(tiny_model, MixReorgConfig.from_dict({**config, "group_size": 2})).train()
    images, ids, keys = batch(tiny_model)
    whole = objective.features(images, ids, keys, 0)
    rows = (slice(0, 2), slice(2, 6))
    parts = [objective.features(images[part], ids[part], keys[part], 0) for part in rows]
    joined = {name: torch.cat([part[name] for part in parts]) for name in whole}
    for name, tensor in whole.items():
        assert len(tensor) == len(images)
        torch.testing.assert_close(joined[name], tensor, atol=1e-5, rtol=1e-4)
    # A copy: every loss moves the running statistics that the next one's mixed segments are projected with.
    expected = copy.deepcopy(objective).loss(whole, 0).total
    torch.testing.assert_close(objective.loss(joined, 0).total, expected, atol=1e-5, rtol=1e-5)


def test_a_shared_mean_takes_an_images_mark_away_and_leaves_the_rest(tiny_model: DualEncoder) -> None:
    objective = MixReorgObjective(tiny_model, MixReorgConfig(group_size=3, share_mean=True))
    source = draw_source_index(torch.arange(6), (2, 2), 3, 1)
    tokens = torch.randn(6, 4, 8)
    mark = torch.randn(6, 1, 8)
    shared, marked = objective.context(tokens, source), objective.context(tokens + mark, source)
    torch.testing.assert_close(shared.mean(dim=1)[0], tokens[:3].mean(dim=(0, 1)))
    torch.testing.assert_close(shared - shared[:, :1], tokens - tokens[:, :1])
    # Of the marks only their group's mean is left, the same for all of the group.
    torch.testing.assert_close(
        marked - shared, mark.view(2, 3, 1, 8).mean(dim=1).repeat_interleave(3, 0).expand(6, 4, 8)
    )


@pytest.mark.parametrize("contextual", [0, 1])
def test_constant_context_keeps_the_mixed_loss_out_of_what_made_it(tiny_model: DualEncoder, contextual: int) -> None:
    changes = {"num_contextual_blocks": contextual, "combine": "sum"}
    reached = mixed_gradients(tiny_model, **changes, detach_context=True)
    # Without contextual blocks the mixed branch still runs through the embedding itself.
    assert ("image_encoder.patch_embedding.proj.weight" in reached) is (contextual == 0)
    assert any(name.startswith("image_encoder.stages.0.blocks.1") for name in reached)
    attached = mixed_gradients(tiny_model, **changes)
    assert any(not torch.equal(attached[name], reached[name]) for name in reached)


def mixed_tokens(model: DualEncoder, **changes: Any) -> Tensor:
    """Segments of the mixed images of one batch."""
    images, _, keys = batch(model)
    objective = MixReorgObjective(model, MixReorgConfig.model_validate(changes)).eval()
    return objective.branches(images, keys, with_restored=False)[1].encoding.segment_tokens


def test_dropped_context_is_no_progressive_mixing(tiny_model: DualEncoder) -> None:
    without = mixed_tokens(tiny_model, combine="none")
    mostly = mixed_tokens(tiny_model, combine="sum", context_dropout=1 - 1e-9)
    some = mixed_tokens(tiny_model, combine="sum", context_dropout=0.5)
    torch.testing.assert_close(mostly, without)
    assert not torch.allclose(some, without)
    assert not torch.allclose(some, mixed_tokens(tiny_model, combine="sum"))


def test_patches_that_fit_their_caption_weigh_more(tiny_model: DualEncoder) -> None:
    """One patch of image 0 is made to fit its caption perfectly: it weighs more, wherever it was mixed to."""
    images, ids, keys = batch(tiny_model)
    objective = MixReorgObjective(tiny_model, MixReorgConfig(group_size=3, patch_weights="relevance")).eval()
    text = project_texts(tiny_model, tiny_model.text_encoder(ids), slice(0, 6))
    features = objective.features(images, ids, keys, 0)
    place = features["mixed_place"]
    assignment = torch.zeros_like(features["original_assignment"])
    assignment[:, 0] = 1.0
    assignment[0, :, 0] = torch.eye(assignment.shape[1])[1]
    segments = text.embeddings[:, None].repeat(1, assignment.shape[1], 1) * -1
    segments[0, 1] = text.embeddings[0]
    objective.embed_segments = lambda tokens: segments  # type: ignore[method-assign]
    features["original_assignment"] = assignment
    source = torch.arange(6)[:, None] // 3 * 3 + place
    weights = objective.relevance(features, text, source)
    assert weights.shape == place.shape
    assert weights.max() == weights[source[:, 0] == 0, 0].item() > 1
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))


@pytest.mark.parametrize("choice", [{"patch_weights": "relevance"}, {"counted_patches": 0.5}])
def test_choosing_patches_needs_a_loss_over_patches(choice: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="dice"):
        MixReorgConfig(mixed_form="dice", **choice)


def test_fewer_mixed_images_are_the_first_of_each_group(tiny_model: DualEncoder) -> None:
    changes: dict[str, Any] = {"group_size": 3, "combine": "sum", "restored": OFF}
    everything = mixed_tokens(tiny_model, **changes)
    some = mixed_tokens(tiny_model, **changes, mixed_per_group=2)
    torch.testing.assert_close(some, everything[[0, 1, 3, 4]], atol=1e-5, rtol=1e-4)


def test_the_loss_over_the_best_patches_is_lower_and_accuracy_counts_all(tiny_model: DualEncoder) -> None:
    images, ids, keys = batch(tiny_model)
    whole = MixReorgObjective(tiny_model, MixReorgConfig(group_size=2, restored=OFF, combine="none")).eval()
    half = MixReorgObjective(tiny_model, whole.config.updated(counted_patches=0.5)).eval()
    with torch.no_grad():
        features = whole.features(images, ids, keys, 0)
        text = project_texts(tiny_model, tiny_model.text_encoder(ids), slice(0, 6))
        losses = [objective.mixed_loss(features, text)[0] for objective in (whole, half)]
        assert losses[1] < losses[0]
        assert torch.equal(half.mixed_loss(features, text)[1], whole.mixed_loss(features, text)[1])


@pytest.mark.parametrize("size", [6, 8])
def test_the_loss_of_fewer_mixed_images_is_the_mean_over_them(tiny_model: DualEncoder, size: int) -> None:
    config = MixReorgConfig(group_size=3, restored=OFF)
    images, ids, keys = batch(tiny_model, size)
    text = project_texts(tiny_model, tiny_model.text_encoder(ids), slice(0, size))
    whole = MixReorgObjective(tiny_model, config).eval()
    fewer = MixReorgObjective(tiny_model, config.updated(mixed_per_group=1)).eval()
    loss, accuracy = fewer.mixed_loss(fewer.features(images, ids, keys, 0), text)
    features = whole.features(images, ids, keys, 0)
    first = torch.arange(0, size, 3)
    similarity = scaled_similarity(
        whole.embed_segments(features["mixed_segments"])[first], text.embeddings, whole.model.scale
    )
    targets = first[:, None] + features["mixed_place"][first]
    expected = mixed_loss(features["mixed_assignment"][first], similarity, targets, config.mixed_form)
    torch.testing.assert_close(loss, expected)
    assert 0 <= accuracy <= 1


@pytest.mark.parametrize("changes", [{"mixed_per_group": 5}, {"mixed_per_group": 2, "restored": {"weight": 1.0}}])
def test_mixed_images_that_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mixed_per_group"):
        MixReorgConfig.model_validate(changes)


def test_a_text_that_a_smaller_last_group_lacks_is_no_candidate() -> None:
    similarity = torch.rand(1, 5, 7)
    chosen = _group_similarity(similarity, torch.tensor([[4, 5, 6, 6]]), 0)
    assert torch.equal(chosen[..., :3], similarity[..., 4:])
    assert (chosen[..., 3] == MISSING).all()
