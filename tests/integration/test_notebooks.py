"""The notebooks are executed with small numbers; what is committed holds no outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


@pytest.fixture
def folder(tmp_path: Path, tiny_model: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with a random model in place of the trained one and few, short steps."""
    save_model(tiny_model, tmp_path / "model")
    settings = {"MODEL": str(tmp_path / "model"), "SCENES": "64", "STEPS": "3"}
    for name, value in settings.items():
        monkeypatch.setenv(f"MIXREORG_{name}", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path


def run(path: Path, folder: Path) -> list[dict]:
    """Outputs of all cells; an error of a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    # A busy machine sends outputs late; without patience they would be missing from the result.
    patience = {"timeout": 240, "startup_timeout": 120, "iopub_timeout": 60, "raise_on_iopub_timeout": True}
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **patience).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pictures(outputs: list[dict]) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_segment_your_photo(folder: Path) -> None:
    outputs = run(NOTEBOOKS / "segment_your_photo.ipynb", folder)
    assert pictures(outputs) == 4
    assert (folder / "masks" / "photo_overlay.png").is_file()


def test_train_on_your_captions(folder: Path) -> None:
    outputs = run(NOTEBOOKS / "train_on_your_captions.ipynb", folder)
    assert pictures(outputs) == 2
    assert any("present_miou" in output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_outputs_are_not_committed(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)
