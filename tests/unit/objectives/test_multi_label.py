"""The multi-label loss against hand-made numbers and a slow second implementation; its place in both objectives."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.objectives.groupvit import GroupViTConfig, GroupViTObjective, project_texts
from mixreorg.objectives.losses import contrastive_loss, multi_label_loss
from mixreorg.objectives.mixreorg import MixReorgObjective
from mixreorg.objectives.mixreorg_config import MixReorgConfig
from mixreorg.objectives.multi_label import MultiLabelConfig
from mixreorg.objectives.objective import Objective
from mixreorg.objectives.terms import WeightSchedule
from mixreorg.text.noun_prompts import NounPrompts
from mixreorg.text.tokenizer import Tokenizer

NAMES = ["dog", "cat", "car", "grass"]
WORDS = torch.tensor([[0, 3], [1, -1], [-1, -1], [0, 2], [3, 1], [2, -1]])


def rand(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_loss_of_a_batch_reckoned_by_hand() -> None:
    """Two images at right angles. The first has the nouns p (along it) and q (between both), the second has r (along
    it); the scale is 2, so that logits are 2, sqrt 2 and 0.
    """
    images = torch.eye(2)
    half = math.sqrt(0.5)
    nouns = torch.tensor([[1.0, 0.0], [half, half], [0.0, 1.0]])
    owners, labels = torch.tensor([0, 0, 1]), torch.arange(3)
    e2, er, e0 = math.exp(2), math.exp(math.sqrt(2)), 1.0
    first = (2 * math.log(e2 + er + e0) - 2 - math.sqrt(2)) / 2
    second = math.log(e0 + er + e2) - 2
    of_images = (first + second) / 2
    p = math.log(e2 + e0) - 2
    of_nouns = (p + math.log(2) + p) / 3
    loss = multi_label_loss(images, nouns, owners, labels, torch.tensor(2.0), slice(0, 2))
    assert loss.item() == pytest.approx((of_images + of_nouns) / 2, rel=1e-6)


def test_one_noun_each_is_the_contrastive_loss() -> None:
    images, nouns, scale = rand(5, 8), rand(5, 8, seed=1), torch.tensor(7.0)
    every, each = slice(0, 5), torch.arange(5)
    expected = contrastive_loss(images, nouns, scale, every)
    torch.testing.assert_close(multi_label_loss(images, nouns, each, each, scale, every), expected)


@torch.no_grad()
def slow_loss(images: Tensor, nouns: Tensor, owners: list[int], words: list[int], scale: float, same: bool) -> float:
    """One pair at a time, in plain numbers. ``same``: equal words are the same noun."""
    count = len(owners)

    def belongs(image: int, noun: int) -> bool:
        own = [other for other in range(count) if owners[other] == image]
        return noun in own or (same and words[noun] in [words[other] for other in own])

    def cross_entropy(logits: list[float], positives: list[int]) -> float:
        total = math.log(sum(math.exp(value) for value in logits))
        return sum(total - logits[place] for place in positives) / len(positives)

    logits = [[scale * float(image @ noun) for noun in nouns] for image in images]
    rows = []
    for image in range(len(images)):
        positives = [noun for noun in range(count) if belongs(image, noun)]
        if positives:
            rows.append(cross_entropy(logits[image], positives))
    columns = []
    for noun in range(count):
        positives = [image for image in range(len(images)) if belongs(image, noun)]
        columns.append(cross_entropy([row[noun] for row in logits], positives))
    return (sum(rows) / len(rows) + sum(columns) / len(columns)) / 2


@pytest.mark.parametrize("same", [False, True])
def test_the_loss_is_that_of_a_slow_implementation(same: bool) -> None:
    owners, places = (WORDS >= 0).nonzero(as_tuple=True)
    words = WORDS[owners, places]
    labels = words if same else torch.arange(len(words))
    images, nouns, scale = rand(6, 8), rand(len(words), 8, seed=1), torch.tensor(6.0)
    expected = slow_loss(images, nouns, owners.tolist(), words.tolist(), 6.0, same)
    assert multi_label_loss(images, nouns, owners, labels, scale, slice(0, 6)).item() == pytest.approx(expected)
    shares = [multi_label_loss(images, nouns, owners, labels, scale, slice(start, start + 2)) for start in (0, 2, 4)]
    assert torch.stack(shares).mean().item() == pytest.approx(expected)


def test_a_batch_without_nouns_costs_nothing_and_has_a_gradient() -> None:
    images, scale = rand(4, 8).requires_grad_(), torch.tensor(6.0, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    loss = multi_label_loss(images, torch.empty(0, 8), none, none, scale, slice(0, 4))
    loss.backward()
    assert loss.item() == 0
    assert scale.grad is not None
    assert float(scale.grad) == 0
    # Beside a process with nouns, one without has its share of the mean.
    one = torch.zeros(1, dtype=torch.int64)
    assert multi_label_loss(images, rand(1, 8), one, one, scale, slice(2, 4)).item() == 0


@pytest.fixture
def model(tiny_config: DualEncoderConfig, tokenizer: Tokenizer) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(tiny_config.updated(multi_label=True), tokenizer)


def prompts(tokenizer: Tokenizer, words: Tensor = WORDS) -> NounPrompts:
    texts = [f"a photo of a {NAMES[word]}." if word >= 0 else "" for word in words.flatten().tolist()]
    return NounPrompts(tokenizer.encode(texts).view(*words.shape, -1), words)


def inputs(model: DualEncoder) -> tuple[Tensor, Tensor, Tensor]:
    assert model.tokenizer is not None
    torch.manual_seed(1)
    captions = ["a dog on the grass", "a cat", "sand", "a dog, a car", "a cat on the grass", "a car"]
    return torch.randn(6, 3, 32, 32), model.tokenizer.encode(captions), torch.arange(6) * 7919


OWN_OPTIONS = ("candidates", "text_to_patch", "text_to_patch_texts")
"""Of MixReorg's objective; all others are those of the multi-label loss."""


def build(model: DualEncoder, kind: str, **options: Any) -> Objective:
    objective = {name: options.pop(name) for name in OWN_OPTIONS if name in options}
    options = {"multi_label": {"weight": {"weight": 0.5}, "num_nouns": 2, **options}, **objective}
    if kind == "groupvit":
        return GroupViTObjective(model, GroupViTConfig.from_dict(options))
    return MixReorgObjective(model, MixReorgConfig.from_dict({**options, "group_size": 2}))


@pytest.mark.parametrize("kind", ["groupvit", "mixreorg"])
def test_the_loss_joins_the_others_with_its_weight(model: DualEncoder, tokenizer: Tokenizer, kind: str) -> None:
    terms = build(model, kind)(*inputs(model), 0, prompts(tokenizer))
    total = sum(float(value) * (0.5 if name == "multi_label" else 1.0) for name, value in terms.terms.items())
    assert set(terms.terms) >= {"contrastive", "multi_label"}
    assert float(terms.total.detach()) == pytest.approx(total, rel=1e-6)
    assert float(terms.diagnostics["nouns_per_caption"]) == pytest.approx(8 / 6)
    assert float(terms.diagnostics["multi_label_logit_scale"]) == pytest.approx(1 / 0.07, rel=1e-5)
    terms.total.backward()
    scale = model.multi_label_logit_scale
    assert scale is not None
    assert scale.grad is not None
    assert float(scale.grad) != 0


def test_the_loss_is_made_of_embeddings_that_the_batch_projects_together(
    model: DualEncoder, tokenizer: Tokenizer
) -> None:
    """Captions and existing prompts are one batch of the projector's BatchNorm; empty places are not in it."""
    objective = build(model, "groupvit", repeated_nouns="positive")
    images, ids, keys = inputs(model)
    nouns = prompts(tokenizer)
    twin = copy.deepcopy(model)
    terms = objective(images, ids, keys, 0, nouns)
    exists = nouns.words >= 0
    features = twin.text_encoder(torch.cat([ids, nouns.token_ids[exists]]))
    texts = F.normalize(twin.text_projector(features), dim=-1)
    pooled = twin.image_encoder(images, keys).pooled
    pictures = F.normalize(twin.image_projector(pooled), dim=-1)
    owners = exists.nonzero()[:, 0].tolist()
    expected = slow_loss(pictures, texts[6:], owners, nouns.words[exists].tolist(), 1 / 0.07, same=True)
    assert float(terms.terms["multi_label"]) == pytest.approx(expected, rel=1e-4)
    contrast = contrastive_loss(pictures, texts[:6], twin.scale, slice(0, 6))
    torch.testing.assert_close(terms.terms["contrastive"], contrast.detach())
    state, expected_state = model.text_projector.state_dict(), twin.text_projector.state_dict()
    torch.testing.assert_close(state["norm.running_mean"], expected_state["norm.running_mean"])


def test_what_stands_in_empty_places_does_not_matter(model: DualEncoder, tokenizer: Tokenizer) -> None:
    nouns = prompts(tokenizer)
    filled = nouns.token_ids.clone()
    filled[nouns.words < 0] = tokenizer.encode(["a very different text"])[0]
    images, ids, keys = inputs(model)
    losses = [
        build(copy.deepcopy(model), "groupvit")(images, ids, keys, 0, NounPrompts(token_ids, nouns.words)).total
        for token_ids in (nouns.token_ids, filled)
    ]
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("kind", ["groupvit", "mixreorg"])
def test_no_nouns_in_a_batch_leave_the_other_losses_as_they_are(
    model: DualEncoder, tokenizer: Tokenizer, kind: str
) -> None:
    with_loss = build(copy.deepcopy(model), kind)(*inputs(model), 0, prompts(tokenizer, torch.full((6, 2), -1)))
    without = build(copy.deepcopy(model), kind, weight={"weight": 0.0})(*inputs(model), 0)
    assert float(with_loss.terms["multi_label"]) == 0
    assert torch.equal(with_loss.total, without.total)
    assert "multi_label" not in without.terms
    assert "nouns_per_caption" not in without.diagnostics


def test_mixed_patches_choose_among_the_nouns_of_the_batch(model: DualEncoder, tokenizer: Tokenizer) -> None:
    objective = build(model, "mixreorg", candidates="nouns").eval()
    assert isinstance(objective, MixReorgObjective)
    nouns = prompts(tokenizer)
    features = objective.features(*inputs(model), 0, nouns)
    text = project_texts(model, features["text"], slice(0, 6), features["nouns"], features["noun_words"])
    loss, _ = objective.mixed_loss(features, text)
    words = sorted({word for word in WORDS.flatten().tolist() if word >= 0})
    texts = model.text_encoder(tokenizer.encode([f"a photo of a {NAMES[word]}." for word in words]))
    names = F.normalize(model.text_projector(texts), dim=-1)
    segments = objective.embed_segments(features["mixed_segments"])
    probability = (model.scale * segments @ names.T).softmax(dim=-1)
    patches = features["mixed_assignment"].transpose(1, 2) @ probability
    own = []
    for mixed, place in enumerate(features["mixed_place"].tolist()):
        for patch, source in enumerate(place):
            caption = set(WORDS[mixed // 2 * 2 + source].tolist())
            named = [index for index, word in enumerate(words) if word in caption]
            if named:
                own.append(-patches[mixed, patch, named].sum().log())
    torch.testing.assert_close(loss, torch.stack(own).mean(), rtol=1e-4, atol=1e-5)
    nothing = build(model, "mixreorg", candidates="nouns")(*inputs(model), 0, prompts(tokenizer, WORDS.clamp(max=-1)))
    assert float(nothing.terms["mixed"]) == 0


def test_nouns_as_candidates_need_their_prompts() -> None:
    with pytest.raises(ValueError, match="multi-label loss, which makes the prompts"):
        MixReorgConfig(candidates="nouns")
    late = MultiLabelConfig(weight=WeightSchedule(start_step=5))
    with pytest.raises(ValueError, match="from as early on"):
        MixReorgConfig(candidates="nouns", multi_label=late)
    with pytest.raises(ValueError, match="mixed_form 'mixed_probability'"):
        MixReorgConfig(candidates="nouns", mixed_form="dice", multi_label=late)

    with pytest.raises(ValueError, match="text_to_patch_texts 'nouns' need the multi-label loss"):
        MixReorgConfig(text_to_patch=WeightSchedule(), text_to_patch_texts="nouns")


@pytest.mark.parametrize("texts", ["captions", "nouns"])
def test_texts_look_for_mixed_patches(model: DualEncoder, tokenizer: Tokenizer, texts: str) -> None:
    objective = build(model, "mixreorg", text_to_patch={"weight": 0.5}, text_to_patch_texts=texts).eval()
    assert isinstance(objective, MixReorgObjective)
    features = objective.features(*inputs(model), 0, prompts(tokenizer))
    text = project_texts(model, features["text"], slice(0, 6), features["nouns"], features["noun_words"])
    terms = objective.loss(features, 0)
    embeddings, captions_of = text.embeddings, [{caption} for caption in range(6)]
    if texts == "nouns":
        words = sorted({word for word in WORDS.flatten().tolist() if word >= 0})
        prompted = model.text_encoder(tokenizer.encode([f"a photo of a {NAMES[word]}." for word in words]))
        embeddings = F.normalize(model.text_projector(prompted), dim=-1)
        captions_of = [{caption for caption in range(6) if word in WORDS[caption]} for word in words]
    similarity = model.scale * objective.embed_segments(features["mixed_segments"]) @ embeddings.T
    attention = features["mixed_assignment"].transpose(1, 2) @ similarity.exp()
    # Groups of two: the source of a mixed patch is one of the two images of its group.
    source = torch.arange(6)[:, None] // 2 * 2 + features["mixed_place"]
    losses = []
    for index, captions in enumerate(captions_of):
        own = torch.stack([source == caption for caption in captions]).any(dim=0)
        losses.append(-(attention[..., index][own].sum() / attention[..., index].sum()).log())
    torch.testing.assert_close(terms.terms["text_to_patch"], torch.stack(losses).mean().detach(), rtol=1e-4, atol=1e-5)
    without = build(model, "mixreorg").eval().loss(features, 0)
    assert "text_to_patch" not in without.terms
    torch.testing.assert_close(terms.total, without.total + 0.5 * torch.stack(losses).mean(), rtol=1e-5, atol=1e-5)


def test_texts_without_nouns_look_for_nothing(model: DualEncoder, tokenizer: Tokenizer) -> None:
    objective = build(model, "mixreorg", text_to_patch={"weight": 1.0}, text_to_patch_texts="nouns")
    terms = objective(*inputs(model), 0, prompts(tokenizer, WORDS.clamp(max=-1)))
    assert float(terms.terms["text_to_patch"]) == 0


def test_the_loss_comes_with_its_schedule(model: DualEncoder, tokenizer: Tokenizer) -> None:
    objective = build(model, "groupvit", weight={"weight": 1.0, "start_step": 3})
    assert "nouns" not in objective.features(*inputs(model), 2, prompts(tokenizer))
    assert objective.features(*inputs(model), 3, prompts(tokenizer))["nouns"].shape == (6, 2, 32)


def test_a_model_or_batch_without_what_the_loss_needs_is_a_bug(model: DualEncoder, tiny_model: DualEncoder) -> None:
    with pytest.raises(ValueError, match="multi_label=True"):
        build(tiny_model, "mixreorg")
    with pytest.raises(ValueError, match="needs noun prompts"):
        build(model, "groupvit")(*inputs(model), 0)


def test_only_a_model_for_the_loss_has_its_scale(model: DualEncoder, tiny_model: DualEncoder) -> None:
    assert model.state_dict().keys() - tiny_model.state_dict().keys() == {"multi_label_logit_scale"}
    assert project_texts(tiny_model, torch.randn(4, 32), slice(0, 4)).nouns is None
