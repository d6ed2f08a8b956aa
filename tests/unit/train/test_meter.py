"""Rates on a clock that the test turns by hand, and memory of this very process."""

import time
from pathlib import Path

import pytest
import torch

from mixreorg.train import meter as module
from mixreorg.train.meter import Meter


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu = 7.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.cpu


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def step(meter: Meter, clock: Clock, wait: float, work: float, flops_per_pair: float = 0.0) -> None:
    clock.now += wait
    meter.data_ready()
    clock.now += work
    meter.step_done(flops_per_pair)


def test_rates_cover_the_steps_since_the_last_reading(clock: Clock):
    meter = Meter(10, 100, 64)
    for _ in range(4):
        step(meter, clock, wait=0.5, work=1.5)
    values = meter.read()
    assert values["pairs_per_second"] == pytest.approx(32)
    assert values["data_wait_share"] == pytest.approx(0.25)
    assert values["eta_seconds"] == pytest.approx(86 * 2.0)
    step(meter, clock, wait=0.0, work=1.0)
    values = meter.read()
    assert values["pairs_per_second"] == pytest.approx(64)
    assert values["data_wait_share"] == 0
    assert values["eta_seconds"] == pytest.approx(85)


def test_pauses_count_neither_as_work_nor_as_waiting(clock: Clock):
    meter = Meter(0, 10, 8)
    step(meter, clock, wait=0.0, work=1.0)
    clock.now += 50
    meter.exclude_pause()
    step(meter, clock, wait=1.0, work=2.0)
    values = meter.read()
    assert values["pairs_per_second"] == pytest.approx(2 * 8 / 4)
    assert values["data_wait_share"] == pytest.approx(0.25)


def test_a_pause_after_a_reading_is_left_out_of_the_next_one(clock: Clock):
    meter = Meter(0, 10, 8)
    step(meter, clock, wait=0.0, work=1.0)
    meter.read()
    clock.now += 50
    meter.exclude_pause()
    step(meter, clock, wait=0.0, work=1.0)
    assert meter.read()["pairs_per_second"] == pytest.approx(8)


def test_cores_at_work_leave_pauses_out(clock: Clock):
    meter = Meter(0, 10, 8)
    clock.cpu += 3.0
    step(meter, clock, wait=0.0, work=2.0)
    clock.now += 50
    clock.cpu += 90
    meter.exclude_pause()
    assert meter.read()["cpu_cores"] == pytest.approx(1.5)
    clock.cpu += 4.0
    step(meter, clock, wait=1.0, work=1.0)
    assert meter.read()["cpu_cores"] == pytest.approx(2)


def test_mfu_is_the_share_of_the_peak_and_absent_without_it(clock: Clock):
    meter = Meter(0, 10, 8, peak_flops=1e12)
    step(meter, clock, wait=0.0, work=0.1, flops_per_pair=5e9)
    assert meter.read()["mfu"] == pytest.approx(80 * 5e9 / 1e12)
    # Steps of shorter captions do less.
    step(meter, clock, wait=0.0, work=0.1, flops_per_pair=4e9)
    step(meter, clock, wait=0.0, work=0.1, flops_per_pair=2e9)
    assert meter.read()["mfu"] == pytest.approx(80 * 3e9 / 1e12)
    assert "mfu" not in Meter(0, 10, 8, peak_flops=1e12).read()
    unknown = Meter(0, 10, 8)
    unknown.step_done(5e9)
    assert "mfu" not in unknown.read()


def test_memory_follows_what_this_process_holds():
    meter = Meter(0, 10, 8)
    before = meter.read()["memory_gib"]
    held = torch.ones(64 * 2**20)
    after = meter.read()["memory_gib"]
    assert 0.2 < after - before < 0.35
    del held


def test_memory_is_told_without_proc(monkeypatch):
    pytest.importorskip("resource")
    current = Meter(0, 10, 8).read()["memory_gib"]

    def unreadable(self: Path, **_: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", unreadable)
    peak = Meter(0, 10, 8).read()["memory_gib"]
    assert current * 0.9 <= peak < current * 10


class FakeEvent:
    """A CUDA event of a device that works off its queue on the same clock."""

    def __init__(self, device: "FakeDevice") -> None:
        self._device = device

    def record(self, stream: object) -> None:
        self.at = max(self._device.clock.now, self._device.busy_until)

    def synchronize(self) -> None:
        self._device.clock.now = max(self._device.clock.now, self.at)

    def elapsed_time(self, later: "FakeEvent") -> float:
        return (later.at - self.at) * 1000


class FakeDevice:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.busy_until = clock.now

    def work(self, seconds: float) -> None:
        self.busy_until = max(self.clock.now, self.busy_until) + seconds


@pytest.fixture
def cuda(clock: Clock, monkeypatch):
    device = FakeDevice(clock)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: FakeEvent(device))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    return device


@pytest.mark.parametrize(("wait", "idle"), [(0.9, 0.0), (1.5, 0.5)], ids=["hidden", "starved"])
def test_a_cuda_device_waits_only_while_it_is_idle(clock: Clock, cuda: FakeDevice, wait: float, idle: float):
    meter = Meter(0, 100, 8, device=torch.device("cuda"))
    for _ in range(20):
        clock.now += wait
        meter.data_ready()
        cuda.work(1.0)
        meter.step_done()
    clock.now = cuda.busy_until
    values = meter.read()
    # The device stands still before the first batch in any case.
    assert values["data_wait_share"] == pytest.approx((wait + 19 * idle) / (clock.now - 100), abs=1e-6)
    assert values["memory_gib"] == 3


@pytest.mark.gpu
def test_idle_time_and_peak_memory_on_a_true_device():
    device = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=device)
    meter = Meter(0, 100, 8, device=device)
    for _ in range(10):
        time.sleep(0.05)
        meter.data_ready()
        for _ in range(4):
            matrix @ matrix
        meter.step_done()
    assert meter.read()["data_wait_share"] > 0.5
    held = torch.empty(2**28, device=device)
    del held
    assert meter.read()["memory_gib"] > 1
    assert meter.read()["memory_gib"] < 1
