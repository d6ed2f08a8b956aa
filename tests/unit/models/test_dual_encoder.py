import math

import pytest
import torch

from mixreorg.models.dual_encoder import DualEncoder, Projector, trim


def test_embeddings_are_normalised(tiny_model: DualEncoder) -> None:
    output = tiny_model.eval().encode_image(torch.randn(2, 3, 32, 32))
    texts = tiny_model.encode_text(tiny_model.tokenizer.encode(["a dog", "a cat on the sand"]))  # type: ignore[union-attr]
    for embeddings in (output.image_embedding, output.segment_embeddings, texts):
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(embeddings.shape[:-1]))


def test_scale_is_exponentiated_once_and_clamped(tiny_model: DualEncoder) -> None:
    assert tiny_model.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        tiny_model.logit_scale.fill_(math.log(1000))
    assert tiny_model.scale.item() == 100


def test_trimming_does_not_change_text_features(tiny_model: DualEncoder) -> None:
    ids = tiny_model.tokenizer.encode(["a dog", "a photo of a cat on the sand."])  # type: ignore[union-attr]
    cut = trim(ids, tiny_model.config.text.end_id)
    assert cut.shape[1] < ids.shape[1]
    tiny_model.eval()
    torch.testing.assert_close(tiny_model.encode_text(ids), tiny_model.encode_text(cut))


def test_templates_are_averaged_before_normalisation(tiny_model: DualEncoder) -> None:
    tiny_model.eval()
    prompts = [["a photo of a dog.", "the dog"], ["a photo of a cat.", "the cat"]]
    embeddings = tiny_model.encode_prompts(prompts)
    ids = tiny_model.tokenizer.encode(prompts[0])  # type: ignore[union-attr]
    features = tiny_model.text_projector(tiny_model.text_encoder(ids)).mean(dim=0)
    torch.testing.assert_close(embeddings[0], features / features.norm(), atol=1e-6, rtol=1e-5)


def test_running_statistics_leave_the_buffers_alone() -> None:
    torch.manual_seed(0)
    projector = Projector(4, 8, 3).train()
    before = projector.norm.running_mean.clone()  # type: ignore[union-attr]
    features = torch.randn(2, 5, 4)
    out = projector(features, "running")
    assert out.shape == (2, 5, 3)
    assert torch.equal(projector.norm.running_mean, before)  # type: ignore[union-attr]
    torch.testing.assert_close(out, projector.eval()(features))
    projector.train()(features)
    assert not torch.equal(projector.norm.running_mean, before)  # type: ignore[union-attr]


def test_a_later_update_of_the_statistics_does_not_reach_an_earlier_gradient() -> None:
    torch.manual_seed(0)
    projector = Projector(4, 8, 3).train()
    features, others = torch.randn(6, 4), 5 * torch.randn(6, 4) + 3

    def gradient(*, update_first: bool) -> torch.Tensor:
        projector.zero_grad()
        loss = projector(features, "running").square().sum()
        if update_first:
            projector(others)
        loss.backward()
        assert projector.hidden is not None
        return projector.hidden.weight.grad.clone()  # type: ignore[union-attr]

    assert torch.equal(gradient(update_first=False), gradient(update_first=True))


def test_batch_only_normalises_like_batch_and_leaves_the_buffers_alone() -> None:
    torch.manual_seed(0)
    projector, features = Projector(4, 8, 3).train(), torch.randn(6, 4)
    before = projector.norm.running_var.clone()  # type: ignore[union-attr]
    out = projector(features, "batch_only")
    assert torch.equal(projector.norm.running_var, before)  # type: ignore[union-attr]
    torch.testing.assert_close(out, projector(features))
