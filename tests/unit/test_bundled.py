"""Models that come with the package: their names everywhere, how one is made, and the real one where it is there."""

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hatchling.builders.wheel import WheelBuilder
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import mixreorg.bundled
from eval_kit import write_voc
from mixreorg import Segmenter, load_model
from mixreorg.bundled import BUNDLED, MAX_BYTES, bundled_folder, bundled_name
from mixreorg.cli.main import app, main
from mixreorg.errors import MixreorgError
from mixreorg.interop.convert import convert_model
from mixreorg.interop.model_card import CardFacts
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
NAME = BUNDLED[0]
PROTOCOL = groupvit_protocol(32).updated(whole=True).to_dict()
needs_the_model = pytest.mark.skipif(
    not (Path(mixreorg.bundled.__file__).parent / NAME / "config.json").is_file(),
    reason=f"the weights of {NAME} are not in this checkout",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where bundled models lie; there is none."""
    monkeypatch.setattr("mixreorg.bundled._ROOT", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bundled" / NAME


@pytest.fixture
def bundled(place: Path, tiny_model: DualEncoder) -> Path:
    """A tiny model in the place of the real one."""
    save_model(tiny_model, place, PROTOCOL)
    return place


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_takes_the_name(
    bundled: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("segment", photo, "--model", NAME, "--classes", "dog, cat", "--out", tmp_path / "masks")
    assert (tmp_path / "masks" / "photo_labels.png").is_file()
    voc = write_voc(tmp_path / "voc")
    run("eval", NAME, "--benchmark", "voc_folder", "--data", voc, "--protocol", "model", "--background", 0.5)
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert report["model"]["name"] == NAME
    run("convert", NAME, tmp_path / "hf", "--to", "hf")
    assert load_model(tmp_path / "hf").config == load_model(NAME).config
    given: list[DualEncoder] = []
    monkeypatch.setattr("mixreorg.export.exporter.export_model", lambda model, *_, **__: given.append(model) or [])
    run("export", NAME, tmp_path / "exported")
    assert given[0].config == load_model(NAME).config


def test_a_path_comes_first(bundled: Path, tiny_model: DualEncoder, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny_model.logit_scale.fill_(1.5)
    assert load_model(NAME).logit_scale.item() != 1.5
    save_model(tiny_model, tmp_path / NAME)
    assert load_model(NAME).logit_scale.item() == 1.5
    with pytest.raises(MixreorgError, match="no model at"):
        load_model(Path("other") / NAME)


def test_its_tokenizer_has_its_name(bundled: Path, tokenizer: Tokenizer) -> None:
    assert Tokenizer.named(NAME).to_dict() == tokenizer.to_dict()
    assert bundled_name(bundled) == NAME
    assert bundled_name(bundled.parent / "other") is None
    assert bundled_name(Path("elsewhere") / NAME) is None


def test_an_installation_without_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"the model {NAME} is not part of this installation: .* is missing; "
    for ask in (load_model, Tokenizer.named, bundled_folder):
        with pytest.raises(MixreorgError, match=message):
            ask(NAME)
    monkeypatch.setattr("sys.argv", ["mixreorg", "convert", NAME, "out", "--to", "hf"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("precision", "bits"), [("fp16", 11), ("bf16", 8)])
def test_half_the_space(tiny_model: DualEncoder, photo: Path, tmp_path: Path, precision: str, bits: int) -> None:
    save_model(tiny_model, tmp_path / "model", PROTOCOL)
    run("convert", tmp_path / "model", tmp_path / "half", "--to", "native", "--precision", precision)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "model")]
    assert sizes[0] < 0.65 * sizes[1]
    stored = load_file(tmp_path / "half" / "model.safetensors")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {dtype}
    again = load_model(tmp_path / "half")
    for name, tensor in tiny_model.state_dict().items():
        loaded = again.state_dict()[name]
        assert loaded.dtype == tensor.dtype
        if tensor.is_floating_point():
            # Rounding to the nearest is off by half a unit of the last bit at most, but for the tiniest numbers.
            torch.testing.assert_close(loaded, tensor, rtol=2.0**-bits, atol=2.0**-24)
        else:
            assert torch.equal(loaded, tensor)
    models = (load_model(tmp_path / "model"), again)
    maps = [Segmenter(model)(photo, ["dog", "cat", "car"]).label_map for model in models]
    assert (maps[0] != maps[1]).mean() < (0.01 if precision == "fp16" else 0.1)


def test_values_that_fp16_does_not_have(tiny_model: DualEncoder, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny_model.image_encoder.norm.weight[0] = 1e6
    save_model(tiny_model, tmp_path / "model")
    with pytest.raises(MixreorgError, match=r"image_encoder\.norm\.weight holds values beyond the range of fp16; take"):
        convert_model(tmp_path / "model", tmp_path / "half", "native", precision="fp16")
    assert not (tmp_path / "half").exists()
    convert_model(tmp_path / "model", tmp_path / "half", "native", precision="bf16")


def test_a_card_with_credit_and_limits(tiny_model: DualEncoder, tmp_path: Path) -> None:
    save_model(tiny_model, tmp_path / "model")
    facts = CardFacts(license="cc-by-sa-4.0", credit="Pictures by somebody.", limits="Knows dogs alone.")
    card = (convert_model(tmp_path / "model", tmp_path / "out", "native", facts=facts) / "README.md").read_text()
    assert "## Licence\n\ncc-by-sa-4.0\n\nPictures by somebody.\n" in card
    assert card.endswith("Biases of the captions are in the model. Knows dogs alone.\n")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_bundled_model", ROOT / "docs" / "make_bundled_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    write_voc(tmp_path / "voc", "val", seed=1)
    return write_voc(tmp_path / "voc", "test", seed=2)


def test_a_model_is_made_with_its_results(
    script: ModuleType, tiny_model: DualEncoder, voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tiny_model, tmp_path / "run", PROTOCOL)
    said = script.make(str(tmp_path / "run"), voc, NAME, tmp_path / "made")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "picture.png",
        "tokenizer.json",
    ]
    card = (tmp_path / "made" / "README.md").read_text()
    for expected in (
        "license: cc-by-sa-4.0",
        f'load_model("{NAME}")',
        "OpenMoji",
        "Names in its captions: dog, cat, car.",
        "Measured on the 5 scenes of a test split",
        "| mIoU without background |",
        "| mIoU with background |",
        "drawn scenes alone",
    ):
        assert expected in card, expected
    assert str(tmp_path) not in card
    assert "Rounding the weights from float32 to fp16 changed" in said
    monkeypatch.setattr(script, "MAX_BYTES", 1000)
    with pytest.raises(MixreorgError, match=r"a folder of 0\.\d MB, and a bundled model has at most 0; train"):
        script.make(str(tmp_path / "run"), voc, NAME, tmp_path / "large")
    assert not (tmp_path / "large").exists()


@pytest.fixture
def source_tree(tmp_path: Path) -> Iterator[Path]:
    """What a wheel is built from."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", ".gitignore"):
        shutil.copy(ROOT / name, tree / name)
    return tree


def test_wheels_hold_bundled_models(source_tree: Path, tiny_model: DualEncoder) -> None:
    folder = source_tree / "src" / "mixreorg" / "bundled" / "another"
    save_model(tiny_model, folder)
    (folder / "README.md").write_text("card")
    (wheel,) = WheelBuilder(str(source_tree)).build(directory=str(source_tree / "dist"), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    for path in folder.iterdir():
        assert f"mixreorg/bundled/another/{path.name}" in names


@needs_the_model
def test_the_real_model_is_small_and_credits_its_pictures() -> None:
    folder = bundled_folder(NAME)
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= MAX_BYTES
    card = (folder / "README.md").read_text(encoding="utf-8")
    for expected in ("license: cc-by-sa-4.0", "OpenMoji", "CC BY-SA 4.0", f'load_model("{NAME}")', "## Limits"):
        assert expected in card


@needs_the_model
def test_the_real_model_segments(photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mixreorg.interop.hub._fetch", lambda *_: pytest.fail("asked the hub"))
    model = load_model(NAME)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.inference_protocol is not None
    assert Segmenter(model)(photo, ["dog", "cat"]).label_map.shape == (40, 60)
