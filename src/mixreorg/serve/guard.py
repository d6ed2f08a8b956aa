"""What stands around all routes: limits of bodies, places and time, and headers that keep browsers at home."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixreorg.errors import MixreorgError
from mixreorg.serve.limits import RefusalError, too_many_bytes
from mixreorg.serve.service import Service

if TYPE_CHECKING:
    from starlette.responses import JSONResponse
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEGMENT = "/segment"
_CLIENT_LEFT = 499
"""Status by which requests are counted whose client left before the answer; nginx calls it so, too."""
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; form-action 'self'; frame-ancestors 'self'; object-src 'none'; base-uri 'self'"
)
"""The browser itself then refuses whatever would be fetched from elsewhere. Gradio needs inline scripts and eval."""
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-dns-prefetch-control", b"off"),
)
_FETCHING = ("/gradio_api/file=http", "/gradio_api/proxy=")
"""Routes on which Gradio would fetch an address for its caller; what is left, ``stay_here`` of ``run`` stops."""
_UPLOAD = "/gradio_api/upload"
UPLOADS = "GRADIO_TEMP_DIR"
"""Variable that names the folder of the page's uploads."""


def error_answer(error: MixreorgError) -> "JSONResponse":
    """``{"error": ...}`` with the status of a refusal, or 422 for what is wrong with a photo or a name."""
    from starlette.responses import JSONResponse

    status, retry_after = (error.status, error.retry_after) if isinstance(error, RefusalError) else (422, None)
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONResponse({"error": str(error)}, status, headers)


class Guard:
    """ASGI application around another."""

    def __init__(self, app: "ASGIApp", service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._service)
        if request.path.startswith(_FETCHING):
            await request.refuse(RefusalError(403, "this server fetches nothing from other addresses"))
        elif request.is_segment:
            await self._segment(request)
        elif scope["method"] == "POST" and request.path != _UPLOAD and names_foreign_file(await request.read()):
            await request.refuse(RefusalError(403, "the page works on photos that were uploaded to it, and no others"))
        else:
            await request.run(self._app)

    async def _segment(self, request: "_Request") -> None:
        start = time.perf_counter()
        try:
            async with self._service.admit():
                await self._while_awaited(request)
        except RefusalError as error:
            await request.refuse(error)
        except asyncio.CancelledError:
            # The server is told to end, and has waited for the answer as long as it does.
            await request.refuse(RefusalError(503, "the server is being ended; send it again later", retry_after=10))
        finally:
            # Without a status it is a defect, which the framework answers with 500 outside of this guard.
            self._service.metrics.count_request(request.status or 500, time.perf_counter() - start)

    async def _while_awaited(self, request: "_Request") -> None:
        """Serve a request until its client leaves: an answer that nobody reads takes no place from others."""
        work, gone = asyncio.ensure_future(request.run(self._app)), asyncio.ensure_future(request.gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            # Servers report clients as gone after a whole answer as well.
            if work.done() or request.status:
                await work
            else:
                request.status = _CLIENT_LEFT
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


class _Request:
    """One request whose body is counted."""

    def __init__(self, scope: "Scope", receive: "Receive", send: "Send", service: Service) -> None:
        self.status = 0
        self.path: str = scope["path"]
        self.is_segment = scope["method"] == "POST" and self.path == SEGMENT
        self._scope, self._receive, self._send = scope, receive, send
        self._limits = service.limits
        self._num_bytes = 0
        self._read: list[Message] = []
        self._is_whole = asyncio.Event()

    async def gone(self) -> None:
        """Wait until the client is gone; the body is left to the application."""
        await self._is_whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def read(self) -> bytes:
        """The body, which the application still receives; cut off where it is too large."""
        messages = [await self.receive()]
        while messages[-1].get("more_body"):
            messages.append(await self.receive())
        self._read = messages
        return b"".join(message.get("body", b"") for message in messages)

    async def run(self, app: "ASGIApp") -> None:
        announced = dict(self._scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limits.max_bytes:
            await self.refuse(too_many_bytes(self._limits))
            return
        await app(self._scope, self.receive, self.send)
        if self._is_too_large:
            await self.refuse(too_many_bytes(self._limits))

    @property
    def _is_too_large(self) -> bool:
        return self._num_bytes > self._limits.max_bytes

    async def receive(self) -> "Message":
        if self._read:
            return self._read.pop(0)
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._is_whole.is_set():
            # In its upload. What the application says of half a body is neither sent nor counted.
            self.status = self.status or _CLIENT_LEFT
        self._num_bytes += len(message.get("body", b""))
        if not message.get("more_body"):
            self._is_whole.set()
        # The rest of such a body is not read. What the application says of half a body is not sent.
        return {"type": "http.disconnect"} if self._is_too_large else message

    async def send(self, message: "Message") -> None:
        if self._is_too_large or self.status == _CLIENT_LEFT:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], *_HEADERS]}
        await self._send(message)

    async def refuse(self, error: RefusalError) -> None:
        """Answer with an error, unless an answer has begun."""
        if not self.status:
            self.status = error.status
            await error_answer(error)(self._scope, self._receive, self._send)


def names_foreign_file(body: bytes) -> bool:
    """Whether a call of the page names a file that was not uploaded to it.

    Gradio would read a file of the server for whoever writes its path in place of that of an upload. It has a check of
    its own, which is off in pages that are part of another application.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return False  # for Gradio, which reads it the same way, to refuse
    return any(not _is_uploaded(path) for path in _named_files(values))


def _named_files(values: Any) -> Iterator[str]:
    """Every ``path`` in the values of a call."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
            if isinstance(value.get("path"), str):
                yield value["path"]
        elif isinstance(value, list):
            waiting += value


def _is_uploaded(path: str) -> bool:
    try:
        return UPLOADS in os.environ and Path(path).resolve().is_relative_to(Path(os.environ[UPLOADS]).resolve())
    except (OSError, ValueError):
        return False


def add_guard(app: Any, service: Service) -> None:
    """Put the guard around an application of FastAPI."""
    app.add_middleware(Guard, service=service)
