"""From a weight file of others, through ``load_model``, to what the original GroupViT code computes with it."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from parity_kit import KIT_CONFIG

from mixreorg import convert_model, load_model
from mixreorg.interop.hf_tokenizer import write_hf_tokenizer
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.class_maps import WindowScores, decode_windows
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.segment.sliding_window import merge_windows
from mixreorg.segment.window_plan import plan_windows
from mixreorg.text.tokenizer import Tokenizer

KIT = Path(__file__).parents[2].parent / "shared" / "parity"
pytestmark = pytest.mark.skipif(not KIT.is_dir(), reason="the parity kit is not there")

Arrays = dict[str, npt.NDArray[np.float32]]
THRESHOLDS = {"bg95": 0.95, "bg35": 0.35, "nobg": None}
FORMS = ["hf", "training.pth", "weights.pth", "converted/native", "converted/hf", "converted/original.pth"]


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's weights in both published layouts, with the start of CLIP's vocabulary as their tokenizer; and what
    conversions make of them."""
    folder = tmp_path_factory.mktemp("weights")
    tokenizer = Tokenizer(Tokenizer.clip().merges[: KIT_CONFIG.text.vocab_size - 514])
    shutil.copytree(KIT / "groupvit_hf_small", folder / "hf")
    write_hf_tokenizer(tokenizer, folder / "hf")
    shutil.copy(KIT / "groupvit_official_small.pth", folder / "training.pth")
    shutil.copy(KIT / "groupvit_official_small_modelonly.pth", folder / "weights.pth")
    tokenizer.save(folder / "tokenizer.json")
    convert_model(folder / "hf", folder / "converted" / "native", "native")
    convert_model(folder / "converted" / "native", folder / "converted" / "original.pth", "original")
    convert_model(folder / "converted" / "original.pth", folder / "converted" / "hf", "hf")
    return folder


@pytest.fixture(scope="module", params=FORMS)
def model(request: pytest.FixtureRequest, forms: Path) -> DualEncoder:
    # Heads are 64 wide in published models and 32 in the kit's, which its .pth files do not tell.
    return load_model(forms / request.param, unseen=KIT_CONFIG)


def read(name: str) -> Arrays:
    with np.load(KIT / name) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def segmentation() -> Arrays:
    return read("small_seg_outputs.npz")


@pytest.fixture(scope="module")
def photos() -> Arrays:
    return read("seg_inputs.npz")


def assert_close(actual: torch.Tensor, expected: npt.NDArray[np.float32]) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(expected).view_as(actual), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_embeddings_and_assignments(model: DualEncoder) -> None:
    inputs, expected = read("small_inputs.npz"), read("small_outputs.npz")
    captions = json.loads((KIT / "meta.json").read_text())["small"]["captions"]
    assert model.tokenizer is not None
    ids = model.tokenizer.encode(captions)
    assert np.array_equal(ids.numpy(), inputs["token_ids"])
    image, text = model.encode_image(torch.from_numpy(inputs["images"])), model.encode_text(ids)
    assert_close(image.image_embedding, expected["image_embed_norm"])
    assert_close(text, expected["text_embed_norm"])
    assert_close(model.similarity(image.image_embedding, text), expected["similarity"])
    for index, assignment in enumerate(image.encoding.assignments):
        assert_close(assignment.soft, expected[f"attn{index}_soft"])
        assert_close(assignment.hard, expected[f"attn{index}_hard"])


def decode(model: DualEncoder, windows: torch.Tensor, classes: torch.Tensor, threshold: float | None) -> WindowScores:
    output = model.encode_image(windows)
    return decode_windows(
        output.encoding.patch_assignment,
        output.encoding.grid,
        (windows.shape[-2], windows.shape[-1]),
        output.segment_embeddings,
        output.image_embedding,
        classes,
        torch.arange(len(classes)),
        logit_scale=float(model.scale),
        background_threshold=threshold,
    )


@torch.no_grad()
def class_embeddings(model: DualEncoder, kind: str, expected: Arrays) -> torch.Tensor:
    if kind == "mix":
        return torch.from_numpy(expected["mix_class_embedding"])
    names = json.loads((KIT / "meta.json").read_text())["small"]["seg"]["classes"]
    embeddings = model.encode_prompts([[f"a photo of a {name}."] for name in names])
    assert_close(embeddings, expected["class_text_embedding"])
    return embeddings


@pytest.mark.parametrize("kind", ["text", "mix"])
@torch.no_grad()
def test_no_pixel_of_a_zero_shot_mask_differs(
    model: DualEncoder, kind: str, photos: Arrays, segmentation: Arrays
) -> None:
    classes = class_embeddings(model, kind, segmentation)
    for photo in ("voc", "coco", "crop"):
        pixels = torch.from_numpy(photos[photo])
        for background, threshold in THRESHOLDS.items():
            scores = decode(model, pixels, classes, threshold)
            expected = segmentation[f"{photo}_{kind}_{background}_pred"]
            labels = scores.expand().argmax(dim=1).numpy()
            assert np.count_nonzero(labels != expected) == 0, (photo, background)


@torch.no_grad()
def test_no_pixel_differs_over_sliding_windows(model: DualEncoder, photos: Arrays, segmentation: Arrays) -> None:
    pixels = torch.from_numpy(photos["crop"])
    plan = plan_windows(groupvit_protocol(), 400, 300)
    windows = torch.cat([pixels[..., box.top : box.bottom, box.left : box.right] for box in plan.boxes])
    for kind in ("text", "mix"):
        expected = segmentation[f"crop_{kind}_bg35_slide_pred_orig_size"]
        scores = decode(model, windows, class_embeddings(model, kind, segmentation), 0.35)
        labels = merge_windows(scores, plan, *expected.shape).label_map.numpy()
        assert np.count_nonzero(labels != expected) == 0
