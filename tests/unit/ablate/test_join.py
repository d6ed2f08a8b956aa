"""Result files of one ablation from several places become one."""

import json

import pytest
from ablation_kit import make_spec, result_values, run_values
from typer.testing import CliRunner

from mixreorg.ablate.join import join_results
from mixreorg.ablate.results import AblationResults, read_results
from mixreorg.cli.main import app
from mixreorg.errors import MixreorgError


def part(*runs, **changes):
    return {**result_values(list(runs)), **changes}


def joined(*parts):
    names = [f"{number}.json" for number in range(len(parts))]
    return join_results([AblationResults.from_dict(values) for values in parts], names)


def test_runs_of_all_parts_are_there_in_the_order_of_the_rows():
    first = part(run_values("mixreorg", 0, 24.0), run_values("groupvit", 0, 20.0), budget_note="Old.")
    second = part(run_values("groupvit", 1, 23.0), run_values("mixreorg", 1, 29.0), budget_note="New.")
    whole = joined(first, second)
    assert [(run.row, run.seed) for run in whole.runs] == [
        ("groupvit", 0),
        ("groupvit", 1),
        ("mixreorg", 0),
        ("mixreorg", 1),
    ]
    assert whole.by_seed("mixreorg", "test", "foreground_miou") == {0: 24.0, 1: 29.0}
    assert whole.budget_note == "New."


@pytest.mark.parametrize("finished_first", [True, False])
def test_a_run_is_taken_from_where_it_was_finished(finished_first):
    done, begun = run_values("groupvit", 0, 20.0), run_values("groupvit", 0, 5.0, state="unfinished")
    parts = (part(done), part(begun)) if finished_first else (part(begun), part(done))
    (run,) = joined(*parts).runs
    assert (run.state, run.checkpoints["best"].splits["test"]["foreground_miou"]) == ("finished", 20.0)


def test_two_results_of_one_run_are_refused():
    with pytest.raises(MixreorgError, match=r"groupvit, seed 0: both 0\.json and 1\.json hold it finished"):
        joined(part(run_values("groupvit", 0, 20.0)), part(run_values("groupvit", 0, 21.0)))


def test_parts_of_other_numbers_of_pairs_are_refused():
    other = run_values("groupvit", 1, 21.0) | {"num_pairs": 48}
    message = (
        r"groupvit, seed 1, of 1\.json was trained on 48 pairs, groupvit, seed 0, of 0\.json on 40: the world tiny"
    )
    with pytest.raises(MixreorgError, match=message):
        joined(part(run_values("groupvit", 0, 20.0)), part(other))


def changed_row(**changes):
    values = result_values([])
    values["rows"][1] |= changes
    return values


def changed_spec(key, value):
    values = result_values([])
    values["spec"][key] = value
    return values


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (part(title="Another"), "0.json is about 'Two <b>methods</b>', 1.json about 'Another'"),
        (changed_row(settings={"steps": 24}), "mixreorg has another settings in 0.json than in 1.json"),
        (changed_row(name="renamed"), "0.json has runs of mixreorg, which 1.json does not know"),
        (changed_spec("measure", {"splits": [{"name": "val"}]}), "0.json was measured with another splits than 1.json"),
        (
            changed_spec("worlds", {"tiny": {"preset": "easy", "train": 80}}),
            "the world tiny of 0.json is another one than in 1.json",
        ),
    ],
)
def test_parts_of_another_ablation_are_refused(last, message):
    with pytest.raises(MixreorgError) as caught:
        joined(part(run_values("mixreorg", 0, 24.0)), last)
    assert message in str(caught.value)


def test_a_file_of_an_earlier_version_lacks_the_newest_fields():
    first, second = part(run_values("groupvit", 0, 20.0)), part(run_values("groupvit", 1, 23.0))
    second["spec"] = make_spec().to_dict()
    assert first["spec"]["measure"] != second["spec"]["measure"]
    assert len(joined(first, second).runs) == 2


def test_the_last_part_may_have_further_splits():
    further = changed_spec("measure", {"splits": [{"name": "test"}, {"name": "pairs", "split": "test_heldout"}]})
    further["splits"] = [{"name": "test", "world": None}, {"name": "pairs", "world": None}]
    further["runs"] = [run_values("mixreorg", 1, 29.0)]
    first = part(run_values("mixreorg", 0, 24.0))
    whole = joined(first, further)
    assert [split.name for split in whole.splits] == ["test", "pairs"]
    assert whole.by_seed("mixreorg", "test", "foreground_miou") == {0: 24.0, 1: 29.0}
    with pytest.raises(MixreorgError, match=r"0\.json was measured with another splits than 1\.json"):
        joined(further, first)


def test_rows_that_have_not_begun_may_have_changed():
    assert joined(part(run_values("groupvit", 0, 20.0)), changed_row(settings={"steps": 24})).rows[1].settings == {
        "steps": 24
    }


def test_the_command_writes_one_file_and_its_page(tmp_path):
    files = []
    for seed in (0, 1):
        files.append(tmp_path / f"{seed}.json")
        files[-1].write_text(json.dumps(part(run_values("groupvit", seed, 20.0), run_values("mixreorg", seed, 24.0))))
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["ablate", "--join", *map(str, files), "--out", str(out)])
    assert result.exit_code == 0
    assert len(read_results(out / "results.json").runs) == 4
    assert "4 of 4 runs are finished" in (out / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["--report", "--join"])
@pytest.mark.parametrize("choice", ["--only", "--seed"])
def test_what_runs_nothing_takes_no_choice_of_runs(kind, choice, tmp_path):
    out = tmp_path / "out"
    arguments = ["ablate", kind, str(tmp_path / "results.json"), "--out", str(out), choice, "1"]
    with pytest.raises(MixreorgError, match="--only and --seed choose what is run"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not out.exists()
