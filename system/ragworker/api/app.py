"""Put the app together: parts, routes, problems, the OpenAPI document, and the ids middleware around all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

import ragworker
from ragworker.api import jobs, operations
from ragworker.api.bodies import ProblemBody
from ragworker.api.context import ID_HEADERS, PROTECTED_PREFIX, RequestContext
from ragworker.api.problems import RETRY_AFTER, Problem, invalid_request, problem_response
from ragworker.api.services import RedisAwayError, Services, StoreAwayError
from ragworker.api.uploads import Document
from ragworker.background import BackgroundFullError
from ragworker.queue import UnknownJobError
from ragworker.settings import FlagSource, Settings

ROUTES: Final[tuple[Any, ...]] = (*jobs.router.routes, *operations.router.routes)

_UNREADABLE: Final = Problem("invalid-request", "body: expected JSON in UTF-8")

#: What an exception that leaves a route is answered with.
ANSWERS: Final[Mapping[type[Exception], Callable[[Any], HTTPException]]] = {
    HTTPException: lambda error: _UNREADABLE if error.status_code == 400 else error,
    RequestValidationError: lambda error: invalid_request(error.errors()),
    UnknownJobError: lambda error: Problem("job-not-found", f"job {error} was forgotten meanwhile"),
    RedisAwayError: lambda error: Problem(
        "unavailable",
        f"Redis did not answer ({error}); the job itself is safe, ask again",
        headers=RETRY_AFTER,
    ),
    StoreAwayError: lambda error: Problem(
        "unavailable", f"SQL did not answer ({error}); ask again, it is safe", headers=RETRY_AFTER
    ),
    BackgroundFullError: lambda error: Problem(
        "unavailable",
        f"too many jobs wait in this process ({error}); try again, or turn USE_DURABLE_WORKER on",
        headers=RETRY_AFTER,
    ),
    ClientDisconnect: lambda _: Problem(
        "upload-too-slow", "the connection closed before the body was complete"
    ),
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

    async def answered(request: Request, error: Exception) -> Response:
        answer = next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)(error)
        if answer.status_code == 405:
            # The framework names the methods of the first route that fits, not of all.
            fitting = [route for route in ROUTES if route.matches(request.scope)[0] is not Match.NONE]
            allowed = sorted({method for route in fitting for method in route.methods})
            answer.headers = {"Allow": ", ".join(allowed)} if allowed else answer.headers
        return problem_response(request, answer)

    # The interactive documentation loads scripts from elsewhere; the schema at /openapi.json needs nothing.
    app = FastAPI(
        title="ragworker", version=ragworker.__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.services = services
    for router in (jobs.router, operations.router):
        app.include_router(router)
    for kind in ANSWERS:
        app.add_exception_handler(kind, answered)
    app.add_middleware(
        RequestContext,
        read_flag=services.read_flag,
        authenticator=services.authenticator,
        figures=services.figures,
        user_limit=services.user_limit,
        max_upload_bytes=settings.max_upload_bytes,
    )
    document = _openapi(app, guarded=services.authenticator.required)
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's own way of extending the document
    return app


def _openapi(app: FastAPI, *, guarded: bool) -> dict[str, Any]:
    """What the routes say of themselves, and what holds for all of them: ids, tokens, problems."""
    document = get_openapi(
        title=app.title, version=app.version, routes=app.routes, description=ragworker.__doc__
    )
    parts = document["components"]
    for name, model in (("Problem", ProblemBody), ("Document", Document)):
        parts["schemas"][name] = model.model_json_schema(ref_template="#/components/schemas/{model}")
        parts["schemas"][name].pop("$defs", None)
    parts["headers"] = {name: {"schema": {"type": "string"}, "required": True} for name in ID_HEADERS}
    for path, operations_ in document["paths"].items():
        for operation in operations_.values():
            if guarded and path.startswith(PROTECTED_PREFIX):
                operation["security"] = [{"bearer": []}]
                parts["securitySchemes"] = {
                    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
                }
            for answer in operation["responses"].values():
                answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in ID_HEADERS}
    return document
