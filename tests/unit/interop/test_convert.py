"""Conversions in all directions: the same bits, and folders that ``transformers`` loads."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoProcessor, GroupViTModel

from mixreorg import Segmenter, convert_model, load_model
from mixreorg.errors import MixreorgError
from mixreorg.files import write_json
from mixreorg.interop.convert import Half, Target
from mixreorg.interop.groupvit_checkpoint import read_groupvit
from mixreorg.interop.model_card import CardFacts, license_of
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import save_model
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.segment.request import Threshold
from mixreorg.segment.results import Segmentation
from mixreorg.text.tokenizer import Tokenizer

LAYOUTS: tuple[Target, ...] = ("hf", "native", "original")
PROTOCOL = groupvit_protocol(32).updated(name="mine", background_threshold=0.5).to_dict()


@pytest.fixture
def folder(tiny_config: DualEncoderConfig, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """A native model in which nothing is at a default that a layout could fall back to."""
    torch.manual_seed(7)
    image = tiny_config.image.updated(drop_path=0.3, init_std=0.5, mlp_ratio=2.0)
    text = tiny_config.text.updated(activation="gelu")
    model = DualEncoder(tiny_config.updated(image=image, text=text), tokenizer)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(torch.rand(tensor.shape) if tensor.is_floating_point() else 7)
    save_model(model, tmp_path / "model", PROTOCOL)
    return tmp_path / "model"


@pytest.fixture
def plain_folder(folder: Path, tiny_config: DualEncoderConfig) -> Path:
    """The same with an activation that the original code knows."""
    content = json.loads((folder / "config.json").read_text())
    content["model"]["text"]["activation"] = "quick_gelu"
    write_json(folder / "config.json", content)
    return folder


def named(folder: Path, layout: Target) -> Path:
    return folder / (f"{layout}.pth" if layout == "original" else layout)


def assert_same(first: Path, second: Path) -> None:
    a, b = read_groupvit(first), read_groupvit(second)
    assert (a.config, a.protocol, a.calibration) == (b.config, b.protocol, b.calibration)
    assert a.tokenizer is not None
    assert b.tokenizer is not None
    assert a.tokenizer.to_dict() == b.tokenizer.to_dict()
    assert a.state.keys() == b.state.keys()
    for name, tensor in a.state.items():
        assert tensor.dtype == b.state[name].dtype
        assert torch.equal(tensor, b.state[name]), name


def test_a_calibration_goes_with_the_very_weights_it_was_made_for(plain_folder: Path, tmp_path: Path) -> None:
    write_json(plain_folder / "calibration.json", {"any": "values"})
    hf = convert_model(plain_folder, tmp_path / "hf", "hf")
    assert load_model(hf).inference_calibration == {"any": "values"}
    write_json(hf / "calibration.json", {"newer": "values"})
    assert load_model(hf).inference_calibration == {"newer": "values"}
    rounded = convert_model(plain_folder, tmp_path / "half", "native", precision="bf16")
    assert load_model(rounded).inference_calibration is None


@pytest.mark.parametrize("path", list(itertools.permutations(LAYOUTS)), ids="-".join)
def test_round_trips_keep_everything(plain_folder: Path, tmp_path: Path, path: tuple[Target, ...]) -> None:
    source = plain_folder
    write_json(plain_folder / "calibration.json", {"anything": "that a calibration may hold"})
    for layout in (*path, path[0]):
        out = named(tmp_path / f"after-{source.stem}", layout)
        assert convert_model(source, out, layout) == out
        source = out
        assert_same(plain_folder, source)
    assert not list(tmp_path.rglob(".*"))


def test_the_second_logit_scale_and_the_types_of_tensors_survive(
    tiny_model: DualEncoder,
    tokenizer: Tokenizer,
    original_state: Callable[[DualEncoder], dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    state = original_state(tiny_model)
    state["multi_label_logit_scale"] = torch.tensor(2.345678)
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    torch.save({"model": half}, tmp_path / "groupvit.pth")
    tokenizer.save(tmp_path / "tokenizer.json")
    convert_model(tmp_path / "groupvit.pth", tmp_path / "hf", "hf")
    convert_model(tmp_path / "hf", tmp_path / "native", "native")
    convert_model(tmp_path / "native", tmp_path / "again.pth", "original")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert again.keys() == half.keys()
    for name, tensor in half.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(again[name], tensor), name
    for name in ("hf", "native", "again.pth"):
        model = load_model(tmp_path / name)
        assert model.multi_label_logit_scale is not None
        assert model.multi_label_logit_scale.dtype == torch.float32
        assert model.multi_label_logit_scale.item() == half["multi_label_logit_scale"].item()


@pytest.mark.parametrize("name", ["groupvit_hf_small", "groupvit_official_small.pth"])
def test_real_files_come_back_bit_for_bit(shared: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    copy = shutil.copytree if (shared / "parity" / name).is_dir() else shutil.copy
    copy(shared / "parity" / name, source)
    tokenizer = Tokenizer(Tokenizer.clip().merges[: 4096 - 514])
    if source.is_dir():
        from mixreorg.interop.hf_tokenizer import write_hf_tokenizer

        write_hf_tokenizer(tokenizer, source)
    else:
        tokenizer.save(tmp_path / "tokenizer.json")
    convert_model(source, tmp_path / "native", "native")
    convert_model(tmp_path / "native", tmp_path / "hf", "hf")
    convert_model(tmp_path / "native", tmp_path / "original.pth", "original")
    theirs = load_file(shared / "parity" / "groupvit_hf_small" / "model.safetensors")
    ours = load_file(tmp_path / "hf" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())
    original = torch.load(tmp_path / "original.pth", weights_only=True)["model"]
    file = shared / "parity" / "groupvit_official_small_modelonly.pth"
    expected = torch.load(file, weights_only=True)["model"]
    assert expected.keys() - original.keys() <= {"multi_label_logit_scale"}
    assert original.keys() <= expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in original.items())
    if not source.is_dir():
        assert original.keys() == expected.keys()


@pytest.mark.parametrize("precision", [None, "fp16", "bf16"])
@torch.no_grad()
def test_transformers_loads_the_folder(folder: Path, tmp_path: Path, precision: Half | None) -> None:
    out = convert_model(folder, tmp_path / "hf", "hf", precision=precision)
    theirs, info = GroupViTModel.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()), info
    assert isinstance(AutoModel.from_pretrained(out), GroupViTModel)
    ours = load_model(out)
    assert ours.tokenizer is not None
    processor = AutoProcessor.from_pretrained(out)
    texts = ["a photo of a dog.", "a cat"]
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    inputs = processor(text=texts, images=photo, padding=True, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)
    expected = theirs.eval()(**inputs)
    torch.testing.assert_close(
        ours.encode_image(inputs["pixel_values"]).image_embedding, expected.image_embeds, atol=1e-5, rtol=0
    )
    ids = ours.tokenizer.encode(texts)
    torch.testing.assert_close(ours.encode_text(ids), expected.text_embeds, atol=1e-5, rtol=0)


def test_a_folder_that_transformers_saved_again_is_read(folder: Path, tmp_path: Path) -> None:
    out = convert_model(folder, tmp_path / "hf", "hf")
    GroupViTModel.from_pretrained(out).save_pretrained(tmp_path / "again")
    AutoProcessor.from_pretrained(out).save_pretrained(tmp_path / "again")
    first, again = load_model(folder), load_model(tmp_path / "again")
    assert again.inference_protocol is None
    assert again.config.image.updated(drop_path=0.3, init_std=0.5) == first.config.image
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in first.state_dict().items())


def test_what_a_layout_cannot_express_is_listed(
    tiny_config: DualEncoderConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    image = tiny_config.image.updated(
        stem="conv",
        assignment="soft",
        assignment_logits="cosine",
        centre_keys=True,
        pre_assign_attention=False,
        num_local_blocks=1,
    )
    text = tiny_config.text.updated(activation="gelu")
    save_model(DualEncoder(tiny_config.updated(image=image, text=text, projector_hidden=0), tokenizer), tmp_path / "m")
    names = ("stem", "assignment", "assignment_logits", "centre_keys", "pre_assign_attention", "num_local_blocks")
    for layout in ("hf", "original"):
        with pytest.raises(
            MixreorgError, match=f"for {'transformers' if layout == 'hf' else 'the original'}"
        ) as caught:
            convert_model(tmp_path / "m", named(tmp_path / "out", layout), layout)
        reasons = str(caught.value).split("does not have: ")[1].split(". Only")[0].split("; ")
        assert len(reasons) == (7 if layout == "hf" else 8)
        assert all(any(f"model.image.{name}=" in reason for reason in reasons) for name in names)
        assert any("model.projector_hidden=0" in reason for reason in reasons)
    assert not (tmp_path / "out").exists()
    convert_model(tmp_path / "m", tmp_path / "copy", "native")
    assert_same(tmp_path / "m", tmp_path / "copy")


def test_transformers_takes_stage_one_to_have_as_many_segments_as_group_tokens(
    tiny_config: DualEncoderConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    image = tiny_config.image.updated(num_group_tokens=(8, 3))
    text = tiny_config.text.updated(activation="quick_gelu")
    save_model(DualEncoder(tiny_config.updated(image=image, text=text), tokenizer), tmp_path / "m")
    with pytest.raises(MixreorgError, match="does not have: 8 group tokens for 6 segments in stage one") as caught:
        convert_model(tmp_path / "m", tmp_path / "out", "hf")
    assert ";" not in str(caught.value).split("does not have: ")[1].split(". Only")[0]
    assert not (tmp_path / "out").exists()
    convert_model(tmp_path / "m", tmp_path / "out.pth", "original")
    assert_same(tmp_path / "m", tmp_path / "out.pth")


def test_destinations_in_use(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MixreorgError, match="is a file; name a folder"):
        convert_model(folder, tmp_path / "file", "hf")
    convert_model(folder, tmp_path / "out", "native")
    with pytest.raises(MixreorgError, match="is not empty; name another folder, or add --overwrite"):
        convert_model(folder, tmp_path / "out", "hf")
    convert_model(folder, tmp_path / "out", "hf", overwrite=True)
    assert (tmp_path / "out" / "merges.txt").is_file()
    assert_same(folder, tmp_path / "out")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(MixreorgError, match=r"was not written by this command \(it holds checkpoints\)"):
        convert_model(folder, tmp_path / "run", "hf", overwrite=True)
    (tmp_path / "out" / ".git").mkdir()
    with pytest.raises(MixreorgError, match=r"was not written by this command \(it holds \.git\)"):
        convert_model(folder, tmp_path / "out", "hf", overwrite=True)
    assert (tmp_path / "out" / ".git").is_dir()
    with pytest.raises(MixreorgError, match=r"name a file that ends in \.pth"):
        convert_model(folder, tmp_path / "folder", "original")
    with pytest.raises(MixreorgError, match="there is no layout 'onnx'"):
        convert_model(folder, tmp_path / "folder", "onnx")  # type: ignore[arg-type]


def test_the_folder_one_is_in_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mixreorg.interop.convert.read_groupvit", lambda _: pytest.fail("was read"))
    with pytest.raises(MixreorgError, match="the folder that you are in"):
        convert_model("scenes-tiny", ".", "native")


def test_an_original_file_is_not_overwritten_unasked(plain_folder: Path, tmp_path: Path) -> None:
    convert_model(plain_folder, tmp_path / "out.pth", "original")
    with pytest.raises(MixreorgError, match="exists; name another file, or add --overwrite"):
        convert_model(plain_folder, tmp_path / "out.pth", "original")
    convert_model(plain_folder, tmp_path / "out.pth", "original", overwrite=True)
    with pytest.raises(MixreorgError, match="has no model card"):
        convert_model(plain_folder, tmp_path / "other.pth", "original", facts=CardFacts(license="mit"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk_leaves_nothing_behind(
    plain_folder: Path, tmp_path: Path, layout: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    before = sorted(tmp_path.rglob("*"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    for place in ("mixreorg.interop.convert.save_tensors", "mixreorg.models.folder.save_tensors"):
        monkeypatch.setattr(place, full)
    monkeypatch.setattr("torch.save", lambda content, path: torch.serialization.save(content, "/dev/full"))
    with pytest.raises(MixreorgError, match="cannot write"):
        convert_model(plain_folder, named(tmp_path / "out", layout), layout)
    assert sorted(tmp_path.rglob("*")) == before


def test_incomplete_weights_are_named(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["image_encoder.norm.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(MixreorgError, match=r"missing image_encoder\.norm\.weight"):
        convert_model(folder, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "note",
    [
        *("{", "[]", '{"multi_label_logit_scale": "x"}', '{"multi_label_logit_scale": "0x1p5000"}'),
        *('{"model": {"colour": 3}}', "PROTOCOL", "CONTEXT"),
    ],
)
def test_damaged_notes(folder: Path, tmp_path: Path, note: str) -> None:
    state = load_file(folder / "model.safetensors")
    model = json.dumps(json.loads((folder / "config.json").read_text())["model"])
    context = '{"format": "mixreorg-tokenizer-1", "merges": [], "context_length": 1e999}'
    note = note.replace("PROTOCOL", f'{{"model": {model}, "protocol": "x"}}')
    note = note.replace("CONTEXT", f'{{"model": {model}, "tokenizer": {context}}}')
    save_file(state, tmp_path / "alone.safetensors", metadata={"mixreorg": note})
    with pytest.raises(MixreorgError, match=r"alone\.safetensors"):
        convert_model(tmp_path / "alone.safetensors", tmp_path / "out", "native")


def test_the_model_card(folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.effect_noise((60, 40), 80).convert("RGB").save(photo)
    run = {
        "recipe": "groupvit_vits_gcc_yfcc",
        "seed": 3,
        "step": 1200,
        "data": {"num_pairs": 12345},
        "metrics": {"step": 1200.0, "foreground_miou": 12.34, "background_threshold": 0.5},
        "config": {"evaluation": {"split": "val", "max_images": 300}, "data": {"train": ["/home/me/secret"]}},
    }
    write_json(folder / "card.json", run)
    facts = CardFacts(license="apache-2.0", data="Captioned scenes.", photo=photo, classes="dog, cat")
    out = convert_model(folder, tmp_path / "hf", "hf", facts=facts)
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: transformers\n")
    for expected in (
        "![Classes of a photo](picture.png)",
        'AutoModel.from_pretrained("hf")',
        "Captioned scenes.\nRecipe `groupvit_vits_gcc_yfcc`, 12,345 caption pairs, 1,200 steps, seed 3.",
        "Split `val`, at most 300 images, percent; one seed.",
        "| foreground_miou | 12.3 |",
        "Protocol `mine`: short side 64 px, window 64, stride 32, background threshold 0.5, templates a photo of a {}.",
        "## Licence\n\napache-2.0",
    ):
        assert expected in card, expected
    assert "secret" not in card
    assert "| step |" not in card
    with Image.open(out / "picture.png") as picture:
        expected_picture = Segmenter(load_model(folder))(photo, "dog, cat").overlay(Image.open(photo))
        assert picture.tobytes() == expected_picture.tobytes()
    # The licence of the weights stays with them.
    again = (convert_model(out, tmp_path / "native", "native") / "README.md").read_text()
    assert again.startswith("---\nlicense: apache-2.0\nlibrary_name: mixreorg\n")
    assert "AutoModel" not in again


@pytest.mark.parametrize(("background", "caption"), [(None, "*dog, cat*"), ("auto", "*dog, cat; background: auto*")])
def test_a_card_says_which_background_its_picture_has(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: Threshold, caption: str
) -> None:
    photo, asked = tmp_path / "photo.png", []
    Image.effect_noise((60, 40), 80).convert("RGB").save(photo)

    class Watched(Segmenter):
        def __call__(self, *arguments: Any, **options: Any) -> Segmentation:
            asked.append(options.get("background"))
            return super().__call__(*arguments, **options)

    monkeypatch.setattr("mixreorg.interop.convert.Segmenter", Watched)
    facts = CardFacts(photo=photo, classes="dog, cat", background=background)
    out = convert_model(folder, tmp_path / "out", "native", facts=facts)
    assert caption in (out / "README.md").read_text()
    assert asked == [background]


@pytest.mark.parametrize("name", ["apache-2.0", "CC BY 4.0", 'Ours: "research" only, see C:\\licence # 3'])
def test_a_card_keeps_the_licence_of_the_source(folder: Path, tmp_path: Path, name: str) -> None:
    first = convert_model(folder, tmp_path / "first", "native", facts=CardFacts(license=name))
    second = (convert_model(first, tmp_path / "second", "native") / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(second.split("---\n")[1])["license"] == name
    assert f"## Licence\n\n{name}\n" in second


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("license: apache-2.0", "apache-2.0"),
        ('license: "apache-2.0"  # of the weights', "apache-2.0"),
        ("license: 'the author''s own'", "the author's own"),
        ("license:   CC BY 4.0   ", "CC BY 4.0"),
        ('license: ""', None),
        ("license:", None),
        ("license_name: mine", None),
        ("license: # none yet", None),
        ("license: [mit, apache-2.0]", None),
        ("license: null", None),
        ("license: ~", None),
        ("license: >-", None),
    ],
)
def test_the_licence_of_a_card(tmp_path: Path, line: str, name: str | None) -> None:
    (tmp_path / "README.md").write_text(f"---\ntags:\n- x\n{line}\nlibrary_name: y\n---\n\nlicense: none\n")
    assert license_of(tmp_path / "README.md") == name


def test_a_card_does_not_invent_a_licence(folder: Path, tmp_path: Path) -> None:
    card = (convert_model(folder, tmp_path / "out", "native") / "README.md").read_text()
    assert "license:" not in card
    assert "Not stated: ask the owner of the weights" in card
    assert "No evaluation is recorded with the weights." in card
    with pytest.raises(MixreorgError, match="needs a photo and class names"):
        CardFacts(classes="dog")
    with pytest.raises(MixreorgError, match="give a photo as well"):
        CardFacts(background=0.5)
