import argparse
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mixreorg.errors import MixreorgError
from mixreorg.interop.checkpoint_files import find_weights, read_state


class Payload:
    """Makes a file of its own name when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def check(path: Path) -> None:
    state = read_state(path)
    assert state.keys() == weights().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}}},
        lambda state: {"student": {}, "teacher": {f"module.backbone.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
    ],
    ids=["bare", "model", "teacher", "state_dict"],
)
def test_what_surrounds_the_weights_is_taken_off(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(weights()), tmp_path / "checkpoint.pth")
    check(tmp_path / "checkpoint.pth")


def test_safetensors_and_the_old_format_of_torch(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "weights.safetensors")
    check(tmp_path / "weights.safetensors")
    torch.save(weights(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    check(tmp_path / "old.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_does_not_run(tmp_path: Path, zipped: bool) -> None:
    witness, path = tmp_path / "witness", tmp_path / "checkpoint.pth"
    torch.save({"model": weights(), "config": Payload(witness)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(MixreorgError, match="could run code"):
        read_state(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists(), "the file was harmless, so nothing was proved"


class ForeignNode:
    """One of its values."""


class ForeignConfig(dict[str, Any]):
    """As a configuration library keeps its values."""


def foreign_checkpoint(path: Path, module: str) -> None:
    """A training checkpoint whose configuration is an object of a module that is not there when it is read."""
    name = ForeignConfig.__module__
    ForeignConfig.__module__ = ForeignNode.__module__ = module
    sys.modules[module] = sys.modules[__name__]
    try:
        config = ForeignConfig(heads=2)
        config.frozen, config.node = True, ForeignNode()
        torch.save({"model": weights(), "config": config, "args": argparse.Namespace(batch=8)}, path)
    finally:
        ForeignConfig.__module__ = ForeignNode.__module__ = name
        del sys.modules[module]


def test_objects_of_other_packages_are_passed_over(tmp_path: Path) -> None:
    foreign_checkpoint(tmp_path / "checkpoint.pth", "nobody_has_this")
    allowed = set(torch.serialization.get_safe_globals())
    with pytest.raises(ModuleNotFoundError):
        torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    check(tmp_path / "checkpoint.pth")
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize("module", ["subprocess", "builtins", "torch.hub"])
def test_what_python_or_torch_can_do_is_not_passed_over(tmp_path: Path, module: str) -> None:
    """Not even by the name alone: nobody's configuration is called so."""
    path = tmp_path / "checkpoint.pth"
    foreign_checkpoint(path, "nobody_has_this")
    name = "nobody_has_this"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "new.pth", "w") as new:
        for entry in old.namelist():
            data = old.read(entry).replace(f"{name}\n".encode(), f"{module}\n".encode())
            new.writestr(entry, data)
    with pytest.raises(MixreorgError, match=rf"a pickled (builtins\.)?({module}\.)?ForeignConfig"):
        read_state(tmp_path / "new.pth")


@pytest.mark.parametrize("folder", ["plain", "it's", '"$(touch witness)"'])
def test_the_suggested_command_makes_a_readable_file(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "checkpoint.pth"
    path.parent.mkdir()
    content = {"teacher": weights(), "args": argparse.Namespace(arch="vit_small")}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(MixreorgError, match=r"a pickled argparse\.Namespace") as caught:
        read_state(path)
    command = str(caught.value).splitlines()[1].strip().removeprefix("python")
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True, timeout=60, cwd=tmp_path)
    check(path.with_name("checkpoint.weights.pth"))
    assert not (tmp_path / "witness").exists(), "the shell ran a part of the path"


def test_values_alone_come_out_of_a_tensor(tmp_path: Path) -> None:
    """A file may put attributes on a tensor, in place of its methods as well."""
    weight = torch.nn.Parameter(weights()["a.weight"])
    weight.reshape = weight.detach = torch.Size  # type: ignore[assignment, method-assign]
    torch.save({"model": {**weights(), "a.weight": weight}}, tmp_path / "checkpoint.pth")
    assert "reshape" in vars(torch.load(tmp_path / "checkpoint.pth", weights_only=True)["model"]["a.weight"])
    check(tmp_path / "checkpoint.pth")
    assert not any(vars(tensor) for tensor in read_state(tmp_path / "checkpoint.pth").values())


@pytest.mark.parametrize("change", [lambda tensor: tensor.to("meta"), torch.Tensor.to_sparse])
def test_tensors_of_other_kinds_are_named(tmp_path: Path, change: Any) -> None:
    state = weights()
    torch.save({**state, "a.bias": change(state["a.bias"])}, tmp_path / "checkpoint.pth")
    with pytest.raises(MixreorgError, match=r"a\.bias is quantised, sparse, nested or without values"):
        read_state(tmp_path / "checkpoint.pth")


def test_a_program_is_not_run(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(torch.nn.Identity(), torch.zeros(1)).save(tmp_path / "ViT-B-32.pt")
    with pytest.raises(MixreorgError, match=r"ViT-B-32\.pt is a program \(TorchScript\)"):
        read_state(tmp_path / "ViT-B-32.pt")


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "half", "page", "end"])
def test_damaged_files(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(weights(), path)
    else:
        torch.save(weights(), path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "half": content[: len(content) // 2],
            "page": b"<html>404 not found</html>" * 20,
            "end": content[:-9],
        }[damage]
    )
    with pytest.raises(MixreorgError, match=rf"{re.escape(str(path))} is damaged"):
        read_state(path)


@pytest.mark.parametrize("content", [[1, 2], {"model": {"epoch": 3}}, {}, torch.zeros(2)])
def test_files_without_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(MixreorgError, match="holds no weights: expected tensors by name"):
        read_state(tmp_path / "other.pth")


def test_a_checkpoint_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = content
    torch.save(content, tmp_path / "circle.pth")
    with pytest.raises(MixreorgError, match="holds no weights"):
        read_state(tmp_path / "circle.pth")


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(MixreorgError, match="there is no checkpoint at"):
        find_weights(tmp_path / "nowhere")
    with pytest.raises(MixreorgError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        find_weights(tmp_path)
    for name in ("pytorch_model.bin.index.json", "model.safetensors.index.json"):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / name).touch()
        with pytest.raises(MixreorgError, match=r"holds weights in several files.* save it again with save_pretrained"):
            find_weights(tmp_path / "parts")
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).touch()
        assert find_weights(tmp_path) == tmp_path / name
    assert find_weights(tmp_path / "pytorch_model.bin") == tmp_path / "pytorch_model.bin"
