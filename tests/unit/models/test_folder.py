import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import check_finite, load_model_folder, resolve_model_folder, save_model


@pytest.fixture
def folder(tiny_model: DualEncoder, tmp_path: Path) -> Path:
    save_model(tiny_model, tmp_path / "model", {"name": "x"})
    return tmp_path / "model"


def test_round_trip_keeps_every_bit(tiny_model: DualEncoder, folder: Path) -> None:
    loaded = load_model_folder(folder)
    assert loaded.config == tiny_model.config
    assert loaded.inference_protocol == {"name": "x"}
    assert loaded.tokenizer is not None
    assert tiny_model.tokenizer is not None
    assert loaded.tokenizer.encode_ids(["a dog"]) == tiny_model.tokenizer.encode_ids(["a dog"])
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert not loaded.training


def test_loading_draws_no_random_numbers(folder: Path) -> None:
    before = torch.get_rng_state()
    load_model_folder(folder)
    assert torch.equal(torch.get_rng_state(), before)
    torch.nn.Linear(2, 2)
    assert not torch.equal(torch.get_rng_state(), before), "models that are made afterwards are initialised"


def test_a_run_folder_stands_for_its_best_or_newest_checkpoint(tiny_model: DualEncoder, tmp_path: Path) -> None:
    for step in (1, 2):
        with torch.no_grad():
            tiny_model.logit_scale.fill_(float(step))
        save_model(tiny_model, tmp_path / "checkpoints" / f"step-{step}")
    (tmp_path / "state.json").write_text(json.dumps({"latest": "step-2", "best": {"checkpoint": "step-1"}}))
    assert load_model_folder(tmp_path).logit_scale.item() == 1
    (tmp_path / "state.json").write_text(json.dumps({"latest": "step-2", "best": None}))
    assert load_model_folder(tmp_path).logit_scale.item() == 2
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(MixreorgError, match="without a usable checkpoint"):
        load_model_folder(tmp_path)


def change_tensor(folder: Path, **changes: torch.Tensor | None) -> None:
    state = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    save_file(state, folder / "model.safetensors")


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    change_tensor(folder, logit_scale=None, extra=torch.zeros(2))
    with pytest.raises(MixreorgError, match="missing logit_scale; unexpected extra"):
        load_model_folder(folder)
    change_tensor(folder, logit_scale=torch.zeros(3), extra=None)
    with pytest.raises(MixreorgError, match=r"logit_scale has shape \(3,\), expected \(1,\)"):
        load_model_folder(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    norm = load_file(folder / "model.safetensors")["image_encoder.norm.weight"]
    norm[3] = value
    change_tensor(folder, **{"image_encoder.norm.weight": norm})
    with pytest.raises(MixreorgError, match=r"is damaged: image_encoder\.norm\.weight holds values that are NaN"):
        load_model_folder(folder)


def test_large_weights_are_numbers(folder: Path) -> None:
    norm = load_file(folder / "model.safetensors")["image_encoder.norm.weight"]
    norm[:] = torch.finfo(torch.float32).max
    change_tensor(folder, **{"image_encoder.norm.weight": norm})
    assert load_model_folder(folder).image_encoder.norm.weight.isfinite().all()


def test_weights_of_one_byte_can_be_checked() -> None:
    weights = torch.ones(4).to(torch.float8_e4m3fn)
    check_finite({"weight": weights}, "file")
    weights[2] = float("nan")
    with pytest.raises(MixreorgError, match="file is damaged: weight holds values"):
        check_finite({"weight": weights}, "file")


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MixreorgError, match="no model at"):
        load_model_folder(tmp_path / "none")
    with pytest.raises(MixreorgError, match="holds no model"):
        load_model_folder(tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(MixreorgError, match="damaged or not a safetensors file"):
        load_model_folder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(MixreorgError, match="missing; the folder is not complete"):
        load_model_folder(folder)
    (folder / "config.json").write_text('{"architectures": ["CLIPModel"]}')
    with pytest.raises(MixreorgError, match="not the configuration of a mixreorg model"):
        load_model_folder(folder)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    from mixreorg.text.tokenizer import Tokenizer

    Tokenizer.train(["a b"], vocab_size=514, context_length=8).save(folder / "tokenizer.json")
    with pytest.raises(MixreorgError, match="restore the tokenizer it was trained with"):
        load_model_folder(folder)


@pytest.mark.parametrize("state", [None, "{", '{"latest": "step-00000009", "best": null}'])
def test_a_run_whose_state_is_lost_stands_for_its_newest_checkpoint(
    tiny_model: DualEncoder, tmp_path: Path, state: str | None
) -> None:
    for name in ("step-00000002", "step-00000010", "step-00000011.damaged", ".step-00000012.partial"):
        save_model(tiny_model, tmp_path / "checkpoints" / name)
    if state is not None:
        (tmp_path / "state.json").write_text(state)
    assert resolve_model_folder(tmp_path) == tmp_path / "checkpoints" / "step-00000010"
