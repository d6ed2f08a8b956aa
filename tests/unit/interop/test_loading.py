"""``load_model`` on the weights of others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, GroupViTModel

import mixreorg
from mixreorg.errors import MixreorgError
from mixreorg.interop.groupvit_checkpoint import read_groupvit
from mixreorg.interop.hf_tokenizer import write_hf_tokenizer
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import save_model
from mixreorg.text.tokenizer import Tokenizer

Convert = Callable[[DualEncoder], dict[str, Tensor]]


@pytest.fixture
def hf_folder(their_folder: Path, tokenizer: Tokenizer) -> Path:
    """A model of ``transformers`` with its tokenizer."""
    write_hf_tokenizer(tokenizer, their_folder)
    return their_folder


@torch.no_grad()
def test_a_folder_of_transformers(hf_folder: Path, theirs: GroupViTModel, tokenizer: Tokenizer) -> None:
    model = mixreorg.load_model(hf_folder)
    assert not model.training
    assert model.inference_protocol is None
    assert model.tokenizer is not None
    assert model.tokenizer.to_dict() == tokenizer.to_dict()
    images, ids = torch.randn(2, 3, 32, 32), tokenizer.encode(["a dog", "a photo of a cat"])
    expected = theirs(input_ids=ids, pixel_values=images)
    torch.testing.assert_close(model.encode_image(images).image_embedding, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.encode_text(ids), expected.text_embeds, atol=1e-5, rtol=0)


def test_a_lone_file_of_theirs_has_the_tokenizer_beside_it(
    hf_folder: Path, tiny_config: DualEncoderConfig, tokenizer: Tokenizer
) -> None:
    for name in ("config.json", "merges.txt", "vocab.json"):
        (hf_folder / name).unlink()
    for source in (hf_folder, hf_folder / "model.safetensors"):
        model = load_model(source, unseen=tiny_config)
        assert model.tokenizer is not None
        assert model.tokenizer.to_dict() == tokenizer.to_dict()
    tokenizer.save(hf_folder / "tokenizer.json")  # in our own form
    model = load_model(hf_folder / "model.safetensors", unseen=tiny_config)
    assert model.tokenizer is not None
    assert model.tokenizer.to_dict() == tokenizer.to_dict()
    (hf_folder / "tokenizer.json").unlink()
    with pytest.raises(MixreorgError, match=r"CLIP's has 49,408 and 24\. Put the tokenizer\.json that it was trained"):
        load_model(hf_folder / "model.safetensors")


def test_weights_in_several_files(hf_folder: Path) -> None:
    (hf_folder / "model.safetensors").rename(hf_folder / "model-00001-of-00001.safetensors")
    (hf_folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(MixreorgError, match="holds weights in several files"):
        load_model(hf_folder)


def test_a_lone_original_file(
    tiny_model: DualEncoder, original_state: Convert, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "groupvit.pth"
    torch.save({"model": original_state(tiny_model), "epoch": 29}, file)
    with pytest.raises(MixreorgError, match=r"needs a tokenizer of \d+ ids and context 24; CLIP's has 49,408 and 24"):
        load_model(file)
    tokenizer.save(tmp_path / "tokenizer.json")
    model = load_model(file, unseen=tiny_model.config)
    assert model.config == tiny_model.config.updated(multi_label=True)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tiny_model.state_dict().items())
    assert load_model(file).config.image.num_heads == 1


def test_the_published_vocabulary_is_clips(
    tiny_config: DualEncoderConfig, original_state: Convert, tmp_path: Path
) -> None:
    text = tiny_config.text.updated(vocab_size=49408, end_id=49407, context_length=77)
    torch.save(original_state(DualEncoder(tiny_config.updated(text=text))), tmp_path / "groupvit.pth")
    (tmp_path / "tokenizer.json").write_text("of somebody else")
    tokenizer = load_model(tmp_path / "groupvit.pth").tokenizer
    assert tokenizer is not None
    assert tokenizer.to_dict() == Tokenizer.clip().to_dict()


def test_a_native_file_outside_its_folder(tiny_model: DualEncoder, tmp_path: Path) -> None:
    save_model(tiny_model, tmp_path / "model")
    assert load_model(tmp_path / "model" / "model.safetensors").config == tiny_model.config


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("logit_scale", None, "missing logit_scale"),
        ("text_model.extra", torch.zeros(2), r"unexpected text_model\.extra"),
        (
            "vision_model.layernorm.weight",
            torch.zeros(3),
            r"image_encoder\.norm\.weight has shape \(3,\), expected \(32,\)",
        ),
        (
            "vision_model.layernorm.weight",
            torch.zeros(32, dtype=torch.int32),
            r"image_encoder\.norm\.weight holds torch\.int32, expected torch\.float32",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(hf_folder: Path, name: str, change: Tensor | None, message: str) -> None:
    state = load_file(hf_folder / "model.safetensors")
    state.pop(name, None)
    if change is not None:
        state[name] = change
    save_file(state, hf_folder / "model.safetensors")
    with pytest.raises(MixreorgError, match=message):
        load_model(hf_folder)


def test_truncated_weights(hf_folder: Path) -> None:
    content = (hf_folder / "model.safetensors").read_bytes()
    (hf_folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(MixreorgError, match="is damaged or not a safetensors file"):
        load_model(hf_folder)


def test_a_clip_is_no_groupvit(tmp_path: Path) -> None:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    config = CLIPConfig(vision_config={**small, "image_size": 32}, text_config={**small, "vocab_size": 99})
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    for source in (tmp_path / "clip", tmp_path / "clip" / "model.safetensors"):
        with pytest.raises(MixreorgError, match="not a GroupViT checkpoint: it looks like CLIP"):
            load_model(source)


def test_nothing_there(tmp_path: Path) -> None:
    for name in (tmp_path / "none", "none" * 100):
        with pytest.raises(MixreorgError, match="no model at"):
            load_model(name)
        with pytest.raises(MixreorgError, match="no checkpoint at"):
            read_groupvit(name)
    with pytest.raises(MixreorgError, match="holds no model"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(MixreorgError, match="not the configuration of a mixreorg model"):
        load_model(tmp_path)


def test_a_device_that_is_not_there(hf_folder: Path) -> None:
    with pytest.raises(MixreorgError, match="the device 'nowhere' cannot be used"):
        load_model(hf_folder, "nowhere")


def test_another_end_of_text(hf_folder: Path) -> None:
    content = json.loads((hf_folder / "config.json").read_text())
    content["text_config"]["eos_token_id"] = 17
    (hf_folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(MixreorgError, match="ends texts with the id 17, and its tokenizer with the highest"):
        load_model(hf_folder)


def test_a_tokenizer_of_another_model(hf_folder: Path) -> None:
    write_hf_tokenizer(Tokenizer.train(["a b"], vocab_size=514, context_length=24), hf_folder)
    with pytest.raises(MixreorgError, match=r"merges\.txt makes 514 ids"):
        load_model(hf_folder)
    for name in ("merges.txt", "vocab.json"):
        (hf_folder / name).unlink()
    with pytest.raises(MixreorgError, match=r"tokenizer\.json makes 514 ids"):
        load_model(hf_folder)
    shutil.copy(hf_folder / "tokenizer_config.json", hf_folder / "tokenizer.json")
    with pytest.raises(MixreorgError, match="is not a byte-pair tokenizer"):
        load_model(hf_folder)
