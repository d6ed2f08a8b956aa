import numpy as np
import pytest
import torch
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.protocol import Protocol, groupvit_protocol
from mixreorg.segment.segmenter import Segmenter, default_protocol

WINDOWS = Protocol(name="windows", short_side=64, window=32, stride=16)


def photo(width: int = 90, height: int = 70, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_labels_have_the_photos_size_and_the_names_given(tiny_model: DualEncoder) -> None:
    result = Segmenter(tiny_model, WINDOWS)(photo(), ["dog", "cat=cat|kitten", "grass"])
    assert result.label_map.shape == (70, 90)
    assert result.class_names == ("dog", "cat", "grass")
    assert result.scores.shape == (3,)
    assert result.area_share.sum() == pytest.approx(1)


def test_batched_windows_equal_single_ones(tiny_model: DualEncoder) -> None:
    classes = ["dog", "cat", "car", "grass", "sand", "photo"]
    alone = Segmenter(tiny_model, WINDOWS, window_batch=1)(photo(), classes)
    together = Segmenter(tiny_model, WINDOWS, window_batch=64)(photo(), classes)
    assert (alone.label_map == together.label_map).mean() > 0.999
    np.testing.assert_allclose(alone.scores, together.scores, atol=1e-5)


def test_several_photos_encode_as_each_alone(tiny_model: DualEncoder) -> None:
    segmenter = Segmenter(tiny_model, WINDOWS)
    photos = [photo(seed=seed) for seed in range(3)]
    together = segmenter.encode(photos)
    count = len(together.embedding) // 3
    for index, single in enumerate(photos):
        part = together.part(index * count, (index + 1) * count)
        torch.testing.assert_close(part.embedding, segmenter.encode([single]).embedding, atol=1e-5, rtol=1e-4)


def test_one_window_that_covers_the_photo_equals_the_whole_photo(tiny_model: DualEncoder) -> None:
    square = photo(64, 64)
    window = Segmenter(tiny_model, WINDOWS.updated(window=64, stride=64))(square, ["dog", "cat"])
    whole = Segmenter(tiny_model, WINDOWS.updated(whole=True))(square, ["dog", "cat"])
    assert (window.label_map == whole.label_map).all()


def test_resizing_follows_bilinear_without_antialiasing(tiny_model: DualEncoder) -> None:
    from mixreorg.models.pixels import normalise
    from mixreorg.segment.window_plan import plan_windows

    image = photo(128, 128)
    plan = plan_windows(WINDOWS, 128, 128)
    prepared = Segmenter(tiny_model, WINDOWS).prepare(image, plan)
    array = np.asarray(image).astype(np.float64)
    # Halving without antialiasing averages the two middle pixels of each axis: here, each 2x2 block.
    blocks = array.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    expected = normalise(torch.from_numpy(blocks).permute(2, 0, 1))
    # Rounded to 8 bits: half a level, in units of the smallest standard deviation.
    assert (prepared - expected).abs().max() <= 0.5 / 255 / 0.224 + 1e-4


def test_each_phrase_is_encoded_once(tiny_model: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter(tiny_model, WINDOWS)
    encoded: list[str] = []
    original = tiny_model.encode_prompts
    monkeypatch.setattr(
        tiny_model, "encode_prompts", lambda prompts: encoded.extend(p[0] for p in prompts) or original(prompts)
    )
    segmenter(photo(), ["dog", "cat"])
    segmenter(photo(), ["cat", "car"])
    assert encoded == ["a photo of a dog.", "a photo of a cat.", "a photo of a car."]


def test_the_protocol_comes_with_the_model(tiny_model: DualEncoder) -> None:
    assert default_protocol(tiny_model) == groupvit_protocol(32)
    tiny_model.inference_protocol = WINDOWS.to_dict()
    assert Segmenter(tiny_model).protocol == WINDOWS


def test_background_comes_first_and_only_once(tiny_model: DualEncoder) -> None:
    segmenter = Segmenter(tiny_model, WINDOWS.updated(background_threshold=0.9))
    assert segmenter(photo(), ["dog", "cat"]).class_names == ("background", "dog", "cat")
    with pytest.raises(MixreorgError, match="leave it out"):
        segmenter(photo(), ["Background", "cat"])


def test_memory_of_the_class_list_does_not_reach_the_labels(tiny_model: DualEncoder) -> None:
    names = [f"thing {index}" for index in range(300)]
    result = Segmenter(tiny_model, WINDOWS)(photo(), names)
    assert result.label_map.dtype == np.uint16
