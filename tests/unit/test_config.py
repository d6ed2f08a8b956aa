from pathlib import Path

import pytest
from pydantic import Field

from mixreorg.config import StrictConfig, differences, merge, read_config_file
from mixreorg.data.rand_augment import RandAugmentConfig
from mixreorg.errors import MixreorgError
from mixreorg.objectives.groupvit import GroupViTConfig
from mixreorg.train.config import TrainConfig


class Inner(StrictConfig):
    lr: float = Field(1.0, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)


class Outer(StrictConfig):
    name: str = "x"
    optim: Inner = Inner()
    root: str | None = None


def test_round_trip() -> None:
    config = Outer(optim=Inner(lr=0.5))
    assert Outer.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim": {"lrr": 1.0}}, "optim.lrr is not a field of Inner; did you mean 'lr'?"),
        ({"nmae": "y"}, "nmae is not a field of Outer; did you mean 'name'?"),
        ({"optim": {"lr": "fast"}}, "optim.lr: Input should be a valid number .*'fast'"),
        ({"optim": {"lr": -1.0}}, "optim.lr: Input should be greater than 0"),
        ({"name": 3}, "name: Input should be a valid string"),
        ({"root": object()}, "plain JSON or YAML"),
        ({"optim": {"lr": float("inf")}}, r"run\.yaml: optim\.lr: numbers must be finite \(got inf\)"),
        ({"optim": {"betas": [0.9, float("nan")]}}, r"optim\.betas\.1: numbers must be finite \(got nan\)"),
    ],
)
def test_wrong_values_name_the_field_and_the_remedy(values: dict[str, object], message: str) -> None:
    with pytest.raises(MixreorgError, match=message):
        Outer.from_dict(values, source="run.yaml")


def test_overrides() -> None:
    changed = Outer().with_overrides(["optim.lr=1e-3", "optim.betas=[0.8, 0.9]", "name=a b", "root=null"])
    assert changed.optim == Inner(lr=1e-3, betas=(0.8, 0.9))
    assert changed.name == "a b"


def test_a_section_that_is_set_as_a_whole_keeps_what_it_does_not_name() -> None:
    base = TrainConfig().with_overrides(["optim.clip_norm=1", "objective.block=4"])
    changed = base.with_overrides(['optim={"lr": 0.001}', 'objective={"mixed": {"weight": 2}}'])
    assert changed.optim == base.optim.updated(lr=1e-3)
    assert changed.objective == base.objective.updated(mixed=base.objective.mixed.updated(weight=2.0))
    assert base.with_overrides(['objective={"kind": "groupvit"}']).objective == GroupViTConfig()
    grown = base.with_overrides(['data.transform.rand_augment={"magnitude": 5}'])
    assert grown.data.transform.rand_augment == RandAugmentConfig(magnitude=5)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lrr=1", "optim.lrr is not a field of Outer; did you mean 'lr'"),
        ("optm.lr=1", "optm is not a section of Outer; did you mean 'optim'"),
        ("name.x=1", "name is not a section of Outer but a value"),
        ("optim.lr.x=1", r"optim\.lr is not a section of Outer but a value"),
        ("root.a.b=1", r'root is null, .* whole: root=\{"a": \{"b": 1\}\}'),
        ("optim.lr", "NAME=VALUE"),
        ("optim.lr=abc", "valid number"),
        ("optim.lr=Infinity", "numbers must be finite"),
        ("optim.lr=1e999", "numbers must be finite"),
    ],
)
def test_wrong_overrides(assignment: str, message: str) -> None:
    with pytest.raises(MixreorgError, match=message):
        Outer().with_overrides([assignment])


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("optim:\n  lr: 1e-3\n")
    assert Outer.from_dict(read_config_file(path)).optim.lr == 1e-3
    path.write_text("- a\n")
    with pytest.raises(MixreorgError, match="mapping"):
        read_config_file(path)
    path.write_text("a: [\n")
    with pytest.raises(MixreorgError, match="not valid YAML"):
        read_config_file(path)
    with pytest.raises(MixreorgError, match="cannot read"):
        read_config_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", "optim: {lr: 0.1}\nname: a\noptim: {lr: 0.2}\n", "'optim' stands twice"),
        ("run.yaml", "optim:\n  lr: 0.1\n  lr: 0.2\n", "'lr' stands twice"),
        ("run.json", '{"name": "a", "optim": {"lr": 0.1, "lr": 0.2}}', "'lr' stands twice"),
        ("run.yaml", "when: 2026-02-30\n", "not valid YAML"),
        ("run.yaml", "seed: !!int twelve\n", "not valid YAML"),
        ("run.yaml", "a: " + 3000 * "[", "not valid YAML"),
        ("run.yaml", "optim: &all {lr: *all}\n", r"an alias \(\*NAME\) stands inside of what it names"),
    ],
)
def test_names_given_twice_circles_and_what_yaml_cannot_make_are_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(MixreorgError, match=message):
        read_config_file(path)


def test_sections_may_be_merged_and_used_again(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: &a {lr: 1, seed: 2}\nb: &b {<<: *a, lr: 3}\nc: {<<: *b, lr: 4}\nd:\n  <<: *a\n  <<: *b\n")
    values = read_config_file(path)
    assert values["d"].keys() == {"lr", "seed"}
    assert values["b"] == {"lr": 3, "seed": 2}
    assert values["c"] == {"lr": 4, "seed": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("1_000", 1000),
        ("0x1f", 31),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("-1.5e2", -150.0),
        ("._", "._"),
        # 10 and 90 in YAML 1.1, which nobody means
        ("012", "012"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
    ],
)
def test_numbers_are_what_people_mean(tmp_path: Path, text: str, value: object) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"a: {text}\n")
    read = read_config_file(path)["a"]
    assert (read, type(read)) == (value, type(value))


def test_merge_goes_into_sections() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"e": 1}}) == {
        "a": {"b": 9, "c": 2},
        "d": {"e": 1},
    }


def test_updates_are_validated() -> None:
    with pytest.raises(MixreorgError, match="name: Input should be a valid string"):
        Outer().updated(name=3)


def test_mistakes_inside_a_choice_of_sections_are_explained() -> None:
    with pytest.raises(
        MixreorgError, match=r"objective\.mixed\.wieght is not a field of WeightSchedule; did you mean 'weight'"
    ):
        TrainConfig.from_dict({"objective": {"kind": "mixreorg", "mixed": {"wieght": 1.0}}})
    with pytest.raises(MixreorgError, match=r"objective\.blok is not a field of MixReorgConfig; did you mean 'block'"):
        TrainConfig.from_dict({"objective": {"kind": "mixreorg", "blok": 1}})


def test_another_kind_replaces_the_whole_section() -> None:
    config = TrainConfig().with_overrides(["objective.kind=groupvit"])
    assert config.objective == GroupViTConfig()
    inside = TrainConfig().with_overrides(["objective.kind=groupvit", "objective.multi_label.weight.weight=0.5"])
    assert inside.objective.multi_label.weight.weight == 0.5
    with pytest.raises(MixreorgError, match=r"objective\.multi_labl is not a field of GroupViTConfig; did you mean"):
        TrainConfig().with_overrides(["objective.kind=groupvit", "objective.multi_labl.weight.weight=0.5"])
    with pytest.raises(MixreorgError, match=r"objective\.mixed\.kind is not a field of WeightSchedule"):
        TrainConfig().with_overrides(["objective.mixed.kind=x"])
    with pytest.raises(MixreorgError, match=r"objective\.foo is not a field of MixReorgConfig"):
        TrainConfig().with_overrides(["objective.foo.kind=x"])
    merged = merge(TrainConfig().to_dict(), {"objective": {"kind": "groupvit"}})
    assert TrainConfig.from_dict(merged).objective == GroupViTConfig()


class _Item(StrictConfig):
    width: int = 1


class _Items(StrictConfig):
    by_name: dict[str, _Item]
    listed: tuple[_Item, ...] = ()


def test_mistakes_inside_mappings_and_lists_get_the_nearest_name():
    with pytest.raises(MixreorgError, match=r"by_name\.a\.widht is not a field of _Item; did you mean 'width'"):
        _Items.from_dict({"by_name": {"a": {"widht": 2}}})
    with pytest.raises(MixreorgError, match=r"listed\.1\.widht is not a field of _Item; did you mean 'width'"):
        _Items.from_dict({"by_name": {}, "listed": [{}, {"widht": 2}]})


def test_differences_are_dotted_names():
    before = {"a": 1, "b": {"c": [1, 2], "d": None}, "gone": 0}
    after = {"a": 1, "b": {"c": [1, 3], "d": None, "e": 5}}
    assert differences(before, after) == ["b.c", "b.e", "gone"]
    assert differences(after, after) == []


def test_overrides_name_their_origin():
    with pytest.raises(MixreorgError, match="row x: widht is not a field"):
        _Item().with_overrides(["widht=2"], source="row x")
