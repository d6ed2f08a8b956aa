"""The HTTP API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import mixreorg
from mixreorg.errors import MixreorgError
from mixreorg.serve.answers import as_json, as_labels, as_overlay
from mixreorg.serve.guard import SEGMENT, add_guard, error_answer
from mixreorg.serve.limits import RefusalError
from mixreorg.serve.schema import ErrorAnswer, HealthAnswer, SegmentAnswer
from mixreorg.serve.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
_FIELDS = frozenset({"photo", "classes", "background", "negatives", "answer"})
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no multipart form."},
    413: {"description": "Too many bytes or pixels."},
    415: {"description": "The photo is in no format that is read."},
    422: {"description": "Class names, numbers or a photo that cannot be used."},
    503: {"description": "Too many requests wait, or model or server are being ended; see `Retry-After`."},
    504: {"description": "No answer in time."},
}


def create_app(service: Service) -> "FastAPI":
    """The application with all routes of the API, and documentation that fetches nothing from elsewhere.

    The queue of the model is served while the application runs.
    """
    from fastapi_offline import FastAPIOffline

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with service.working():
            yield

    app = FastAPIOffline(
        title="mixreorg",
        version=mixreorg.__version__,
        description="A photo and any class names to a label of every pixel.",
        lifespan=lifespan,
    )
    _add_segment(app, service)
    _add_state(app, service)
    _refuse_other_methods(app)
    _answer_errors(app)
    add_guard(app, service)
    return app


def _add_segment(app: "FastAPI", service: Service) -> None:
    from fastapi import File, Form, Request, Response, UploadFile
    from fastapi.responses import JSONResponse

    png = {"content": {"image/png": {}}, "model": SegmentAnswer, "description": "As `answer` says."}
    errors = {status: {**answer, "model": ErrorAnswer} for status, answer in _ERRORS.items()}

    @app.post(SEGMENT, summary="Segment a photo", responses={200: png, **errors}, response_model=None)
    async def segment(
        request: Request,
        photo: Annotated[UploadFile, File(description="JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.")],
        classes: Annotated[str, Form(description="Class names with synonyms: `dog, cat=cat|kitten, grass`.")],
        background: Annotated[
            str | None,
            Form(
                description="Threshold, 0 to 1, below which a pixel becomes background, or `auto`: the model's "
                "calibration, else one chosen on the photo. Default: the model's."
            ),
        ] = None,
        negatives: Annotated[
            str | None, Form(description="Names that take pixels and are reported as background: `sky, wall`.")
        ] = None,
        answer: Annotated[
            Literal["json", "labels", "overlay"],
            Form(description="`json`; `labels`: the label map as a palette PNG; `overlay`: a PNG with a legend."),
        ] = "json",
    ) -> Response:
        """Label every pixel of a photo with one of the given class names."""
        names = [name for name, _ in (await request.form()).multi_items()]
        unknown = sorted({*names} - _FIELDS)
        if unknown:
            raise RefusalError(422, f"there is no field {unknown[0]!r}; the fields are {', '.join(sorted(_FIELDS))}")
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise RefusalError(422, f"the field {repeated!r} is there twice; class names go into one, with commas")
        content = await photo.read()
        if answer == "json":
            values = await service.segment(content, classes, background, as_json, negatives)
            # A charset of the caller's choice can make half characters of it, which no JSON in UTF-8 holds.
            file_name = (photo.filename or "").encode(errors="replace").decode()
            return JSONResponse({**values, "photo": file_name})
        render = as_labels if answer == "labels" else as_overlay
        picture = await service.segment(content, classes, background, render, negatives)
        return Response(picture, media_type="image/png")


def _add_state(app: "FastAPI", service: Service) -> None:
    from fastapi import Response
    from fastapi.responses import JSONResponse

    starting = {"model": HealthAnswer, "description": "The model is being loaded."}

    @app.get("/health", summary="Whether the model is ready", responses={503: starting}, response_model=HealthAnswer)
    async def health() -> Response:
        """200 while the model is ready, 503 while its process is started again."""
        process = service.process
        ready = process.process_id is not None
        answer = HealthAnswer(
            status="ready" if ready else "starting", model=process.model_name, restarts=process.restarts
        )
        return JSONResponse(answer.model_dump(), 200 if ready else 503)

    @app.get("/metrics", summary="Figures for Prometheus")
    async def metrics() -> Response:
        """Requests by status, their times, sizes of batches, restarts, memory of the server's process."""
        content, media_type = service.metrics.as_text()
        return Response(content, media_type=media_type)


def _refuse_other_methods(app: "FastAPI") -> None:
    """405 on the API's own paths: the page, which is mounted under all paths, would answer 404 in its own form."""
    from fastapi import HTTPException, Request, Response

    for path, allowed in ((SEGMENT, "POST"), ("/health", "GET"), ("/metrics", "GET")):

        async def refuse(_: Request, allowed: str = allowed) -> Response:
            raise HTTPException(405, f"the method here is {allowed}", {"Allow": allowed})

        others = [method for method in _METHODS if method != allowed]
        app.router.add_route(path, refuse, methods=others, include_in_schema=False)


def _describe(problem: Any) -> str:
    """What is wrong with a field, in words of forms."""
    name = problem["loc"][-1]
    if problem["type"] == "missing":
        return f"{name}: the field is missing or empty"
    if name == "photo":
        return "photo: the field is no file; send it with a file name"
    return f"{name}: {problem['msg']}"


def _answer_errors(app: "FastAPI") -> None:
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    @app.exception_handler(MixreorgError)
    async def refused(_: Request, error: MixreorgError) -> JSONResponse:
        return error_answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return JSONResponse({"error": "the body is no multipart form; send one with photo and classes"}, 400)
        return JSONResponse({"error": "; ".join(map(_describe, error.errors()))}, 422)

    @app.exception_handler(HTTPException)
    async def wrong_request(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        # The traceback goes to the log, which the caller does not see.
        return JSONResponse({"error": "a defect of the server; its log says more"}, 500)
