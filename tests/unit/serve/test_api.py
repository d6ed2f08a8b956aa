"""The HTTP API as a client meets it."""

import asyncio
import base64
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from mixreorg.interop.loading import load_model
from mixreorg.segment.segmenter import Segmenter
from mixreorg.serve.app import create_app
from mixreorg.serve.schema import SegmentAnswer
from mixreorg.serve.service import Service
from serve_kit import BAD_PHOTOS, TRUNCATED, image_file

NAMES = "dog, cat=cat|kitten, grass"


@pytest.fixture
def open_client(make_service: Callable[..., Service]) -> Iterator[Callable[..., TestClient]]:
    opened = []

    def open_it(**limits: float) -> TestClient:
        client = TestClient(create_app(make_service(**limits)))
        client.__enter__()
        opened.append(client)
        return client

    yield open_it
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(open_client: Callable[..., TestClient]) -> TestClient:
    return open_client()


def post(client: TestClient, photo: bytes | None = None, **fields: Any) -> Any:
    content = image_file() if photo is None else photo
    return client.post("/segment", files={"photo": ("a.png", content)}, data={"classes": NAMES, **fields})


def error_of(response: Any, status: int) -> str:
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    text = response.json()["error"]
    assert isinstance(text, str)
    return text


def test_json_is_the_segmenters_result(client: TestClient, model_folder: Path) -> None:
    answer = post(client).json()
    expected = Segmenter(load_model(model_folder))(image_file(), NAMES)
    image = Image.open(io.BytesIO(base64.b64decode(answer.pop("label_map_png"))))
    np.testing.assert_array_equal(np.asarray(image), expected.label_map)
    values = expected.to_dict("a.png")
    for item, expected_item in zip(answer["classes"], values["classes"], strict=True):
        for name in ("score", "presence_score"):
            assert item.pop(name) == pytest.approx(expected_item.pop(name), rel=1e-5)
    assert answer == values


def test_the_documented_answer_is_the_answer(client: TestClient) -> None:
    answer = post(client, background="0.5").json()
    assert SegmentAnswer.model_validate(answer, strict=True, extra="forbid").model_dump() == answer
    assert answer["classes"][0]["name"] == "background"
    assert answer["protocol"]["background_threshold"] == 0.5


def test_negatives_and_a_threshold_of_the_photo(client: TestClient, model_folder: Path) -> None:
    answer = post(client, negatives="sky, wall", background="auto").json()
    expected = Segmenter(load_model(model_folder))(image_file(), NAMES, negatives="sky, wall", background="auto")
    assert answer["background"] == expected.to_dict()["background"]
    assert answer["background"]["rule"] == "otsu"
    assert answer["negatives"] == expected.to_dict()["negatives"]
    assert [item["name"] for item in answer["negatives"]] == ["sky", "wall"]


def test_pictures(client: TestClient) -> None:
    labels = post(client, answer="labels")
    assert labels.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(labels.content)).mode == "P"
    overlay = Image.open(io.BytesIO(post(client, answer="overlay").content))
    assert overlay.mode == "RGB"
    assert overlay.height / overlay.width > 40 / 48  # the legend is below


@pytest.mark.parametrize(("photo", "status"), BAD_PHOTOS.values(), ids=BAD_PHOTOS)
def test_bad_photos(client: TestClient, photo: bytes, status: int) -> None:
    assert "photo" in error_of(post(client, photo), status)


@pytest.mark.parametrize("photo", TRUNCATED.values(), ids=TRUNCATED)
def test_truncated_photos(client: TestClient, photo: bytes) -> None:
    message = error_of(post(client, photo), 422)
    assert re.search("^(the photo is damaged|cannot read the photo)", message)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classes": "<b>dog</b>"}, "plain text"),
        ({"classes": "d\x07og"}, "control character"),
        ({"classes": ",".join(map(str, range(10_000)))}, "10,000 classes"),
        ({"classes": "@/etc/passwd"}, "cannot be read from a file"),
        ({"classes": "dog, background", "background": "0.5"}, "leave it out"),
        ({"background": "2"}, "between 0 and 1"),
        ({"background": "high"}, "'high' must lie between 0 and 1, or be 'auto'"),
        ({"background": "nan"}, "'nan' must lie between 0 and 1"),
        ({"negatives": "<b>dog</b>"}, "plain text"),
        ({"negatives": "grass, dog"}, "share a name"),
        ({"answer": "gif"}, "answer: Input should be 'json', 'labels' or 'overlay'"),
        ({"treshold": "0.5"}, "there is no field 'treshold'"),
        ({"classes": ["ball", "car"]}, "the field 'classes' is there twice"),
        ({"classes": ""}, "classes: the field is missing or empty"),
    ],
)
def test_bad_fields(client: TestClient, fields: dict[str, Any], words: str) -> None:
    assert words in error_of(post(client, **fields), 422)


def test_missing_fields(client: TestClient) -> None:
    error_of(client.post("/segment", files={"photo": image_file()}), 422)
    text = client.post("/segment", files={"photo": (None, "text"), "classes": (None, NAMES)})
    assert error_of(text, 422) == "photo: the field is no file; send it with a file name"
    for content in ({"data": {"classes": NAMES}}, {"json": {}}, {"content": b""}):
        assert "no multipart form" in error_of(client.post("/segment", **content), 400)
    broken = {"content-type": "multipart/form-data; boundary=x"}
    error_of(client.post("/segment", content=b"--y\r\n\r\n", headers=broken), 400)
    error_of(client.get("/nothing"), 404)
    spelled = {"content-type": "Multipart/Form-Data; boundary=x"}
    assert error_of(client.post("/segment", content=b"--x--\r\n", headers=spelled), 422).startswith("photo: ")


def test_a_file_name_of_half_characters(client: TestClient) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%b\r\n\r\n%b\r\n'
    body = part % (b'photo"; filename="\\ud800.png"', image_file()) + part % (b'classes"', b"dog, cat") + b"--x--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=x; charset=unicode_escape"}
    response = client.post("/segment", content=body, headers=headers)
    assert (response.status_code, response.json()["photo"]) == (200, "?.png")


def test_other_methods_are_refused_also_where_the_page_takes_all_paths(make_service: Callable[..., Service]) -> None:
    app = create_app(make_service())
    app.mount("/", lambda scope, receive, send: pytest.fail("the page was asked"))
    with TestClient(app) as client:
        for path, allowed in (("/segment", "POST"), ("/health", "GET"), ("/metrics", "GET")):
            for method in {"GET", "POST", "PUT", "DELETE", "TRACE"} - {allowed}:
                response = client.request(method, path)
                assert error_of(response, 405) == f"the method here is {allowed}"
                assert response.headers["allow"] == allowed
        assert post(client).status_code == 200
        assert "/segment" in client.get("/openapi.json").json()["paths"]
        assert set(client.get("/openapi.json").json()["paths"]["/segment"]) == {"post"}


def test_too_many_bytes(open_client: Callable[..., TestClient]) -> None:
    client = open_client(max_bytes=5000)
    assert "5,000 bytes" in error_of(post(client, b"x" * 6000), 413)

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="photo"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 100

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert "5,000 bytes" in error_of(client.post("/segment", content=chunks(), headers=headers), 413)
    assert post(client, image_file()).status_code == 200


def test_no_place_and_no_time(make_service: Callable[..., Service], open_client: Callable[..., TestClient]) -> None:
    service = make_service(max_waiting=1)
    service._num_admitted = 1
    with TestClient(create_app(service)) as full:
        response = post(full)
        assert "try again" in error_of(response, 503)
        assert response.headers["retry-after"] == "1"
        service._num_admitted = 0
        assert post(full).status_code == 200
        assert service._num_admitted == 0
    assert "within" in error_of(post(open_client(max_seconds=1e-4)), 504)


FORM = httpx.Request("POST", "http://a/segment", files={"photo": ("a.png", image_file())}, data={"classes": NAMES})


async def post_to(service: Service, receive: Callable[[], Any], sent: list[Any]) -> None:
    """Post the form to an application whose queue nothing serves: while the client is there, it waits."""

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.lower(), value) for name, value in FORM.headers.raw]
    scope = {"type": "http", "method": "POST", "path": "/segment", "query_string": b"", "headers": headers}
    await create_app(service)(scope, receive, send)


def test_a_client_that_leaves_gives_its_place_back(make_service: Callable[..., Service]) -> None:
    service = make_service(max_seconds=10)
    sent: list[Any] = []
    waited: list[int] = []
    messages = [{"type": "http.request", "body": FORM.read(), "more_body": False}]

    async def receive() -> Any:
        while not messages and not service.queue._waiting:
            await asyncio.sleep(0.01)
        waited.append(len(service.queue._waiting))
        return messages.pop() if messages else {"type": "http.disconnect"}

    asyncio.run(post_to(service, receive, sent))
    assert (waited, len(service.queue._waiting), service._num_admitted, sent) == ([0, 1], 0, 0, [])
    assert b'mixreorg_requests_total{status="499"} 1.0' in service.metrics.as_text()[0]


def test_a_client_that_leaves_during_its_upload_is_counted_as_such(make_service: Callable[..., Service]) -> None:
    service = make_service(max_seconds=10)
    sent: list[Any] = []
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": FORM.read()[:200], "more_body": True}]

    async def receive() -> Any:
        return messages.pop()

    asyncio.run(post_to(service, receive, sent))
    assert (service._num_admitted, sent) == (0, [])
    assert b'mixreorg_requests_total{status="499"} 1.0' in service.metrics.as_text()[0]
    assert b'status="400"' not in service.metrics.as_text()[0]


def test_a_server_that_ends_says_so(make_service: Callable[..., Service]) -> None:
    service = make_service(max_seconds=10)
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": FORM.read(), "more_body": False}]

    async def receive() -> Any:
        if not messages:
            await asyncio.sleep(20)
        return messages.pop()

    async def end() -> None:
        # As uvicorn does with requests that are not answered in time.
        request = asyncio.create_task(post_to(service, receive, sent))
        while not service.queue._waiting:
            await asyncio.sleep(0.01)
        request.cancel()
        await request

    asyncio.run(end())
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"10")
    assert b"being ended" in sent[1]["body"]
    assert (len(service.queue._waiting), service._num_admitted) == (0, 0)
    assert b'mixreorg_requests_total{status="503"} 1.0' in service.metrics.as_text()[0]


def test_a_defect_says_nothing_of_the_server(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()

    async def fail(*_: Any) -> None:
        raise ZeroDivisionError("secret path")

    monkeypatch.setattr(service, "segment", fail)
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        assert error_of(post(client), 500) == "a defect of the server; its log says more"
        assert 'mixreorg_requests_total{status="500"} 1.0' in client.get("/metrics").text


def test_health_and_metrics(client: TestClient) -> None:
    post(client)
    post(client, b"")
    health = client.get("/health").json()
    assert (health["status"], health["model"]) == ("ready", "tiny")
    text = client.get("/metrics").text
    for line in (
        'mixreorg_requests_total{status="200"} 1.0',
        'mixreorg_requests_total{status="422"} 1.0',
        "mixreorg_request_seconds_count 2.0",
        "mixreorg_batch_photos_sum 1.0",
        "mixreorg_waiting 0.0",
        f"mixreorg_model_restarts {float(health['restarts'])}",
    ):
        assert line in text.splitlines()
    assert "process_resident_memory_bytes" in text


def test_health_while_the_model_is_gone(client: TestClient, make_service: Callable[..., Service]) -> None:
    service = make_service()
    service.process = type("Gone", (), {"process_id": None, "model_name": "tiny", "restarts": 1})()  # type: ignore[assignment]
    with TestClient(create_app(service)) as gone:
        response = gone.get("/health")
    assert (response.status_code, response.json()["status"]) == (503, "starting")


def test_the_documentation_is_complete_and_fetches_nothing_from_elsewhere(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/segment", "/health", "/metrics"}
    assert set(schema["paths"]["/segment"]["post"]["responses"]) == {"200", "400", "413", "415", "422", "503", "504"}
    for path in ("/docs", "/redoc"):
        page = client.get(path)
        assert page.status_code == 200
        sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert sources
        for source in sources:
            assert source.startswith("/static-offline-docs/")
            assert client.get(source).status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
