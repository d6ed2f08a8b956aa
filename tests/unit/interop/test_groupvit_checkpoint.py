import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GroupViTModel

from mixreorg.errors import MixreorgError
from mixreorg.interop.groupvit_checkpoint import read_groupvit
from mixreorg.interop.loading import load_model
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import check_state, save_model
from mixreorg.text.tokenizer import Tokenizer

Convert = Callable[[DualEncoder], dict[str, Tensor]]


def rebuild(source: Path, unseen: DualEncoderConfig | None = None) -> DualEncoder:
    weights = read_groupvit(source, unseen)
    model = DualEncoder(weights.config)
    check_state(weights.state, model.state_dict(), str(source))
    model.load_state_dict(weights.state)
    return model.eval()


@torch.no_grad()
def assert_same_outputs(model: DualEncoder, theirs: GroupViTModel) -> None:
    images = torch.randn(2, 3, 32, 32)
    ids = torch.randint(1, 500, (3, 9))
    ids[torch.arange(3), torch.tensor([8, 4, 6])] = model.config.text.end_id
    expected = theirs(input_ids=ids, pixel_values=images)
    image, text = model.encode_image(images).image_embedding, model.encode_text(ids)
    torch.testing.assert_close(image, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(text, expected.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.similarity(image, text), expected.logits_per_image, atol=1e-5, rtol=0)


def test_a_folder_of_transformers(their_folder: Path, theirs: GroupViTModel, tiny_config: DualEncoderConfig) -> None:
    weights = read_groupvit(their_folder)
    assert weights.config == tiny_config
    assert weights.described
    assert_same_outputs(rebuild(their_folder), theirs)
    assert_same_outputs(rebuild(their_folder / "model.safetensors"), theirs)


def test_their_older_weight_file(their_folder: Path, theirs: GroupViTModel) -> None:
    (their_folder / "model.safetensors").unlink()
    state = {**theirs.state_dict(), "text_model.embeddings.position_ids": torch.arange(24)[None]}
    torch.save(state, their_folder / "pytorch_model.bin")
    assert_same_outputs(rebuild(their_folder), theirs)


def test_a_lone_file_of_theirs_needs_the_head_counts(
    their_folder: Path, theirs: GroupViTModel, tiny_config: DualEncoderConfig, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(their_folder / "model.safetensors", alone)
    weights = read_groupvit(alone)
    assert not weights.described
    assert (weights.config.image.num_heads, weights.config.text.num_heads) == (1, 1)
    assert_same_outputs(rebuild(alone, tiny_config), theirs)


def test_ids_of_their_older_configurations_mean_the_highest(their_folder: Path, tiny_config: DualEncoderConfig) -> None:
    path = their_folder / "config.json"
    content = json.loads(path.read_text())
    for end_id, expected in ((2, tiny_config.text.vocab_size - 1), (17, 17)):
        content["text_config"]["eos_token_id"] = end_id
        path.write_text(json.dumps(content))
        assert read_groupvit(their_folder).config.text.end_id == expected


def test_what_this_package_does_not_have(their_folder: Path) -> None:
    path = their_folder / "config.json"
    content = json.loads(path.read_text())
    content["vision_config"]["assign_eps"] = 1e-6
    path.write_text(json.dumps(content))
    with pytest.raises(MixreorgError, match=r"assign_eps 1e-06 of the vision encoder is not supported, only 1\.0"):
        read_groupvit(their_folder)
    content["vision_config"]["assign_eps"], content["text_config"]["layer_norm_eps"] = 1.0, 1e-3
    path.write_text(json.dumps(content))
    with pytest.raises(MixreorgError, match=r"layer_norm_eps 0\.001 of the text encoder is not supported"):
        read_groupvit(their_folder)
    path.write_text(json.dumps({"model_type": "groupvit"}))
    with pytest.raises(MixreorgError, match="has no vision_config; restore it"):
        read_groupvit(their_folder)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("vision_config", {"num_attention_heads": 5}, "width 32 is not a multiple of num_heads 5"),
        ("text_config", {"hidden_act": "relu"}, "activation: Input should be 'gelu' or 'quick_gelu'"),
        ("text_config", {"eos_token_id": 10**9}, "end_id 1000000000 lies outside the vocabulary"),
    ],
)
def test_faults_of_their_configuration_are_its_own(
    their_folder: Path, theirs: GroupViTModel, section: str, value: dict[str, Any], message: str
) -> None:
    path = their_folder / "config.json"
    content = json.loads(path.read_text())
    content[section].update(value)
    path.write_text(json.dumps(content))
    with pytest.raises(MixreorgError, match=rf"^{path} does not fit \S+model\.safetensors: .*{message}"):
        read_groupvit(their_folder)
    state = theirs.state_dict()
    state["text_model.embeddings.token_embedding.weight"] = torch.zeros(2, 32)
    save_file(state, their_folder / "model.safetensors")
    with pytest.raises(MixreorgError, match=r"^\S+model\.safetensors is damaged"):
        read_groupvit(their_folder)


def test_the_original_layout(
    tiny_model: DualEncoder, tiny_config: DualEncoderConfig, original_state: Convert, tmp_path: Path
) -> None:
    torch.save({"model": original_state(tiny_model), "epoch": 29}, tmp_path / "groupvit.pth")
    weights = read_groupvit(tmp_path / "groupvit.pth", tiny_config)
    assert weights.config == tiny_config.updated(multi_label=True)
    expected = {**tiny_model.state_dict(), "multi_label_logit_scale": torch.tensor([2.0])}
    assert weights.state.keys() == expected.keys()
    assert all(torch.equal(weights.state[name], tensor) for name, tensor in expected.items())
    DualEncoder(weights.config).load_state_dict(weights.state)


def test_an_original_trained_without_the_multi_label_loss_has_no_scale_for_it(
    tiny_model: DualEncoder, tiny_config: DualEncoderConfig, original_state: Convert, tmp_path: Path
) -> None:
    state = original_state(tiny_model)
    del state["multi_label_logit_scale"]
    torch.save({"model": state}, tmp_path / "groupvit.pth")
    weights = read_groupvit(tmp_path / "groupvit.pth", tiny_config.updated(multi_label=True))
    assert weights.config == tiny_config
    assert weights.state.keys() == tiny_model.state_dict().keys()


def test_published_architecture_without_hints(original_state: Convert, tmp_path: Path) -> None:
    model = DualEncoder(DualEncoderConfig())
    torch.save({"model": original_state(model)}, tmp_path / "groupvit.pth")
    scenes = DualEncoderConfig().updated(
        image=DualEncoderConfig().image.updated(assignment="soft", centre_keys=True, width=128, num_heads=4)
    )
    published = DualEncoderConfig(multi_label=True)
    assert read_groupvit(tmp_path / "groupvit.pth").config == published
    assert read_groupvit(tmp_path / "groupvit.pth", scenes).config == published


@pytest.mark.parametrize("name", ["groupvit_official_small_modelonly.pth", "groupvit_hf_small"])
def test_real_files(shared: Path, name: str) -> None:
    model = rebuild(shared / "parity" / name)
    assert model.config.image.depths == (2, 1, 1)
    assert (model.config.image.image_size, model.config.text.vocab_size) == (96, 4096)


def test_a_real_training_file_gives_its_tensors_alone(shared: Path) -> None:
    whole = read_groupvit(shared / "parity" / "groupvit_official_small.pth")
    alone = read_groupvit(shared / "parity" / "groupvit_official_small_modelonly.pth")
    assert whole.config == alone.config
    assert whole.state.keys() == alone.state.keys()
    assert all(torch.equal(whole.state[name], tensor) for name, tensor in alone.state.items())


def test_native_folders(tiny_model: DualEncoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = run / "checkpoints" / "step-00000008"
    save_model(tiny_model, folder)
    (run / "state.json").write_text(json.dumps({"latest": folder.name, "best": None}))
    for source in (folder, run, folder / "model.safetensors"):
        weights = read_groupvit(str(source))
        assert weights.config == tiny_model.config
        assert weights.tokenizer is not None
        assert weights.tokenizer.vocab_size == tokenizer.vocab_size
        assert all(torch.equal(weights.state[name], tensor) for name, tensor in tiny_model.state_dict().items())


def test_a_native_file_of_a_small_architecture_alone(tiny_config: DualEncoderConfig, tmp_path: Path) -> None:
    """What the scenes recipes change in the tensors is read from them."""
    image = tiny_config.image.updated(
        stem="conv",
        pre_assign_attention=False,
        assignment_logits="cosine",
        mlp_ratio=2.0,
        num_heads=1,
        depths=(2, 1, 0),
    )
    config = tiny_config.updated(image=image, text=tiny_config.text.updated(num_heads=1), projector_hidden=0)
    state = {name: tensor.contiguous() for name, tensor in DualEncoder(config).state_dict().items()}
    save_file(state, tmp_path / "alone.safetensors")
    assert read_groupvit(tmp_path / "alone.safetensors", DualEncoderConfig()).config == config
    with pytest.raises(MixreorgError, match=r"does not say how its model assigns patches .* config\.json"):
        read_groupvit(tmp_path / "alone.safetensors")


def test_a_saved_file_alone_says_what_its_tensors_do_not(
    tiny_config: DualEncoderConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    image = tiny_config.image.updated(num_heads=1, assignment="soft", centre_keys=True)
    model = DualEncoder(tiny_config.updated(image=image), tokenizer)
    save_model(model, tmp_path / "model", {"name": "scenes"})
    (tmp_path / "alone").mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(tmp_path / "model" / name, tmp_path / "alone")
    for index in range(4):
        save_model(model, tmp_path / str(index), {"name": "scenes"})
        again = (tmp_path / str(index) / "model.safetensors").read_bytes()
        assert again == (tmp_path / "model" / "model.safetensors").read_bytes()
    weights = read_groupvit(tmp_path / "alone" / "model.safetensors")
    assert weights.config == model.config
    assert weights.protocol == {"name": "scenes"}
    assert weights.tokenizer is not None
    assert load_model(tmp_path / "alone" / "model.safetensors").config == model.config


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["visual.class_embedding"], "it looks like CLIP, which has no grouping blocks"),
        (["vision_model.embeddings.class_embedding"], "it looks like CLIP"),
        (["cls_token", "pos_embed"], "take --set initialise.weights=vit"),
        (["conv1.weight", "bn1.weight"], "its tensors are called conv1.weight, bn1.weight"),
    ],
)
def test_other_models(tmp_path: Path, names: list[str], message: str) -> None:
    torch.save({name: torch.zeros(2) for name in names}, tmp_path / "other.pth")
    with pytest.raises(MixreorgError, match=message):
        read_groupvit(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("img_encoder.layers.1.group_token", None, r"lacks image_encoder\.stages\.1\.group_tokens"),
        ("text_encoder.token_embedding.weight", None, r"lacks text_encoder\.token_embedding\.weight"),
        ("img_encoder.pos_embed", torch.zeros(1, 15, 32), "15 positions, which make no square"),
        ("img_encoder.pos_embed", torch.zeros(32), "damaged or not a GroupViT"),
        ("text_encoder.token_embedding.weight", torch.zeros(2, 32), "damaged or not a GroupViT"),
        ("text_encoder.token_embedding.weight", torch.zeros(600, 0), r"token_embedding.* \(600, 0\) and holds nothing"),
        ("img_encoder.pos_embed", torch.zeros(1, 16, 0), r"\.position_embedding has shape \(1, 16, 0\)"),
        ("img_encoder.layers.0.blocks.100000000.x", torch.zeros(1), "has a block 100000000, but 4 in all"),
        ("text_encoder.transformer.resblocks.007.x", torch.zeros(1), "has a block 007, but 3 in all"),
        (f"img_encoder.layers.0.blocks.{'9' * 5000}.x", torch.zeros(1), "has a block 99999999999999999999, but 4"),
    ],
)
def test_incomplete_and_impossible_states(
    tiny_model: DualEncoder, original_state: Convert, tmp_path: Path, name: str, change: Tensor | None, message: str
) -> None:
    state = original_state(tiny_model)
    state.pop(name, None)
    if change is not None:
        state[name] = change
    torch.save({"model": state}, tmp_path / "groupvit.pth")
    with pytest.raises(MixreorgError, match=message):
        read_groupvit(tmp_path / "groupvit.pth", tiny_model.config)


def test_their_projections_come_in_threes(their_folder: Path, theirs: GroupViTModel) -> None:
    state = theirs.state_dict()
    del state["vision_model.encoder.stages.0.layers.0.self_attn.k_proj.weight"]
    save_file(state, their_folder / "model.safetensors")
    with pytest.raises(MixreorgError, match=r"not a whole GroupViT: .*k_proj\.weight"):
        read_groupvit(their_folder)


@pytest.mark.parametrize("changes", [{"k": (16, torch.float32), "v": (48, torch.float32)}, {"k": (32, torch.int64)}])
def test_their_projections_are_alike(
    their_folder: Path, theirs: GroupViTModel, changes: dict[str, tuple[int, torch.dtype]]
) -> None:
    """Joined, these would have the right shape and the right type."""
    state = theirs.state_dict()
    for part, (rows, dtype) in changes.items():
        name = f"vision_model.encoder.stages.0.layers.0.self_attn.{part}_proj.weight"
        state[name] = torch.zeros(rows, 32, dtype=dtype)
    save_file(state, their_folder / "model.safetensors")
    with pytest.raises(MixreorgError, match=r"damaged .*blocks\.0\.attention\.k_proj\.weight holds torch\.") as caught:
        read_groupvit(their_folder)
    assert "q_proj.weight torch.float32 of shape (32, 32); the two must be alike" in str(caught.value)
