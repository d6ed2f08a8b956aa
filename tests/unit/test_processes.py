"""A pool whose processes an interrupt does not reach, not even while they start."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from mixreorg.processes import WorkerPool, _interrupts_held

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signal masks")


def interrupt_yourself(value: int) -> int:
    os.kill(os.getpid(), signal.SIGINT)
    return value + 1


def say_that_you_started(folder: Path) -> None:
    (folder / str(os.getpid())).touch()


def interrupt_the_new_ones(children: Path) -> int:
    """Send SIGINT to processes as soon as they exist, long before Python in them runs a line of ours."""
    sent = 0
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        for pid in children.read_text().split():
            os.kill(int(pid), signal.SIGINT)
            sent += 1
    return sent


def test_workers_survive_an_interrupt() -> None:
    with WorkerPool(2) as pool:
        assert list(pool.map(interrupt_yourself, range(6))) == [1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(sys.platform != "linux", reason="lists a process's children from /proc")
def test_workers_survive_an_interrupt_while_they_start(tmp_path: Path) -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with WorkerPool(2, say_that_you_started, (tmp_path,)) as pool:
        tracker = set(children.read_text().split())
        results = [pool.submit(abs, -number) for number in range(4)]
        assert set(children.read_text().split()) != tracker
        assert interrupt_the_new_ones(children) > 0
        assert [result.result(timeout=180) for result in results] == [0, 1, 2, 3]
    assert 1 <= len(list(tmp_path.iterdir())) <= 2


def test_this_process_is_interrupted_as_ever() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with WorkerPool(1) as pool:
        pool.submit(abs, -1).result(timeout=180)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_until_processes_have_started() -> None:
    """Another thread, as that of a progress bar, takes the signal that this one holds back."""
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()
    reached = []

    def hold() -> None:
        with _interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            reached.append("the end")

    try:
        with pytest.raises(KeyboardInterrupt):
            hold()
    finally:
        ended.set()
        other.join()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
