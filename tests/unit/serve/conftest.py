"""A saved tiny model, and one process that serves it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import serve_kit
from mixreorg.models.dual_encoder import DualEncoder, DualEncoderConfig
from mixreorg.models.folder import save_model
from mixreorg.serve.limits import Limits
from mixreorg.serve.model_process import ModelProcess
from mixreorg.serve.service import Service
from mixreorg.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: DualEncoderConfig, tokenizer: Tokenizer
) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    save_model(DualEncoder(tiny_config, tokenizer), folder)
    return folder


@pytest.fixture(scope="session")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that a hanging answer makes; the model's process inherits its name."""
    path = tmp_path_factory.mktemp("marker") / "hangs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(serve_kit.MARKER, str(path))
        yield path


@pytest.fixture(scope="session")
def process(model_folder: Path, marker: Path) -> Iterator[ModelProcess]:
    """One for all tests: starting it takes seconds. Tests that kill it leave the next one a living one."""
    process = ModelProcess(str(model_folder), "cpu", Limits(max_seconds=20))
    process.start()
    yield process
    process.close()


@pytest.fixture
def make_service(process: ModelProcess) -> Callable[..., Service]:
    def make(**limits: float) -> Service:
        return Service(process, Limits(**limits))  # type: ignore[arg-type]

    return make
