import pytest

from mixreorg.errors import MixreorgError
from mixreorg.eval.benchmarks.class_table import NAMINGS, class_table
from mixreorg.eval.benchmarks.registry import benchmark, benchmark_names

SIZES = {"voc": 20, "context": 59, "coco_object": 80, "coco_stuff": 171, "ade150": 150, "cityscapes": 19}


@pytest.mark.parametrize(("name", "count"), SIZES.items())
def test_tables_are_complete(name: str, count: int) -> None:
    table = class_table(name)
    labels, names = table.labels(), [row.name for row in table.classes]
    assert len(labels) == len(set(labels)) == len(set(names)) == count
    assert labels == tuple(sorted(labels))
    assert (table.background is not None) == (name in ("voc", "context", "coco_object"))
    for naming in NAMINGS:
        assert all(item.phrases for item in table.class_names(naming))


def names(table: str, naming: str) -> dict[str, tuple[str, ...]]:
    return {item.name: item.phrases for item in class_table(table).class_names(naming)}  # type: ignore[arg-type]


def test_names_of_groupvit() -> None:
    voc, context = names("voc", "groupvit"), names("context", "groupvit")
    assert [voc[name] for name in ("diningtable", "pottedplant", "tvmonitor")] == [("table",), ("plant",), ("monitor",)]
    assert voc["aeroplane"] == ("aeroplane",)
    assert [context[name] for name in ("aeroplane", "pottedplant", "tvmonitor")] == [
        ("airplane",),
        ("plant",),
        ("monitor",),
    ]


def test_names_of_sclip() -> None:
    voc = names("voc", "sclip")
    assert voc["boat"] == ("ship",)
    assert len(voc["person"]) == 7
    assert len(voc["tvmonitor"]) == 5
    assert len(class_table("voc").background_phrases("sclip")) == 26
    assert class_table("voc").background_phrases("groupvit") == ()
    assert class_table("context").background_phrases("sclip") == ("background",)
    assert names("coco_object", "sclip")["traffic light"] == ("traffic light",)
    assert names("coco_stuff", "sclip")["traffic light"] == ("trafficlight",)


def test_known_places() -> None:
    ade = [row.name for row in class_table("ade150").classes]
    assert (ade[0], ade[7], ade[89], ade[149]) == ("wall", "bed", "television receiver", "flag")
    context = {row.name: row.label for row in class_table("context").classes}
    # labels.txt of the official archive.
    assert (context["aeroplane"], context["table"], context["wood"]) == (2, 397, 458)
    objects = {row.name: row.label for row in class_table("coco_object").classes}
    # Category ids of COCO are 1 and 90.
    assert (objects["person"], objects["toothbrush"]) == (0, 89)
    stuff = {row.name: row.label for row in class_table("coco_stuff").classes}
    assert (stuff["banner"], stuff["wood"]) == (91, 181)


def test_unknown_naming() -> None:
    with pytest.raises(MixreorgError, match="'glip' is not a naming of classes; known: official, groupvit, sclip"):
        class_table("voc").class_names("glip")  # type: ignore[arg-type]


def test_registry() -> None:
    assert benchmark_names() == (
        "voc21",
        "voc20",
        "context60",
        "context59",
        "coco_object",
        "coco_stuff",
        "ade150",
        "cityscapes",
    )
    sizes = [benchmark(name).num_labels for name in benchmark_names()]
    assert sizes == [21, 20, 60, 59, 81, 171, 150, 19]
    assert benchmark("voc12") is benchmark("voc21")
    with pytest.raises(MixreorgError, match=r"'ade_150' is not a benchmark; did you mean 'ade150'.*voc_folder"):
        benchmark("ade_150")
