"""Put the app together: parts, routes, problems, the OpenAPI document, and the ids middleware around all of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

import ragworker
from ragworker.api import jobs, operations
from ragworker.api.context import ID_HEADERS, PROTECTED_PREFIX, RequestContext
from ragworker.api.problems import HEADERS, Problem, UnavailableError, invalid_request, problem_response
from ragworker.api.services import Services
from ragworker.background import BackgroundFullError
from ragworker.queue import UnknownJobError
from ragworker.settings import FlagSource, Settings

ROUTERS: Final = (*jobs.routers, operations.router)

#: FastAPI says 400 of JSON that it cannot decode.
NO_JSON: Final = Problem("invalid-request", "body: expected JSON in UTF-8")

#: What an exception that leaves a route is answered with.
ANSWERS: Final[Mapping[type[Exception], Callable[[Any], HTTPException]]] = {
    HTTPException: lambda error: NO_JSON if error.status_code == 400 else error,
    RequestValidationError: lambda error: invalid_request(error.errors()),
    UnknownJobError: lambda error: Problem("job-not-found", f"job {error} was forgotten meanwhile"),
    BackgroundFullError: lambda error: UnavailableError(f"{error}; try again, or turn USE_DURABLE_WORKER on"),
    ClientDisconnect: lambda _: Problem("upload-too-slow", "the connection closed before the body ended"),
}


def create_app(settings: Settings, *, flag: FlagSource | None = None) -> FastAPI:
    """The API. `flag` re-reads USE_DURABLE_WORKER per request; without it the value in `settings` holds."""
    services = Services(settings, flag=flag)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await services.close()

    # The interactive documentation loads scripts from elsewhere; the schema at /openapi.json needs nothing.
    about: Any = {"title": "ragworker", "version": ragworker.__version__}
    app = FastAPI(**about, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.services = services
    for router in ROUTERS:
        app.include_router(router)
    for kind in ANSWERS:
        app.add_exception_handler(kind, _answered)
    app.add_middleware(
        RequestContext,
        read_flag=services.read_flag,
        authenticator=services.authenticator,
        figures=services.figures,
        user_limit=services.user_limit,
        max_upload_bytes=settings.max_upload_bytes,
    )
    document = get_openapi(**about, description=ragworker.__doc__, routes=app.routes)
    _complete(document, guarded=services.authenticator.required)
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's own way of extending the document
    return app


async def _answered(request: Request, error: Exception) -> Response:
    answer = next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)(error)
    if answer.status_code == 405:
        # The framework names the methods of the first route that fits, not of all.
        routes: list[Any] = [route for router in ROUTERS for route in router.routes]
        fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
        allowed = sorted({method for route in fitting for method in route.methods})
        answer.headers = {"Allow": ", ".join(allowed)} if allowed else answer.headers
    return problem_response(request, answer)


def _complete(document: dict[str, Any], *, guarded: bool) -> None:
    """Add what the routes cannot say of themselves: `openapi.json`, and what holds for all of them."""
    for kind, parts in json.loads((files("ragworker.api") / "openapi.json").read_text("utf-8")).items():
        document["components"].setdefault(kind, {}).update(parts)
    paths = document["paths"]
    for path, operation in ((path, one) for path, verbs in paths.items() for one in verbs.values()):
        limited = ("RateLimit-Policy", "RateLimit") if path.startswith(PROTECTED_PREFIX) else ()
        if guarded and limited:
            operation["security"] = [{"bearer": []}]
        for status, answer in operation["responses"].items():
            names = (*ID_HEADERS, *limited, *HEADERS.get(int(status), ()), *answer.pop("headers", ()))
            answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
