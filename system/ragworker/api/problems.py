"""Answer every error as `application/problem+json` (RFC 9457): what was expected, what came, what to do next.

Each problem has one slug; the slug names its `type` (a URN, because no page is served at a fixed address)
and its title. Raising `Problem` anywhere in a request gives the answer; `answers` puts the same table into
the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import HTTPException as FastApiRefusal
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ragworker.logs import current_context

CONTENT_TYPE: Final = "application/problem+json"

#: Each problem's HTTP status, and its title, which is the same in every case (RFC 9457, section 3.1.3).
PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "unauthorized": (401, "A valid bearer token is required"),
    "job-not-found": (404, "No such job"),
    "dead-letter-not-found": (404, "No such dead letter"),
    "upload-too-slow": (408, "The upload did not arrive in time"),
    "job-already-finished": (409, "The job has already ended"),
    "rollback-too-late": (409, "The rollback window has passed"),
    "nothing-to-roll-back": (409, "The job has no committed effect"),
    "payload-too-large": (413, "The document is too large"),
    "unsupported-media-type": (415, "The media type is not supported"),
    "invalid-request": (422, "The request is not valid"),
    "rate-limited": (429, "Too many requests of this user"),
    "internal-error": (500, "The request failed here"),
    "unavailable": (503, "A part this needs is not reachable"),
}

#: What every answer of a status may carry besides the ids, for the OpenAPI document.
HEADERS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


class Problem(FastApiRefusal):
    """One error answer. `slug` is a key of `PROBLEMS`; `detail` is a sentence for the person who can act."""

    def __init__(self, slug: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(PROBLEMS[slug][0], detail, headers)
        self.slug = slug
        self.errors: list[dict[str, str]] = []


class UnavailableError(Problem):
    """503: a part does not answer, or there is no room; the time after which to try again goes with it."""

    def __init__(self, detail: str) -> None:
        super().__init__("unavailable", detail, headers={"Retry-After": "2"})


def invalid_request(errors: Sequence[Any]) -> Problem:
    """What pydantic or FastAPI found wrong. Input values are left out: they may be document text."""
    found = [{"at": ".".join(map(str, one["loc"])) or "body", "message": str(one["msg"])} for one in errors]
    problem = Problem("invalid-request", "; ".join(f"{one['at']}: {one['message']}" for one in found))
    problem.errors = found
    return problem


def problem_response(request: Request, error: HTTPException) -> Response:
    """The answer to a `Problem`, or to a refusal of the framework's own (405, unknown path)."""
    about: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": f"{request.method} {request.url.path}: {error.detail}",
        "instance": request.url.path,
        **{name: current_context().get(name) for name in ("request_id", "trace_id")},
    }
    if isinstance(error, Problem):
        about |= {"type": f"urn:ragworker:problem:{error.slug}", "title": PROBLEMS[error.slug][1]}
        about |= {"detail": error.detail, **({"errors": error.errors} if error.errors else {})}
    return JSONResponse(about, error.status_code, error.headers, CONTENT_TYPE)


def answers(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these problems; the schema is in `openapi.json`."""
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status, title in map(PROBLEMS.__getitem__, slugs):
        before = [found[status]["description"]] if status in found else []
        found[status] = {"description": "; ".join([*before, title]), "content": content}
    return found
