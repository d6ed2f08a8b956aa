"""Published numbers are attributed as far as their sources tell."""

from mixreorg.eval.benchmarks.registry import benchmark_names
from mixreorg.eval.protocols import find_protocol
from mixreorg.eval.report.published import published_numbers

NAMES = benchmark_names()


def test_benchmarks_and_protocols_exist() -> None:
    numbers = [item for name in NAMES for item in published_numbers(name)]
    assert len(numbers) > 50
    for item in numbers:
        assert 0 < item.miou < 100
        assert item.protocol == "own" or find_protocol(item.protocol).name == item.protocol
        assert item.training
        assert item.source


def test_a_checkpoint_of_groupvit_is_named_only_where_the_source_names_it() -> None:
    known = {"voc21", "voc20", "context60", "coco_object"}
    for name in NAMES:
        for item in published_numbers(name):
            if item.system == "GroupViT" and name not in known:
                assert item.training == "CC3M+CC12M with YFCC14M or RedCaps"
                assert "do not say which" in item.source
