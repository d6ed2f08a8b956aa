"""The queue with small programs in place of training."""

import os
import signal
import sys
import threading
import time

import pytest

from mixreorg.ablate import queue
from mixreorg.ablate.queue import Job, Slot, Stage, make_slots, run_jobs
from mixreorg.errors import MixreorgError

PLAIN = Slot(None, 1, None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)


def job(folder, name, *programs):
    stages = ("train", "measure")
    return Job(
        name,
        [
            Stage(stage, (sys.executable, "-S", "-c", program), folder / name / "log")
            for stage, program in zip(stages, programs, strict=False)
        ],
    )


def test_a_failing_job_is_reported_with_the_end_of_its_log_and_stops_no_other(tmp_path):
    noise = "print(*range(100), sep='\\n', flush=True); raise SystemExit(3)"
    jobs = [job(tmp_path, "bad", noise, "open('never', 'w')"), job(tmp_path, "good", "pass", "open('there', 'w')")]
    assert run_jobs(jobs, [PLAIN], tmp_path, lambda: None) is None
    assert [item.state for item in jobs] == ["failed", "finished"]
    lines = jobs[0].failure.splitlines()
    assert lines[0] == f"train ended with exit code 3; the end of {tmp_path / 'bad' / 'log'}:"
    assert lines[1:] == [str(number) for number in range(85, 100)]
    assert (tmp_path / "there").exists()
    assert not (tmp_path / "never").exists()


def test_two_workers_work_at_the_same_time_and_one_does_not(tmp_path):
    # Each waits for the other's file: alone it would wait for ever, so it gives up.
    meet = (
        "import os, time\nopen('{0}', 'w').close()\nend = time.monotonic() + {2}\n"
        "while not os.path.exists('{1}'):\n    time.sleep(0.01)\n    assert time.monotonic() < end"
    )
    jobs = [job(tmp_path, "a", meet.format("a1", "b1", 20)), job(tmp_path, "b", meet.format("b1", "a1", 20))]
    run_jobs(jobs, [PLAIN, Slot(None, 1, None)], tmp_path, lambda: None)
    assert [item.state for item in jobs] == ["finished", "finished"]
    jobs = [job(tmp_path, "a", meet.format("a2", "b2", 0.2)), job(tmp_path, "b", "pass")]
    run_jobs(jobs, [PLAIN], tmp_path, lambda: None)
    assert [item.state for item in jobs] == ["failed", "finished"]


def test_processes_get_their_share_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "here")
    monkeypatch.chdir(tmp_path)
    program = (
        "import os, time\ntime.sleep(0.1)\nnames = ('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES', 'PYTHONPATH')\n"
        "cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None\n"
        "open('facts', 'w').write(repr((*(os.environ[name] for name in names), cores)))"
    )
    bound = hasattr(os, "sched_getaffinity")
    core = max(os.sched_getaffinity(0)) if bound else 0
    slot = Slot((core,) if bound else None, 3, "5")
    (tmp_path / "out").mkdir()
    run_jobs([job(tmp_path, "a", program)], [slot], tmp_path / "out", lambda: None)
    assert (tmp_path / "out" / "facts").read_text() == repr(
        ("3", "5", str(tmp_path / "here"), [core] if bound else None)
    )


def test_what_a_process_has_used_is_told(tmp_path):
    ends = []
    item = job(
        tmp_path, "a", "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass", "pass"
    )
    item.ended = lambda end, slot: ends.append((end.stage.name, end, slot))
    run_jobs([item], [PLAIN], tmp_path, lambda: None)
    assert [name for name, _, _ in ends] == ["train", "measure"]
    assert ends[0][1].seconds >= 0.3
    if hasattr(os, "wait4"):
        assert 0.3 <= ends[0][1].cpu_seconds < 5
        assert ends[1][1].cpu_seconds < ends[0][1].cpu_seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_jobs_save_and_starts_no_other(tmp_path, number):
    saves = (
        "import signal, sys, time\n"
        "def save(*_):\n    open('saved', 'w').close()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\nopen('ready', 'w').close()\ntime.sleep(60)"
    )
    jobs = [job(tmp_path, "a", saves, "pass"), job(tmp_path, "b", "open('never', 'w')")]

    def tell():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=tell)
    thread.start()
    stopped = run_jobs(jobs, [PLAIN], tmp_path, lambda: None)
    thread.join()
    assert stopped == ("terminate" if number == signal.SIGTERM else "interrupt")
    assert [item.state for item in jobs] == ["stopped", "waiting"]
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "never").exists()


def test_no_process_outlives_a_queue_that_fails(tmp_path):
    def fail():
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise RuntimeError("display")

    program = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    with pytest.raises(RuntimeError, match="display"):
        run_jobs([job(tmp_path, "a", program)], [PLAIN], tmp_path, fail)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_no_process_outlives_an_account_that_cannot_be_written(tmp_path):
    def full(end, slot):
        raise MixreorgError("disk full")

    # The first is over when the account of it fails, the second in the middle of its work.
    other = "import os, time\nopen('part', 'w').write(str(os.getpid()))\nos.rename('part', 'pid')\ntime.sleep(60)"
    jobs = [job(tmp_path, "a", "import os\nwhile not os.path.exists('pid'): pass"), job(tmp_path, "b", other)]
    jobs[0].ended = full
    with pytest.raises(MixreorgError, match="disk full"):
        run_jobs(jobs, [PLAIN, Slot(None, 1, None)], tmp_path, lambda: None)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_cores_and_devices_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5, 6}, raising=False)
    assert [(slot.cores, slot.threads, slot.gpu) for slot in make_slots(2, "cpu")] == [
        ((0, 1), 2, None),
        ((2, 5, 6), 3, None),
    ]
    assert [slot.cores for slot in make_slots(7, "cpu")[:2]] == [(0,), (0,)]
    assert all(len(slot.cores) == slot.threads == 1 for slot in make_slots(7, "cpu"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert [slot.gpu for slot in make_slots(3, "cuda")] == ["3", "4", "3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [slot.threads for slot in make_slots(1, "cpu")] == [2]
    with pytest.raises(MixreorgError, match="--workers 0"):
        make_slots(0, "cpu")
