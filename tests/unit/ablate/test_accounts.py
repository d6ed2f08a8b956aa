"""Cost from the log and the processes, and the state of code and runs."""

import io
import json

import pytest
from ablation_kit import MACHINE
from rich.console import Console

from mixreorg.ablate.accounts import Machine, Part, add_part, cost_of, read_parts, this_machine
from mixreorg.ablate.queue import Job
from mixreorg.ablate.status import StatusDisplay, Watched, newest_values, status_row


def part(stage, seconds, cpu_seconds=None):
    machine = Machine.from_dict(MACHINE)
    return Part(stage=stage, seconds=seconds, cpu_seconds=cpu_seconds, exit_code=0, machine=machine)


def test_training_time_is_that_of_the_steps_and_process_time_that_of_all_parts(tmp_path):
    add_part(tmp_path, part("train", 30.0, 12.0))
    add_part(tmp_path, part("train", 20.0, 8.0))
    add_part(tmp_path, part("measure", 90.0, 90.0))
    log = [
        {"step": 10, "train/pairs_per_second": 80.0, "train/cpu_cores": 1.5},
        {"step": 10, "val/foreground_miou": 3.0},
        {"step": 25, "train/pairs_per_second": 40.0, "train/cpu_cores": 0.5},
    ]
    cost = cost_of(read_parts(tmp_path), log, batch_size=16)
    # 10 steps of 16 at 80 a second, 15 at 40.
    assert cost.train_seconds == pytest.approx(2 + 6)
    assert cost.train_cpu_seconds == pytest.approx(2 * 1.5 + 6 * 0.5)
    assert (cost.process_seconds, cost.process_cpu_seconds, cost.parts) == (50.0, 20.0, 2)


def test_what_the_system_does_not_tell_is_not_made_up():
    cost = cost_of([part("train", 5.0, 1.0), part("train", 5.0)], [{"step": 4, "train/pairs_per_second": 8.0}], 8)
    assert (cost.train_cpu_seconds, cost.process_cpu_seconds) == (None, None)
    # The account of a queue that was killed.
    cost = cost_of([part("measure", 5.0, 1.0)], [{"step": 4, "train/pairs_per_second": 8.0}], 8)
    assert (cost.process_seconds, cost.process_cpu_seconds, cost.parts) == (None, None, 0)


def test_the_machine_is_described():
    machine = this_machine("cpu", 3)
    assert (machine.threads, machine.device) == (3, "cpu")
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.cpu_capability


def test_the_display_takes_the_newest_values_of_a_log_that_is_being_written(tmp_path):
    log = tmp_path / "log.jsonl"
    records = [
        {"step": 50, "train/pairs_per_second": 1234.0, "train/eta_seconds": 90.0},
        {"step": 50, "val/foreground_miou": 12.34},
        {"step": 100, "train/pairs_per_second": 2000.0, "train/eta_seconds": 61.0},
    ]
    log.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 150, "tr')
    watched = Watched(Job("row, seed 0", [], state="train"), tmp_path, 3200)
    assert status_row(watched) == ("row, seed 0", "train", "100/3,200", "2,000", "1 min", "12.3")
    assert newest_values(tmp_path / "none.jsonl") == {}


def test_the_display_shows_runs_that_have_begun_and_tells_changes(tmp_path):
    jobs = [Job("a, seed 0", []), Job("b, seed 0", [])]
    text = io.StringIO()
    console = Console(file=text, width=100)
    with StatusDisplay(console, [Watched(job, tmp_path, 10) for job in jobs]) as display:
        jobs[0].state = "failed"
        jobs[0].failure = "the [end] of its log"
        display.update()
        display.update()
        console.print(display.table())
    shown = text.getvalue()
    assert shown.count("a, seed 0: failed (1 of 2 ended)\nthe [end] of its log\n") == 1
    assert "0/10" in shown
    assert "b, seed 0" not in shown
    assert "1 waiting" in shown


def test_the_live_table_is_drawn_on_a_terminal(tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    with StatusDisplay(console, [Watched(Job("a, seed 0", [], state="train"), tmp_path, 10)]):
        pass
    assert "a, seed 0" in text.getvalue()
