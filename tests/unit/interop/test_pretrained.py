"""The methods of the hub's mixin on a segmenter."""

from pathlib import Path

import pytest
import torch
from transformers import GroupViTModel

from mixreorg import PretrainedSegmenter
from mixreorg.errors import MixreorgError
from mixreorg.interop.model_card import CardFacts
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.text.tokenizer import Tokenizer


@pytest.mark.parametrize(("stem", "is_theirs"), [("patch", True), ("conv", False)])
def test_saved_and_loaded(
    tiny_config: DualEncoderConfig, tokenizer: Tokenizer, tmp_path: Path, stem: str, is_theirs: bool
) -> None:
    torch.manual_seed(0)
    image = tiny_config.image.updated(stem=stem, assignment="hard", centre_keys=False, num_local_blocks=0)
    segmenter = PretrainedSegmenter(DualEncoder(tiny_config.updated(image=image), tokenizer))
    segmenter.protocol = segmenter.protocol.updated(background_threshold=0.3)
    out = segmenter.save_pretrained(tmp_path / "out", facts=CardFacts(license="mit"))
    assert out == tmp_path / "out"
    assert "license: mit" in (out / "README.md").read_text(encoding="utf-8")
    again = PretrainedSegmenter.from_pretrained(out, window_batch=2)
    assert (again.protocol, again.window_batch) == (segmenter.protocol, 2)
    expected = segmenter.model.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.model.state_dict().items())
    if is_theirs:
        assert isinstance(GroupViTModel.from_pretrained(out), GroupViTModel)
    with pytest.raises(MixreorgError, match="is not empty"):
        segmenter.save_pretrained(out)
    assert again.save_pretrained(out, overwrite=True) == out


def test_the_calibration_that_holds_is_saved(tmp_path: Path) -> None:
    segmenter = PretrainedSegmenter.from_pretrained("scenes-tiny")
    again = PretrainedSegmenter.from_pretrained(segmenter.save_pretrained(tmp_path / "same"))
    assert again.model.inference_calibration == segmenter.model.inference_calibration is not None
    segmenter.protocol = segmenter.protocol.updated(short_side=96)
    other = PretrainedSegmenter.from_pretrained(segmenter.save_pretrained(tmp_path / "other"))
    assert other.model.inference_calibration is None


def test_the_licence_of_the_source_is_kept(tmp_path: Path) -> None:
    segmenter = PretrainedSegmenter.from_pretrained("scenes-tiny")
    assert segmenter.source_license == "cc-by-sa-4.0"
    again = PretrainedSegmenter.from_pretrained(segmenter.save_pretrained(tmp_path / "same"))
    assert again.source_license == "cc-by-sa-4.0"
    other = again.save_pretrained(tmp_path / "other", facts=CardFacts(license="mit", data="Scenes."))
    assert (other / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: mit\n")
