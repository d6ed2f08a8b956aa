"""A whole server, and its page in a real browser."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from mixreorg.serve.run import stay_here
from serve_kit import image_file

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WAIT = 180
# Every process of the server runs this first: it notes whoever leaves the machine.
WATCH = """
import os, sys
def note(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if str(host) not in ("127.0.0.1", "localhost", "::1", "None"):
        with open(os.environ["OUTGOING"], "a") as file:
            print(event, host, file=file)
sys.addaudithook(note)
"""


@dataclass(frozen=True)
class Server:
    address: str
    process: subprocess.Popen[str]
    outgoing: Path
    """Names whoever was asked for on other machines."""
    temporary: Path


def start(model_folder: Path, folder: Path, *options: str) -> Server:
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(WATCH)
    (folder / "tmp").mkdir()
    outgoing = folder / "outgoing"
    outgoing.touch()
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OUTGOING": str(outgoing), "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "mixreorg", "serve", "--model", str(model_folder), "--port", "0", *options]
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    announced = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    if not announced:
        pytest.fail(process.communicate()[1])
    return Server(announced[0], process, outgoing, folder / "tmp")


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(model_folder, tmp_path_factory.mktemp("server"))
    yield server
    server.process.send_signal(signal.SIGINT)
    _, errors = server.process.communicate(timeout=WAIT)
    assert (server.process.returncode, errors) == (0, "")
    assert list(server.temporary.iterdir()) == []  # no photo is left


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1280,1000")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@dataclass(frozen=True)
class Page:
    """The page, by what a person does on it."""

    driver: webdriver.Chrome

    def find(self, selector: str) -> Any:
        return WebDriverWait(self.driver, WAIT).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, selector))[0]

    def upload(self, photo: Path) -> None:
        self.find("#photo input[type=file]").send_keys(str(photo))
        self.find("#photo img")

    def write_names(self, names: str) -> None:
        field = self.find("#names textarea")
        field.clear()
        field.send_keys(names)

    def segment(self) -> None:
        self.find("#segment").click()

    def texts(self, selector: str) -> list[str]:
        """What can be read there, once all of it can: what fades in or stands in a hidden tab has no text yet."""

        def read(driver: webdriver.Chrome) -> list[str]:
            texts = [element.text for element in driver.find_elements(By.CSS_SELECTOR, selector)]
            return texts if all(texts) else []

        waiting = WebDriverWait(self.driver, WAIT, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(read)

    def legend(self, view: str = "classes") -> list[str]:
        return self.texts(f"#{view} .legend li b")

    def hover(self, selector: str) -> None:
        """Move there from elsewhere, until the class under the pointer is told: the picture may be loading yet."""

        def told(driver: webdriver.Chrome) -> bool:
            there = driver.find_element(By.CSS_SELECTOR, selector)
            ActionChains(driver).move_to_element_with_offset(there, 9, 9).move_to_element(there).perform()
            return bool(driver.find_elements(By.CSS_SELECTOR, "#classes .tip:not([hidden])"))

        WebDriverWait(self.driver, WAIT).until(told)

    def message(self) -> str:
        return self.texts(".toast-body")[0]

    def answer(self, told: Callable[[Any], bool]) -> None:
        """Wait until the downloaded JSON tells it."""

        def tells(driver: webdriver.Chrome) -> bool:
            links = driver.find_elements(By.CSS_SELECTOR, '#classes a[download="segmentation.json"]')
            return bool(links) and told(json.loads(self.download("segmentation.json")))

        waiting = WebDriverWait(self.driver, WAIT, ignored_exceptions=[StaleElementReferenceException])
        waiting.until(tells)

    def download(self, name: str) -> bytes:
        return base64.b64decode(self.find(f'#classes a[download="{name}"]').get_attribute("href").partition(",")[2])


@pytest.fixture
def page(browser: webdriver.Chrome, server: Server) -> Page:
    browser.get(server.address)
    return Page(browser)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(image_file(300, 240))
    return path


def requested(browser: webdriver.Chrome) -> list[str]:
    """Addresses of everything that pages have asked for since the last call."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    kept = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in kept]


def test_upload_names_legend_hover_groups_and_downloads(page: Page, server: Server, photo: Path) -> None:
    requested(page.driver)
    page.driver.refresh()
    page.upload(photo)
    page.write_names("dog, cat=cat|kitten, grass")
    page.segment()
    legend = page.legend()
    assert set(legend) <= {"background", "dog", "cat", "grass"}
    page.hover("#classes .veil")
    assert page.texts("#classes .tip:not([hidden])")[0].split(" · ")[0] in legend
    assert page.texts("#classes .legend li.lit b")[0] in legend
    with Image.open(io.BytesIO(page.download("labels.png"))) as labels:
        assert labels.size == (300, 240)
    answer = json.loads(page.download("segmentation.json"))
    assert {item["name"] for item in answer["classes"] if item["present"]} == set(legend)
    page.find("button[role=tab]:nth-of-type(2)").click()
    assert all(name.startswith("group ") for name in page.legend("groups"))
    addresses = requested(page.driver)
    assert len(addresses) > 10
    assert [url for url in addresses if not url.startswith((server.address, "data:", "blob:"))] == []
    assert server.outgoing.read_text() == ""


def test_an_example_is_segmented_by_a_click(page: Page) -> None:
    page.find(".table-wrap tbody tr").click()
    assert set(page.legend()) <= {"background", "horse", "book", "clock", "bus"}


def test_the_threshold_is_followed(page: Page, photo: Path) -> None:
    page.find("#automatic input").click()
    page.find("#background input[type=range]").send_keys(Keys.END)
    page.upload(photo)
    page.write_names("dog, cat")
    page.segment()
    page.legend()
    answer = json.loads(page.download("segmentation.json"))
    assert (answer["classes"][0]["name"], answer["protocol"]["background_threshold"]) == ("background", 1.0)


def test_the_threshold_is_moved_by_keys(page: Page, photo: Path) -> None:
    page.find("#automatic input").click()
    page.upload(photo)
    page.write_names("dog, cat")
    page.segment()
    page.answer(lambda answer: answer["protocol"]["background_threshold"] == 0.5)
    page.find("#background input[type=range]").send_keys(Keys.END)
    page.answer(lambda answer: answer["protocol"]["background_threshold"] == 1.0)


def test_what_is_asked_while_an_answer_is_pending_comes_next(page: Page, server: Server, photo: Path) -> None:
    page.upload(photo)
    server.process.send_signal(signal.SIGSTOP)
    try:
        for names in ("dog", "cat", "grass"):
            page.write_names(names)
            page.segment()
    finally:
        server.process.send_signal(signal.SIGCONT)
    page.answer(lambda answer: answer["classes"][-1]["name"] == "grass")


def test_a_refused_request_leaves_no_earlier_answer(page: Page, photo: Path) -> None:
    page.upload(photo)
    page.write_names("dog")
    page.segment()
    page.legend()
    page.write_names("dog, dog")
    page.segment()
    assert "listed twice" in page.message()
    assert "listed twice" in page.texts("#classes .waiting")[0]
    assert page.driver.find_elements(By.CSS_SELECTOR, ".view, .downloads") == []


def test_other_things_become_background(page: Page, photo: Path) -> None:
    page.upload(photo)
    page.write_names("dog")
    page.find("#negatives textarea").send_keys("sky, wall")
    page.segment()
    assert set(page.legend()) <= {"background", "dog"}
    answer = json.loads(page.download("segmentation.json"))
    assert [item["name"] for item in answer["negatives"]] == ["sky", "wall"]


def test_names_and_messages_are_text(page: Page, photo: Path) -> None:
    page.upload(photo)
    page.write_names("<img src=x onerror=alert(1)>, <script>alert(2)</script>")
    page.segment()
    assert "plain text" in page.message()
    page.driver.refresh()
    page.upload(photo)
    page.write_names('dog" onmouseover="alert(3), &lt;b&gt;')
    page.segment()
    assert set(page.legend()) <= {"background", 'dog" onmouseover="alert(3)', "&lt;b&gt;"}
    with pytest.raises(Exception, match="no such alert"):
        _ = page.driver.switch_to.alert.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "none of the formats"),
        (image_file()[:200], "the photo is damaged|cannot read the photo"),
    ],
    ids=["svg", "truncated"],
)
def test_bad_photos_are_messages(page: Page, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    page.find("#photo input[type=file]").send_keys(str(path))
    page.find("#photo img")
    page.write_names("dog, cat")
    page.segment()
    assert re.search(words, page.message())


def test_no_photo_is_a_message(page: Page) -> None:
    page.write_names("dog, cat")
    page.segment()
    assert "choose one first" in page.message()


def test_the_page_loads_its_documentation(page: Page, server: Server) -> None:
    requested(page.driver)
    page.driver.get(f"{server.address}/docs")
    assert "Segment a photo" in page.texts(".opblock-summary-description")[0]
    assert [url for url in requested(page.driver) if not url.startswith((server.address, "data:", "blob:"))] == []


def test_nobody_makes_the_server_fetch_and_sigterm_ends_it(model_folder: Path, tmp_path: Path) -> None:
    server = start(model_folder, tmp_path / "server")
    for path in ("file=http://192.0.2.1/a.png", "file=https://192.0.2.1/a.png", "proxy=http://192.0.2.1/a"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.address}/gradio_api/{path}")
        assert caught.value.code == 403
        caught.value.close()
    (tmp_path / "private.png").write_bytes(image_file())
    for path in ("http://192.0.2.1/a.png", str(tmp_path / "private.png"), "../private.png", "\0"):
        foreign = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for data in ([foreign, "dog", "", 0, False], [None, foreign, "", 0, False], [[foreign], "dog", "", 0, False]):
            with pytest.raises(urllib.error.HTTPError) as caught:
                press_segment(server, data)
            assert caught.value.code == 403
            caught.value.close()
    server.process.send_signal(signal.SIGTERM)
    _, errors = server.process.communicate(timeout=WAIT)
    assert (server.process.returncode, errors) == (143, "")
    assert list(server.temporary.iterdir()) == []


CHECK = """
import sys
from types import SimpleNamespace
from gradio.context import LocalContext
from gradio.processing_utils import _check_allowed
from mixreorg.segment.protocol import groupvit_protocol
from mixreorg.serve.limits import Limits
from mixreorg.serve.page import _build_page
LocalContext.blocks.set(_build_page(SimpleNamespace(limits=Limits(), protocol=groupvit_protocol(64))))
_check_allowed(sys.argv[1], check_in_upload_folder=True)
"""


def test_gradio_too_checks_that_files_are_uploads(tmp_path: Path) -> None:
    (tmp_path / "private.png").write_bytes(image_file())
    command = [sys.executable, "-c", CHECK, str(tmp_path / "private.png")]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert "InvalidPathError: Cannot move" in checked.stderr
    assert "not uploaded by a user" in checked.stderr


def press_segment(server: Server, data: list[Any]) -> str:
    """What a program does that sends the page's form by itself; the line of Gradio's event stream with the result."""
    with urllib.request.urlopen(f"{server.address}/config") as config:
        dependencies = json.load(config)["dependencies"]
    index = next(item["id"] for item in dependencies if len(item["inputs"]) == len(data))
    body = json.dumps({"data": data, "fn_index": index, "session_hash": "x"}).encode()
    join = urllib.request.Request(
        f"{server.address}/gradio_api/queue/join", body, {"content-type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(join).close()
    with urllib.request.urlopen(f"{server.address}/gradio_api/queue/data?session_hash=x", timeout=WAIT) as events:
        return next(line.decode() for line in events if b"process_completed" in line)


@pytest.mark.parametrize("host", ["192.0.2.1", b"example.com", "example.com", "::2"])
def test_other_machines_are_refused(host: str | bytes) -> None:
    for event, arguments in (
        ("socket.getaddrinfo", (host, 80)),
        ("socket.connect", (None, (host, 80))),
        ("socket.sendto", (None, (host, 53))),
    ):
        with pytest.raises(PermissionError, match="asks no other machine"):
            stay_here(event, arguments)


def test_this_machine_is_not_refused() -> None:
    for host in ("127.0.0.1", "::1", "localhost", None, b"localhost"):
        stay_here("socket.getaddrinfo", (host, 80))
    stay_here("socket.connect", (None, "/run/socket"))
    stay_here("open", ("192.0.2.1", "r", 0))


def serve(*options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "mixreorg", "serve", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT)
    return ended.returncode, ended.stderr


def test_what_a_person_can_do_wrong_is_one_message(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        code, message = serve("--port", str(taken.getsockname()[1]))
    assert code == 2
    assert message.startswith("error: cannot listen at 127.0.0.1")
    assert "choose another port" in message
    code, message = serve("--port", "0", "--host", "192.0.2.1")
    assert (code, "give an address of this machine" in message) == (2, True)
    for host in ("127..0.1", "ä..x"):
        code, message = serve("--port", "0", "--host", host)
        assert (code, "give an address of this machine" in message) == (2, True)
    code, message = serve("--max-classes", "300")
    assert code == 2
    assert message.startswith("error: serve options")
    code, message = serve("--port", "0", "--model", str(tmp_path / "nothing"))
    assert code == 2
    assert message.startswith("error: ")
    assert "nothing" in message


def test_the_server_alone_loads_neither_torch_nor_gradio() -> None:
    script = "import sys, mixreorg.serve.run; print([name for name in ('gradio', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
