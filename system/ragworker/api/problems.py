"""Answer every error as `application/problem+json` (RFC 9457): what was expected, what came, what to do next.

Each problem has one slug; the slug names its `type` (a URN, because no page is served at a fixed address)
and its title. Raising `Problem` anywhere in a request gives the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from ragworker.logs import current_context

CONTENT_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One class of problem: its HTTP status and a title that is the same in every case (RFC 9457 3.1.3)."""

    status: int
    title: str


PROBLEMS: Final[Mapping[str, ProblemKind]] = {
    "unauthorized": ProblemKind(401, "A valid bearer token is required"),
    "job-not-found": ProblemKind(404, "No such job"),
    "dead-letter-not-found": ProblemKind(404, "No such dead letter"),
    "upload-too-slow": ProblemKind(408, "The upload did not arrive in time"),
    "job-already-finished": ProblemKind(409, "The job has already ended"),
    "payload-too-large": ProblemKind(413, "The document is too large"),
    "unsupported-media-type": ProblemKind(415, "The media type is not supported"),
    "invalid-request": ProblemKind(422, "The request is not valid"),
    "unavailable": ProblemKind(503, "A part this needs is not reachable"),
    "too-many-uploads": ProblemKind(503, "Too many uploads at a time"),
    "internal-error": ProblemKind(500, "The request failed here"),
}


class Problem(Exception):
    """One error answer. `slug` is a key of `PROBLEMS`; `detail` is a sentence for the person who can act."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors

    def response(self, *, instance: str) -> Response:
        """The answer; `instance` is the path of the request."""
        kind = PROBLEMS[self.slug]
        body: dict[str, Any] = {
            "type": f"urn:ragworker:problem:{self.slug}",
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "instance": instance,
        }
        if self.errors is not None:
            body["errors"] = self.errors
        return _problem_response(kind.status, body, self.headers)


def install_problem_handlers(app: FastAPI) -> None:
    """Give problems, FastAPI's own validation errors and plain HTTP errors the one shape.

    Unexpected exceptions are answered by the ids middleware, which is the outermost layer that knows the
    request.
    """

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response(instance=request.url.path)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # Input values are left out: they may be document text.
        errors = [
            {"at": ".".join(str(step) for step in e["loc"]), "message": str(e["msg"])} for e in error.errors()
        ]
        detail = "; ".join(f"{e['at']}: {e['message']}" for e in errors) or "it does not fit the route"
        return Problem("invalid-request", detail, errors=errors).response(instance=request.url.path)

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        body = {
            "type": "about:blank",
            "title": HTTPStatus(error.status_code).phrase,
            "status": error.status_code,
            "detail": f"{request.method} {request.url.path}: {error.detail}",
            "instance": request.url.path,
        }
        return _problem_response(error.status_code, body, dict(error.headers or {}))

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)


def _problem_response(status: int, body: dict[str, Any], headers: Mapping[str, str]) -> Response:
    ids = {name: current_context().get(name) for name in ("request_id", "trace_id")}
    return JSONResponse({**body, **ids}, status_code=status, headers=dict(headers), media_type=CONTENT_TYPE)
