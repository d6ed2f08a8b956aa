"""A server of an exported model answers as one of the model itself, and loads no torch for it."""

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_kit import CLASSES, photo
from PIL import Image
from starlette.testclient import TestClient

import serve_kit
from mixreorg.errors import MixreorgError
from mixreorg.export.exporter import export_model
from mixreorg.models.dual_encoder import DualEncoder
from mixreorg.models.folder import save_model
from mixreorg.segment.segmenter import Segmenter
from mixreorg.serve.app import create_app
from mixreorg.serve.limits import Limits
from mixreorg.serve.model_process import ModelProcess
from mixreorg.serve.service import Service
from mixreorg.serve.worker import Job


@pytest.fixture(scope="module")
def process(exports: Path) -> Iterator[ModelProcess]:
    process = ModelProcess(str(exports / "onnx"), "cpu", Limits())
    process.start()
    yield process
    process.close()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def answers(process: ModelProcess, render: Any) -> Any:
    return asyncio.run(process.segment([Job(png(photo()), CLASSES, None, render)]))[0]


def test_answers_are_the_models(process: ModelProcess, segmenter: Segmenter) -> None:
    with TestClient(create_app(Service(process, Limits()))) as client:
        for size, fields in (((100, 75), {}), ((60, 90), {"background": 0.5, "negatives": "sky"})):
            expected = segmenter(photo(*size), CLASSES, **fields)
            data = {"classes": "dog, cat=cat|kitten, car", **fields}
            answer = client.post("/segment", files={"photo": png(photo(*size))}, data=data)
            assert answer.status_code == 200, answer.text
            labels = Image.open(io.BytesIO(base64.b64decode(answer.json()["label_map_png"])))
            np.testing.assert_array_equal(np.asarray(labels), expected.label_map)
            for item, known in zip(answer.json()["classes"], expected.to_dict()["classes"], strict=True):
                assert item["presence_score"] == pytest.approx(known["presence_score"], abs=1e-4)
        refused = client.post("/segment", files={"photo": png(photo(2000, 4))}, data={"classes": "dog"})
        assert (refused.status_code, "thinner than one patch" in refused.text) == (422, True)


def test_groups_are_the_models(process: ModelProcess, model: DualEncoder, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model")
    itself = ModelProcess(str(tmp_path / "model"), "cpu", Limits())
    itself.start()
    try:
        expected, found = (answers(each, serve_kit.name_groups) for each in (itself, process))
    finally:
        itself.close()
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[0].shape == (75, 100)
    assert found[1] == expected[1]
    np.testing.assert_allclose(found[2], expected[2], atol=1e-5)


def test_no_torch_is_loaded(process: ModelProcess) -> None:
    assert answers(process, serve_kit.loads_torch) is False


def test_exports_that_cannot_be_served(exports: Path, model: DualEncoder, tmp_path: Path) -> None:
    export_model(model, tmp_path / "fixed", size=(32, 32))
    refusals = {
        (exports / "baked.onnx", "cpu"): "classes baked in, .* export without --classes",
        (tmp_path / "fixed", "cpu"): "windows of one size, .* export without --size",
        (exports / "onnx", "cuda"): "runs on the CPU, not on 'cuda'",
    }
    for (source, device), message in refusals.items():
        with pytest.raises(MixreorgError, match=message):
            ModelProcess(str(source), device, Limits()).start()
