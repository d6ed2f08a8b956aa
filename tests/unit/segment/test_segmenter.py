import numpy as np
import pytest
import torch
from PIL import Image

from mixreorg.errors import MixreorgError
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.segment.phrase_memory import PHRASES_KEPT
from mixreorg.segment.presence import EVERYDAY_NAMES
from mixreorg.segment.protocol import Protocol, groupvit_protocol
from mixreorg.segment.segmenter import Segmenter, default_protocol
from mixreorg.text.class_list import ClassName

WINDOWS = Protocol(name="windows", short_side=64, window=32, stride=16)


def photo(width: int = 90, height: int = 70, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({}, (3, 200), r"3 x 200 pixels becomes 3 x 200, .* crop it, or raise the protocol's long_side \(200\)"),
        ({"short_side": 4}, (90, 70), r"becomes 5 x 4, thinner than one patch of 8; raise short_side \(4\)"),
        ({"window": 4, "stride": 4}, (90, 70), "cut into windows of 4 x 4, .* raise the protocol's window"),
    ],
)
def test_windows_thinner_than_a_patch_are_refused_with_what_helps(
    tiny_model: DualEncoder, changes: dict[str, int], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(MixreorgError, match=message):
        Segmenter(tiny_model, WINDOWS.updated(long_side=200, **changes))(photo(*size), ["dog"])


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
    count = len(together.image_embedding) // 3
    for index, single in enumerate(photos):
        part = together.part(index * count, (index + 1) * count)
        torch.testing.assert_close(
            part.image_embedding, segmenter.encode([single]).image_embedding, atol=1e-5, rtol=1e-4
        )


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
    # The bank of the presence scores holds dog, cat and car, too.
    assert encoded[:2] == ["a photo of a dog.", "a photo of a cat."]
    assert len(encoded) == len(set(encoded)) == len(EVERYDAY_NAMES)


def test_phrases_are_kept_within_bounds_and_those_remembered_for_good(
    tiny_model: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(tiny_model, WINDOWS)
    encoded: list[str] = []
    monkeypatch.setattr(
        tiny_model,
        "encode_prompts",
        lambda prompts: encoded.extend(p[0] for p in prompts) or torch.arange(2.0 * len(prompts)).view(-1, 2),
    )
    segmenter.remember(["known"], torch.ones(1, 2))
    names = [f"thing {index}" for index in range(PHRASES_KEPT + 10)]
    embeddings, _ = segmenter.class_embeddings([ClassName(name) for name in names])
    assert (embeddings == torch.arange(2.0 * len(names)).view(-1, 2)).all()
    encoded.clear()
    for name in ("known", names[10], names[9]):
        segmenter.class_embeddings([ClassName(name)])
    assert encoded == ["a photo of a thing 9."]
    # Not a view: one row that is kept would keep all that were encoded with it.
    assert segmenter._encode_phrases(names)[0].untyped_storage().nbytes() == 8


def test_another_protocol_has_embeddings_of_its_own_templates(tiny_model: DualEncoder) -> None:
    classes = [ClassName("dog"), ClassName("cat")]
    other = WINDOWS.updated(templates=("a {}", "one {} on grass"))
    segmenter = Segmenter(tiny_model, WINDOWS)
    before, _ = segmenter.class_embeddings(classes)
    segmenter.remember(["dog"], torch.ones(1, before.shape[1]))
    segmenter.protocol = other
    embeddings, _ = segmenter.class_embeddings(classes)
    assert torch.equal(embeddings, Segmenter(tiny_model, other).class_embeddings(classes)[0])
    assert not torch.allclose(embeddings, before)
    segmenter.protocol = WINDOWS
    assert torch.equal(segmenter.class_embeddings(classes)[0], before)


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


CLASSES = ["dog", "cat", "car", "grass"]


def test_without_options_background_is_the_protocols_and_labels_are_those_of_decode(tiny_model: DualEncoder) -> None:
    from mixreorg.segment.sliding_window import merge_windows
    from mixreorg.segment.window_plan import plan_windows
    from mixreorg.text.class_list import parse_class_list

    for protocol in (WINDOWS, WINDOWS.updated(background_threshold=0.08)):
        segmenter, image = Segmenter(tiny_model, protocol), photo()
        plan = plan_windows(protocol, image.width, image.height)
        windows = segmenter.decode(segmenter.encode([image]), plan, parse_class_list(CLASSES))
        expected = merge_windows(windows, plan, image.height, image.width)
        result = segmenter(image, CLASSES)
        assert (result.label_map == expected.label_map.numpy()).all()
        np.testing.assert_array_equal(result.scores, expected.class_scores.numpy())


def test_abstention_of_all_classes_leaves_background_and_of_none_changes_nothing(tiny_model: DualEncoder) -> None:
    segmenter = Segmenter(tiny_model, WINDOWS)
    plain, none, every = (segmenter(photo(), CLASSES, abstain=value) for value in (None, 0.0, 1.0))
    assert (none.label_map == plain.label_map + 1).all()
    assert not every.label_map.any()
    assert every.absent == tuple(CLASSES)
    assert every.class_names == ("background", *CLASSES)
    assert every.overlay(photo()).height > plain.label_map.shape[0]


def test_abstention_takes_the_absent_classes_alone(tiny_model: DualEncoder) -> None:
    segmenter = Segmenter(tiny_model, WINDOWS)
    plain = segmenter(photo(), CLASSES)
    assert plain.presence_scores is not None
    threshold = float(np.sort(plain.presence_scores)[1:3].mean())
    result = segmenter(photo(), CLASSES, abstain=threshold)
    np.testing.assert_array_equal(result.presence_scores[1:], plain.presence_scores)
    low = [name for name, score in zip(CLASSES, plain.presence_scores, strict=True) if score < threshold]
    assert list(result.absent) == low
    assert len(low) == 2
    assert not set(low) & set(result.to_masks())
    assert result.label_map.all()


def test_negatives_take_pixels_and_become_background(tiny_model: DualEncoder) -> None:
    segmenter = Segmenter(tiny_model, WINDOWS)
    # No more names than the shortlist has places: the competition is that of one long list.
    everything = segmenter(photo(), [*CLASSES, "sand"])
    result = segmenter(photo(), CLASSES, negatives="sand")
    taken = everything.label_map == len(CLASSES)
    assert result.negative_pixels == {"sand": taken.sum()}
    assert taken.any()
    assert (result.label_map == np.where(taken, 0, everything.label_map + 1)).all()


@pytest.mark.parametrize("options", [{}, {"negatives": "sand"}, {"abstain": 0.05}, {"background": "auto"}])
def test_background_phrases_go_with_every_option(tiny_model: DualEncoder, options: dict[str, object]) -> None:
    phrases = {"background_phrases": ("sky", "wall"), "decoding": "softmax", "background_threshold": 0.1}
    result = Segmenter(tiny_model, WINDOWS.updated(**phrases))(photo(), CLASSES, **options)
    assert result.class_names == ("background", *CLASSES)
    assert result.background is not None
    assert result.background.rule == ("otsu" if "background" in options else "protocol")
    assert (result.label_map == 0).any()


def test_automatic_background_says_its_rule(tiny_model: DualEncoder) -> None:
    result = Segmenter(tiny_model, WINDOWS)(photo(), CLASSES, background="auto")
    assert result.background is not None
    assert result.background.rule == "otsu"
    fixed = Segmenter(tiny_model, WINDOWS)(photo(), CLASSES, background=result.background.threshold)
    assert (fixed.label_map == result.label_map).all()
    assert fixed.background is not None
    assert fixed.background.rule == "given"
