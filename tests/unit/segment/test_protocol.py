import pytest
from pydantic import ValidationError

from mixreorg.errors import MixreorgError
from mixreorg.segment.protocol import Protocol, groupvit_protocol


def test_published_defaults():
    protocol = groupvit_protocol()
    assert (protocol.short_side, protocol.long_side, protocol.window, protocol.stride) == (
        448,
        2048,
        448,
        224,
    )
    assert (protocol.templates, protocol.shortlist) == (("a photo of a {}.",), 5)
    assert protocol.background_threshold is None
    assert not protocol.whole


def test_sizes_follow_the_training_size():
    protocol = groupvit_protocol(64)
    assert (protocol.short_side, protocol.window, protocol.stride) == (128, 128, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": " "}, "give the protocol a name"),
        ({"stride": 0}, "at least 1"),
        ({"short_side": 8193, "long_side": 9000}, "at most 8,192 pixels"),
        ({"stride": 449}, "stride 449 exceeds window 448"),
        ({"long_side": 447}, "long_side 447 is smaller than short_side 448"),
        ({"shortlist": 0}, "at least 1"),
        ({"background_threshold": 1.5}, "between 0 and 1"),
        ({"templates": []}, "at least one template"),
        ({"templates": ["a photo."]}, r"'a photo.' must have exactly one \{\}"),
        ({"templates": ["a {} and a {}"]}, r"exactly one \{\}"),
        ({"templates": ["a {} {0}"]}, "no other braces"),
        ({"templates": ["a {} }"]}, "no other braces"),
        ({"windows": 3}, "did you mean 'window'"),
    ],
)
def test_clear_errors(change, message):
    with pytest.raises(MixreorgError, match=message):
        Protocol.from_dict({**groupvit_protocol().to_dict(), **change})


def test_direct_construction_is_checked_too():
    with pytest.raises(MixreorgError, match="exceeds window"):
        groupvit_protocol().updated(stride=1000)
    with pytest.raises(ValidationError, match="exceeds window"):
        Protocol(name="x", short_side=448, window=448, stride=1000)


def test_hash_depends_on_every_field_and_on_nothing_else():
    protocol = groupvit_protocol()
    assert protocol.hash() == "2285270f71b3"
    assert Protocol.from_dict(protocol.to_dict()).hash() == protocol.hash()
    changes = {
        "name": "other",
        "short_side": 447,
        "long_side": 2047,
        "window": 449,
        "stride": 223,
        "templates": ("a {}",),
        "background_threshold": 0.5,
        "shortlist": 4,
        "whole": True,
        "decoding": "softmax",
        "logit_scale": 40.0,
        "background_phrases": ("sky",),
        "tile_scales": (1.5,),
        "flip": True,
        "segment_similarity": 0.9,
        "refine": "pamr",
    }
    assert set(changes) == set(Protocol.model_fields)
    hashes = {protocol.updated(**{name: value}).hash() for name, value in changes.items()}
    assert len(hashes | {protocol.hash()}) == len(changes) + 1


def test_a_larger_short_side_takes_the_long_side_along():
    protocol = groupvit_protocol()
    larger = protocol.changed({"short_side": 896}, "options")
    assert (larger.short_side, larger.long_side) == (896, 4096)
    assert protocol.changed({"short_side": 224}, "options") == protocol.updated(short_side=224)
    assert protocol.changed({"short_side": 896, "long_side": 1000}, "options").long_side == 1000
    with pytest.raises(MixreorgError, match="options: short_side"):
        protocol.changed({"short_side": 0}, "options")
