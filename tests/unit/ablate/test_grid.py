"""An ablation is read strictly and planned as a whole before anything runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from ablation_kit import make_spec, spec_values

from mixreorg.ablate.grid import expand_rows, plan, select, train_command
from mixreorg.ablate.run import run_ablation
from mixreorg.ablate.spec import AblationSpec, read_spec
from mixreorg.ablate.worlds import check_made_world, make_world, scenes_config, world_commands, world_paths
from mixreorg.cli.main import app
from mixreorg.errors import MixreorgError
from mixreorg.recipes import configure, recipe

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "ablate" / "small.yaml"
PAGE = ROOT / "docs" / "ablate.md"


def row(**changes):
    return {"rows": {"groupvit": {"recipe": "scenes_groupvit", "world": "tiny", **changes}}}


WRONG = {
    "unknown key": ({"sets": {}}, "sets is not a field of AblationSpec; did you mean 'set'"),
    "unknown key of a row": (
        row(recipee="x"),
        "rows.groupvit.recipee is not a field of RowConfig; did you mean 'recipe'",
    ),
    "recipe": (row(recipe="scenes_groupvitt"), "row groupvit: no recipe is called .*did you mean 'scenes_groupvit'"),
    "world": (row(world="tinny"), "row groupvit: no world is called 'tinny'; did you mean 'tiny'"),
    "setting": (row(set={"optim.lrr": 1}), "row groupvit: optim.lrr is not a field of TrainConfig; did you mean 'lr'"),
    "value": (row(set={"optim.lr": "fast"}), r"row groupvit: optim\.lr: .*got 'fast'"),
    "seed as a setting": (row(set={"seed": 3}), "row groupvit: seed is not set here but by seeds"),
    "data as a setting": (row(set={"data.train": ["x"]}), "data.train is not set here but by the world of the row"),
    "evaluation interval": (row(set={"evaluation.every": 7}), "row groupvit: .*multiple of checkpoint_every"),
    "baseline": ({"baseline": "groupvitt"}, "baseline: no row is called 'groupvitt'; did you mean 'groupvit'"),
    "seeds": ({"seeds": [1, 1]}, "seeds: .*each once"),
    "row name": ({"rows": {"../x": {"recipe": "scenes_groupvit", "world": "tiny"}}}, "names become folders"),
    "empty grid": (row(grid={"steps": []}), "grid: steps has no values"),
    "same names": (row(grid={"steps": [5, 5]}), "more than one row is called groupvit-5"),
    "split world": ({"measure": {"splits": [{"name": "a", "world": "b"}]}}, "split a: no world is called 'b'"),
    "split": ({"measure": {"splits": [{"name": "a", "split": "tset"}]}}, "world tiny has no split 'tset'"),
    "split twice": ({"measure": {"splits": [{"name": "a"}, {"name": "a"}]}}, "every split needs a name of its own"),
    "protocol": ({"measure": {"splits": [{"name": "a", "protocol": {"shrt": 1}}]}}, "split a: shrt is not a field"),
    "threshold": (
        {"measure": {"splits": [{"name": "a", "protocol": {"background_threshold": 0.5}}]}},
        "split a: the background threshold is chosen",
    ),
    "preset": ({"worlds": {"tiny": {"preset": "eazy"}}}, "world tiny: .*did you mean 'easy'"),
    "scene setting": ({"worlds": {"tiny": {"preset": "easy", "set": {"sid": 1}}}}, "world tiny: sid is not a field"),
    "seed of the scenes": (
        {"worlds": {"tiny": {"preset": "easy", "set": {"seed": 5}}}},
        "world tiny: seed is not set here but by the seed of the world",
    ),
    "no training scenes": (
        {"worlds": {"tiny": {"preset": "easy", "train": 0}}},
        "row groupvit: world tiny needs training and validation scenes",
    ),
    "no test scenes": ({"worlds": {"tiny": {"preset": "easy", "test": 0}}}, "no split 'test'; it has val"),
    "both kinds of world": ({"worlds": {"tiny": {"preset": "easy", "data": ["x"]}}}, "give either a preset"),
    "counts of existing data": ({"worlds": {"tiny": {"data": ["x"], "train": 5}}}, "train cannot be given for data"),
    "missing data": ({"worlds": {"tiny": {"data": ["nowhere/*.tar"]}}}, "world tiny: missing: .*nowhere"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_named_before_anything_runs(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MixreorgError, match=message):
        plan(AblationSpec.from_dict({**spec_values(baseline=None), **changes}, source="spec.yaml"))
    assert not list(tmp_path.iterdir())


def test_a_split_needs_an_evaluation_folder(tmp_path):
    (tmp_path / "captions.jsonl").write_text("")
    world = {"data": [str(tmp_path)]}
    with pytest.raises(MixreorgError, match="world tiny has no evaluation folder"):
        plan(make_spec(worlds={"tiny": world}))


def test_every_run_has_its_configuration():
    runs = plan(make_spec())
    assert [run.name for run in runs] == [f"{row}, seed {seed}" for row in ("groupvit", "mixreorg") for seed in (0, 1)]
    assert [run.config.seed for run in runs] == [0, 1, 0, 1]
    config = runs[3].config
    assert config.objective == recipe("scenes_mixreorg").objective
    assert (config.steps, config.optim.lr, config.evaluation.root) == (12, 1e-3, "worlds/tiny/scenes/VOC")
    assert (config.data.train, config.data.tokenizer) == (("worlds/tiny/scenes/train",), "worlds/tiny/tokenizer.json")
    assert runs[3].folder == Path("runs/mixreorg/seed-1")


def test_a_row_overrules_what_is_set_for_all_and_may_have_its_own_seeds_and_baseline():
    rows = spec_values()["rows"]
    rows["mixreorg"] |= {"set": {"steps": 20}, "seeds": [7], "baseline": "mixreorg"}
    runs = [run for run in plan(make_spec(rows=rows)) if run.row.name == "mixreorg"]
    assert [(run.config.steps, run.config.seed, run.row.baseline) for run in runs] == [(20, 7, "mixreorg")]


def test_sections_written_as_mappings_change_only_what_they_name():
    rows = row(set={"optim": {"warmup_steps": 3}, "engine": {"compile": True}})["rows"]
    (run, *_) = plan(make_spec(set={"steps": 12, "optim": {"lr": 1e-3}}, rows=rows))
    base = recipe("scenes_groupvit")
    assert run.config.optim == base.optim.updated(lr=1e-3, warmup_steps=3)
    assert run.config.engine == base.engine.updated(compile=True)


def test_the_last_layer_of_settings_decides_however_it_is_written():
    rows = row(set={"optim": {"lr": 2e-3}}, grid={"optim.lr": [3e-3, 4e-3]})["rows"]
    runs = plan(make_spec(set={"steps": 12, "optim.lr": 1e-3}, rows=rows, seeds=[0], baseline=None))
    assert [run.config.optim.lr for run in runs] == [3e-3, 4e-3]
    (run,) = plan(make_spec(set={"optim.lr": 1e-3, "optim": {"lr": 5e-3}}, rows=row(set={"optim.lr": 2e-3})["rows"],
                            seeds=[0], baseline=None))  # fmt: skip
    assert run.config.optim.lr == 2e-3
    rows = row(set={"optim.lr": 2e-3}, grid={"optim": [{"weight_decay": 0.1}]})["rows"]
    (run,) = plan(make_spec(set={"optim": {"lr": 1e-3, "warmup_steps": 3}}, rows=rows, seeds=[0], baseline=None))
    assert (run.config.optim.lr, run.config.optim.weight_decay, run.config.optim.warmup_steps) == (2e-3, 0.1, 3)


def test_a_grid_becomes_rows_named_by_their_values():
    rows = spec_values()["rows"]
    rows["mixreorg"]["grid"] = {"objective.block": [1, 2], "optim.betas": [[0.9, 0.98], [0.9, 0.999]]}
    spec = make_spec(rows=rows)
    expanded = expand_rows(spec)
    assert [item.name for item in expanded] == [
        "groupvit",
        "mixreorg-1-0.9_0.98",
        "mixreorg-1-0.9_0.999",
        "mixreorg-2-0.9_0.98",
        "mixreorg-2-0.9_0.999",
    ]
    assert expanded[4].label == "mixreorg: block 2, betas [0.9, 0.999]"
    runs = plan(spec)
    assert (runs[-1].config.objective.block, runs[-1].config.optim.betas) == (2, (0.9, 0.999))
    assert len(select(spec, runs, ["mixreorg"])) == 8
    assert {run.row.name for run in select(spec, runs, ["groupvit", "mixreorg-1-0.9_0.98"])} == {
        "groupvit",
        "mixreorg-1-0.9_0.98",
    }
    assert len(select(spec, runs, [])) == 10
    with pytest.raises(MixreorgError, match="--only mixreorgg: there is no such row; did you mean 'mixreorg'"):
        select(spec, runs, ["mixreorgg"])


def test_seeds_of_the_chosen_rows_can_be_chosen():
    rows = spec_values()["rows"]
    rows["mixreorg"]["seeds"] = [1, 2]
    spec = make_spec(rows=rows)
    chosen = select(spec, plan(spec), [], [1, 2])
    assert [(run.row.name, run.seed) for run in chosen] == [("groupvit", 1), ("mixreorg", 1), ("mixreorg", 2)]
    with pytest.raises(MixreorgError, match="--seed 2: none of these rows has that seed; there are 0, 1"):
        select(spec, plan(spec), ["groupvit"], [2])


def parsed(line):
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while isinstance(command, typer.core.TyperGroup):
        name, *words = words
        command = command.commands[name]
    return command.make_context("mixreorg", words).params


def test_the_command_of_a_run_makes_the_same_configuration():
    intervals = {"checkpoint_every": 7, "evaluation.every": 14}
    spec = make_spec(set={"steps": 12, "optim.betas": [0.9, 0.95], "data.transform.flip": False, **intervals})
    for run in plan(spec):
        world = world_paths("tiny", spec.worlds["tiny"], as_written=True)
        values = parsed(shlex.join(train_command(run, world)))
        changes = {"data": {"train": values["data"]}, "evaluation": {"root": str(values["evaluate"])}}
        assert configure(values["recipe"], None, changes, values["assignments"]) == run.config
        assert values["out"] == run.folder


def test_the_commands_of_a_world_make_the_same_scenes():
    world = make_spec(worlds={"tiny": {"preset": "medium", "seed": 5, "set": {"max_objects": 2}}}).worlds["tiny"]
    scenes, tokenizer = (parsed(line) for line in world_commands("tiny", world))
    assert (scenes["preset_name"], scenes["seed"], scenes["setting"]) == ("medium", 5, ["max_objects=2"])
    assert scenes_config("tiny", world).max_objects == 2
    assert (tokenizer["vocab_size"], tokenizer["context_length"]) == (1024, 32)
    assert str(tokenizer["out"]) == world_paths("tiny", world).tokenizer


def test_a_world_may_be_for_tests_alone():
    worlds = {**spec_values()["worlds"], "other": {"preset": "easy", "train": 0, "val": 0, "test": 4}}
    spec = make_spec(worlds=worlds, measure={"splits": [{"name": "other", "world": "other"}]})
    assert len(plan(spec)) == 4
    (scenes,) = (parsed(line) for line in world_commands("other", spec.worlds["other"]))
    assert (scenes["train"], scenes["test"]) == (0, 4)


def test_a_folder_with_another_world_is_refused(tmp_path):
    world = make_spec().worlds["tiny"]
    (tmp_path / "worlds" / "tiny").mkdir(parents=True)
    (tmp_path / "worlds" / "tiny" / "world.json").write_text(world.updated(seed=4, vocab_size=800).model_dump_json())
    with pytest.raises(MixreorgError, match="made with another seed, vocab_size; give the world"):
        make_world("tiny", world, tmp_path, console=None)
    # Also where another row alone is asked for, whose report would hold the runs on that world.
    (tmp_path / "spec.yaml").write_text(
        "title: t\nworlds: {tiny: {preset: easy, train: 40, val: 8, test: 8}, other: {preset: easy, train: 40}}\n"
        "rows: {a: {recipe: scenes_groupvit, world: other}, b: {recipe: scenes_groupvit, world: tiny}}\n"
        "measure: {splits: [{name: test}]}\n"
    )
    with pytest.raises(MixreorgError, match="made with another seed, vocab_size; give the world"):
        run_ablation(tmp_path / "spec.yaml", tmp_path, only=["a"])


def test_a_world_that_an_earlier_version_made_lacks_the_newest_fields(tmp_path):
    world = make_spec().worlds["tiny"]
    values = world.to_dict()
    del values["nouns"]
    (tmp_path / "worlds" / "tiny").mkdir(parents=True)
    (tmp_path / "worlds" / "tiny" / "world.json").write_text(json.dumps(values))
    check_made_world("tiny", world, tmp_path)


def test_existing_paths_are_absolute_for_the_runs_and_as_written_in_their_commands(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    world = make_spec(worlds={"tiny": {"data": ["s3://bucket/{0..3}.tar", "cc/*.tar"], "evaluation": "voc"}}).worlds[
        "tiny"
    ]
    paths = world_paths("tiny", world)
    assert paths.data == ("s3://bucket/{0..3}.tar", str(tmp_path / "cc/*.tar"))
    assert (paths.evaluation, paths.tokenizer) == (str(tmp_path / "voc"), "clip")
    assert world_paths("tiny", world, as_written=True).data[1] == "cc/*.tar"


@pytest.mark.parametrize(("path", "is_here"), [("model", True), ("owner/model", False)])
def test_a_checkpoint_beside_the_caller_is_found_from_the_output_folder(path, is_here, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    weights = {"initialise.weights": "groupvit", "initialise.path": path}
    (run, *_) = plan(make_spec(**row(set=weights)))
    assert run.config.initialise.path == (str(tmp_path / path) if is_here else path)
    assert f'initialise.path="{path}"' in run.row.assignments


def test_the_example_can_be_planned():
    runs = plan(read_spec(EXAMPLE))
    assert len(runs) == 8
    assert {run.row.section for run in runs} == {"Methods", "Side of the mixing unit"}


def test_the_ablation_and_the_commands_of_the_page_about_it_are_understood(tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "spec.yaml").write_text(text)
    spec = read_spec(tmp_path / "spec.yaml")
    existing = spec.worlds.pop("cc3m")
    assert existing.evaluation == "VOC2012"
    assert {run.row.name for run in plan(spec)} == {"groupvit", "unit-1", "unit-2", "unit-4"}
    (lines,) = re.findall(r"^```console\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    values = [parsed(line) for line in lines.splitlines()]
    assert [(value["workers"], list(value["only"] or ()), value["report"], value["join"]) for value in values] == [
        (2, [], False, False),
        (1, ["groupvit", "unit-1"], False, False),
        (1, [], True, False),
        (1, [], False, True),
    ]
    select(read_spec(EXAMPLE), plan(read_spec(EXAMPLE)), values[1]["only"])
    for target in re.findall(r"\]\(([^)#]+)\)", page):
        assert (PAGE.parent / target).exists(), target


def test_a_row_with_the_multi_label_loss_takes_the_class_names_of_its_scenes():
    rows = {"nouns": {"recipe": "scenes_groupvit_multilabel", "world": "tiny"}, **spec_values()["rows"]}
    runs = plan(make_spec(rows=rows))
    world = world_paths("tiny", make_spec().worlds["tiny"])
    assert runs[0].config.data.nouns == "worlds/tiny/scenes/VOC"
    assert "data.nouns=worlds/tiny/scenes/VOC" in train_command(runs[0], world)
    assert runs[-1].config.data.nouns is None


def test_existing_data_need_a_word_list_for_the_multi_label_loss(tmp_path):
    (tmp_path / "captions.jsonl").write_text("")
    worlds = {**spec_values()["worlds"], "own": {"data": [str(tmp_path)]}}
    rows = {**spec_values()["rows"], "nouns": {"recipe": "scenes_groupvit_multilabel", "world": "own"}}
    with pytest.raises(MixreorgError, match="row nouns: the multi-label loss needs a word list"):
        plan(make_spec(rows=rows, worlds=worlds))


SPECS = sorted([*ROOT.glob("experiments/*.yaml"), *ROOT.glob("examples/ablate/*.yaml")])


@pytest.mark.parametrize("path", SPECS, ids=[path.stem for path in SPECS])
def test_the_projects_own_ablations_can_be_planned(path):
    assert plan(read_spec(path))
