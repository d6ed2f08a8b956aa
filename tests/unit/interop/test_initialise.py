import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GroupViTModel

from mixreorg.config import merge
from mixreorg.errors import MixreorgError
from mixreorg.interop.hf_tokenizer import write_hf_tokenizer
from mixreorg.interop.initialise import InitConfig, InitReport, initialise, settings_of
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import save_model
from mixreorg.recipes import scenes_mixreorg
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.text.tokenizer import Tokenizer
from mixreorg.train.config import TrainConfig
from mixreorg.train.setup import resolve

Convert = Callable[[DualEncoder], dict[str, Tensor]]


def start(model: DualEncoder, path: Path) -> InitReport:
    report = initialise(model, InitConfig(weights="groupvit", path=str(path)))
    assert report is not None
    return report


def fresh(config: DualEncoderConfig, tokenizer: Tokenizer | None = None, **image: object) -> DualEncoder:
    torch.manual_seed(1)
    return DualEncoder(config.updated(image=config.image.updated(**image)), tokenizer).eval()


@torch.no_grad()
def test_a_model_takes_all_of_a_transformers_folder(
    their_folder: Path, theirs: GroupViTModel, tiny_config: DualEncoderConfig, tokenizer: Tokenizer
) -> None:
    model = fresh(tiny_config, tokenizer)
    report = start(model, their_folder)
    images = torch.randn(2, 3, 32, 32)
    ids = tokenizer.encode(["a photo of a dog", "a car on the sand"])
    expected = theirs(input_ids=ids, pixel_values=images)
    torch.testing.assert_close(model.encode_image(images).image_embedding, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.encode_text(ids), expected.text_embeds, atol=1e-5, rtol=0)
    total = len(model.state_dict())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert sum(report.loaded.values()) == parameters
    assert (report.missing, report.resized, report.ignored, report.notes) == ({}, {}, (), ())
    assert report.summary() == (
        f"loaded {total} of {total} tensors ({parameters / 1e6:.2f} of {parameters / 1e6:.2f} M parameters) "
        f"from {their_folder / 'model.safetensors'}"
    )


@torch.no_grad()
def test_positions_of_another_grid_are_resized_as_the_encoder_does(
    tiny_model: DualEncoder, tiny_config: DualEncoderConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    torch.nn.init.normal_(tiny_model.image_encoder.position_embedding)
    save_model(tiny_model, tmp_path)
    larger = fresh(tiny_config, tokenizer, image_size=56)
    report = start(larger, tmp_path)
    assert "image_encoder.position_embedding 4x4 -> 7x7" in report.summary()
    images = torch.randn(2, 3, 56, 56)
    expected = tiny_model.eval().encode_image(images).image_embedding
    torch.testing.assert_close(larger.encode_image(images).image_embedding, expected)


def test_what_has_no_counterpart_is_accounted_for(
    tiny_model: DualEncoder, tiny_config: DualEncoderConfig, original_state: Convert, tmp_path: Path
) -> None:
    state = original_state(tiny_model)
    for name in list(state):
        if name.startswith("text_encoder.ln_final.") or name.endswith("num_batches_tracked"):
            del state[name]
    torch.save({"model": {**state, "teacher_head.weight": torch.zeros(3), "queue": torch.zeros(3)}}, tmp_path / "w.pth")
    model = fresh(tiny_config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = start(model, tmp_path / "w.pth")
    expected = {name for name in before if name.startswith("text_encoder.norm.") or name.endswith("batches_tracked")}
    assert report.missing.keys() == expected
    assert set(report.ignored) == {"teacher_head.weight", "queue", "multi_label_logit_scale"}
    assert report.loaded.keys() | report.missing.keys() == before.keys()
    assert "text_encoder.norm.* (2)" in report.summary()
    assert "ignored: multi_label_logit_scale, teacher_head.* (1), queue" in report.summary()
    after, source = model.state_dict(), tiny_model.state_dict()
    for name in before:
        assert torch.equal(after[name], (before if name in expected else source)[name])


def test_weights_of_half_precision_become_full(
    tiny_model: DualEncoder, tiny_config: DualEncoderConfig, original_state: Convert, tmp_path: Path
) -> None:
    torch.save(
        {"model": {name: value.half() for name, value in original_state(tiny_model).items()}}, tmp_path / "w.pth"
    )
    model = fresh(tiny_config)
    start(model, tmp_path / "w.pth")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    torch.testing.assert_close(model.logit_scale, tiny_model.logit_scale, atol=1e-3, rtol=0)


def test_another_architecture_is_refused_with_settings_that_fit(
    tiny_model: DualEncoder, tiny_config: DualEncoderConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tiny_model, tmp_path)
    other = tiny_config.updated(
        image=tiny_config.image.updated(depths=(2, 2, 1), width=64, num_heads=1, num_segments=(6, 4)), embed_dim=8
    )
    with pytest.raises(MixreorgError, match=r"model\.image\.depths is \[3, 1, 1\] there, \[2, 2, 1\] here") as caught:
        start(DualEncoder(other, tokenizer), tmp_path)
    settings = re.findall(r"--set (\S+)", str(caught.value))
    transform = TrainConfig().data.transform.updated(image_size=32)
    run = TrainConfig(model=other, data=TrainConfig().data.updated(transform=transform))
    mended = run.with_overrides(settings).model
    assert mended == tiny_config
    assert not start(DualEncoder(mended, tokenizer), tmp_path).missing


@pytest.mark.parametrize("field", ["num_heads", "activation"])
def test_what_leaves_no_trace_in_the_tensors_is_compared_where_it_is_told(
    their_folder: Path, tiny_config: DualEncoderConfig, field: str
) -> None:
    value = {"num_heads": 4, "activation": "gelu"}[field]
    other = tiny_config.updated(text=tiny_config.text.updated(**{field: value}))
    with pytest.raises(MixreorgError, match=rf"model\.text\.{field} is .* there, {value} here"):
        start(DualEncoder(other), their_folder)


def test_untold_head_counts_are_mentioned(
    tiny_model: DualEncoder, tiny_config: DualEncoderConfig, original_state: Convert, tmp_path: Path
) -> None:
    torch.save(original_state(tiny_model), tmp_path / "w.pth")
    summary = start(fresh(tiny_config), tmp_path / "w.pth").summary()
    assert (
        "does not tell the number of heads: 2 as model.image.num_heads says; published models of width 32 have 1"
        in summary
    )


def test_another_way_to_assign_is_mentioned(
    tiny_model: DualEncoder,
    tiny_config: DualEncoderConfig,
    original_state: Convert,
    tokenizer: Tokenizer,
    tmp_path: Path,
) -> None:
    save_model(tiny_model, tmp_path)
    model = fresh(tiny_config, tokenizer, assignment="soft", assignment_logits="cosine", drop_path=0.0)
    report = start(model, tmp_path)
    assert report.notes == (
        "differs from the checkpoint: model.image.assignment hard -> soft",
        "differs from the checkpoint: model.image.assignment_logits dot -> cosine",
    )
    assert {name.rpartition(".")[2] for name in report.missing} == {"cosine_scale"}
    torch.save(original_state(tiny_model), tmp_path / "w.pth")
    assert report.notes[0] in start(model, tmp_path / "w.pth").notes


def test_another_tokenizer(tiny_model: DualEncoder, tiny_config: DualEncoderConfig, tmp_path: Path) -> None:
    save_model(tiny_model, tmp_path)
    captions = [f"ein Foto von {name} am {place}." for name in ("Hund", "Auto", "Boot") for place in ("Meer", "Haus")]
    other = Tokenizer.train(captions, vocab_size=tiny_config.text.vocab_size, context_length=24)
    own = re.escape(f"--set data.tokenizer={tmp_path / 'tokenizer.json'}")
    assert other.vocab_size == tiny_config.text.vocab_size
    with pytest.raises(MixreorgError, match=f"was trained with another tokenizer; take its own: {own}"):
        start(fresh(tiny_config, other), tmp_path)
    smaller = tiny_config.updated(text=tiny_config.text.updated(vocab_size=520, end_id=519))
    with pytest.raises(MixreorgError, match=rf"model\.text\.vocab_size is \d+ there, 520 here.*{own}$"):
        start(DualEncoder(smaller), tmp_path)


def test_clip_is_the_tokenizer_of_foreign_weights(their_folder: Path, tiny_config: DualEncoderConfig) -> None:
    smaller = tiny_config.updated(text=tiny_config.text.updated(vocab_size=520, end_id=519))
    with pytest.raises(MixreorgError, match=r"Take its own: --set data\.tokenizer=clip$"):
        start(DualEncoder(smaller), their_folder)


def test_mis_shaped_and_damaged_tensors(
    tiny_model: DualEncoder, tiny_config: DualEncoderConfig, original_state: Convert, tmp_path: Path
) -> None:
    state = original_state(tiny_model)
    broken = {**state, "img_encoder.norm.weight": torch.zeros(31)}
    torch.save(broken, tmp_path / "w.pth")
    with pytest.raises(MixreorgError, match=r"image_encoder\.norm\.weight has shape \(31,\), expected \(32,\)"):
        start(fresh(tiny_config), tmp_path / "w.pth")
    torch.save({**state, "img_encoder.norm.weight": torch.full((32,), torch.nan)}, tmp_path / "w.pth")
    with pytest.raises(MixreorgError, match=r"image_encoder\.norm\.weight holds values that are NaN"):
        start(fresh(tiny_config), tmp_path / "w.pth")


def test_no_weights_asked_for_and_no_path_given(tiny_model: DualEncoder, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    assert initialise(tiny_model, InitConfig()) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())
    with pytest.raises(MixreorgError, match=r"name it with --set initialise\.path=FILE_OR_FOLDER"):
        initialise(tiny_model, InitConfig(weights="groupvit"))
    with pytest.raises(MixreorgError, match="there is no checkpoint at"):
        start(tiny_model, tmp_path / "nowhere.pth")
    with pytest.raises(MixreorgError, match=r"path w\.pth is not used while weights is 'none'"):
        InitConfig.from_dict({"path": "w.pth"})
    assert InitConfig.from_dict(json.loads('{"weights": "vit", "path": "w.pth"}')).path == "w.pth"


def test_a_run_takes_the_settings_of_a_model(
    tiny_config: DualEncoderConfig, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixreorg.bundled._ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    image = tiny_config.image.updated(drop_path=0.25, mlp_ratio=2.0, assignment="soft")
    protocol = groupvit_protocol(32).updated(name="mine")
    model = DualEncoder(tiny_config.updated(image=image), tokenizer)
    for folder, name in (("scenes-tiny", "scenes-tiny"), ("other", str(tmp_path / "other"))):
        save_model(model, tmp_path / folder, protocol.to_dict())
        monkeypatch.chdir(tmp_path / folder)
        recipe = scenes_mixreorg()
        config = TrainConfig.from_dict(merge(recipe.to_dict(), settings_of(name)), source="test")
        # What acts in training alone stays the recipe's.
        assert config.model == model.config.updated(
            image=image.updated(
                drop_path=recipe.model.image.drop_path,
                init_std=recipe.model.image.init_std,
                group_token_std=recipe.model.image.group_token_std,
            )
        )
        assert (config.objective, config.optim, config.protocol) == (recipe.objective, recipe.optim, protocol)
        assert config.data.transform == recipe.data.transform.updated(image_size=32)
        resolved, found = resolve(config, bf16=False)
        assert found.to_dict() == tokenizer.to_dict()
        report = initialise(DualEncoder(resolved.model, found), resolved.initialise)
        assert report is not None
        assert (report.missing, report.ignored) == ({}, ())
    assert resolved.data.tokenizer == str(tmp_path / "other" / "tokenizer.json")


def test_a_tokenizer_that_training_does_not_read(their_folder: Path, tokenizer: Tokenizer) -> None:
    write_hf_tokenizer(tokenizer, their_folder)
    with pytest.raises(MixreorgError, match=r"a tokenizer of its own .*: mixreorg convert .*hf FOLDER --to native"):
        settings_of(str(their_folder))
