"""Starting and ending a server."""

import contextlib
import errno
import ipaddress
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from mixreorg.errors import MixreorgError
from mixreorg.serve.app import create_app
from mixreorg.serve.guard import UPLOADS
from mixreorg.serve.limits import Limits
from mixreorg.serve.model_process import ModelProcess
from mixreorg.serve.service import Service


def serve(
    model: str, *, host: str, port: int, device: str, limits: Limits, page: bool, announce: Callable[[str], None]
) -> None:
    """Serve a model until interrupted.

    Args:
        model: what :func:`mixreorg.load_model` reads, or the folder of an export.
        host: address to listen at.
        port: 0 for a free one.
        device: where the model works.
        limits: of requests.
        page: with the page, or the API alone.
        announce: is told the address once requests are answered.

    Raises:
        MixreorgError: no such model, or an address that cannot be listened at.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listen(host, port))
        stack.enter_context(_terminated_in_order())
        process = ModelProcess(model, device, limits)
        stack.callback(process.close)
        process.start()
        service = Service(process, limits)
        app = create_app(service)
        if page:
            stack.enter_context(_private_gradio())
            sys.addaudithook(stay_here)
            from mixreorg.serve.page import mount_page

            mount_page(app, service)
        shown = f"[{host}]" if ":" in host else host
        _run(app, listening, lambda: announce(f"http://{shown}:{listening.getsockname()[1]}"))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, TypeError) as error:
        # Python makes an error of its own of the one that says that there is no such host; TypeError: no name at all.
        is_unknown = isinstance(error, TypeError) or isinstance(error.__context__, socket.gaierror)
        is_host = is_unknown or getattr(error, "errno", None) == errno.EADDRNOTAVAIL
        remedy = "give an address of this machine, for example 127.0.0.1" if is_host else "choose another port"
        raise MixreorgError(
            f"cannot listen at {host}, port {port}: {getattr(error, 'strerror', None) or error}; {remedy}"
        ) from error


@contextlib.contextmanager
def _private_gradio() -> Iterator[None]:
    """Gradio without reports to its makers, and with its files in a folder that is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="mixreorg-serve-") as folder:
        os.environ.update({"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", UPLOADS: folder})
        yield


def stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook of a process that serves and never asks: refuses to look up or connect to another machine.

    Gradio fetches addresses that a caller names in place of an uploaded file; other libraries may do so, too.

    Raises:
        PermissionError: the process was about to ask another machine.
    """
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    name = host.decode(errors="replace") if isinstance(host, bytes) else host
    if name not in (None, "", "localhost") and not _is_loopback(name):
        raise PermissionError(f"mixreorg serve asks no other machine: {name}")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _terminated_in_order() -> Iterator[None]:
    """SIGTERM ends the process as an exit does, so that the model's process and the files go with it."""

    def leave(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(app: object, listening: socket.socket, started: Callable[[], None]) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

    # Open pages hold a connection: they are not waited for.
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)  # type: ignore[arg-type]
    # Uvicorn answers what has begun, and then raises the signal again.
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])
