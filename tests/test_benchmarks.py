"""What the scripts in ``benchmarks`` say where they cannot begin or a child of theirs fails."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def script(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ModuleType:
    """A script, whose ``main`` will read these arguments."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    return importlib.import_module(name)


def test_a_failing_childs_message_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    harness = importlib.import_module("harness")
    assert harness.run_child([sys.executable, "-c", "print(7)"]) == "7\n"
    with pytest.raises(SystemExit, match="failed with 3"):
        harness.run_child([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])
    assert "why" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "library"), [("loader", "webdataset"), ("shard_index", "wids")])
def test_a_missing_peer_is_said_at_the_start(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = script(name, monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match=rf"^{library} is missing: pip install 'mixreorg\[bench\]'"):
        benchmark.main()


def test_an_unknown_variant_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        script("engine_options", monkeypatch, "--only", "b16").main()
    assert caught.value.code == 2
    assert "invalid choice: 'b16'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["export_accuracy", "honesty"])
def test_models_have_names(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if name == "export_accuracy":
        pytest.importorskip("openvino")
    benchmark, asked = script(name, monkeypatch, "scenes-tiny", str(tmp_path)), []

    def load(model: object) -> None:
        asked.append(model)
        raise SystemExit

    monkeypatch.setattr(benchmark, "load_model", load)
    monkeypatch.setattr(benchmark, "open_voc_split", lambda *_: None)
    with pytest.raises(SystemExit):
        benchmark.main()
    assert asked == ["scenes-tiny"]


def test_rates_are_medians(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    benchmark = script("processes", monkeypatch)
    lines = "".join(f'{{"train/pairs_per_second": {rate}}}\n' for rate in (1, 10, 30))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text(lines)
    monkeypatch.setattr(benchmark, "run_child", lambda *_: "")
    # The first record counts the start; of two others the mean is the median.
    assert benchmark.rate(tmp_path, "run", 1, 1, 64, 30) == 20
