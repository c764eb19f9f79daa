"""The outermost layer of every request: ids, caller, flag, access log, and the answer to what went wrong.

Pure ASGI, because it must work with streams: a middleware that buffers or runs the app in another task
would lose context variables and hide a vanished client. In this order it 1. takes the three ids from the
request's headers when they are valid, makes them when not (spec G1, G3); 2. reads the flag
USE_DURABLE_WORKER once, so that the whole request sees one value (spec A3); 3. verifies the caller's token
for everything below /rag/, before a byte of the body is read (spec G4); 4. runs the app with ids and user
bound to every log line, and the ids in the answer's headers; 5. turns an unexpected exception into a
problem answer, counts the request and logs it.
"""

from __future__ import annotations

import re
import secrets
import string
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragworker.api.auth import Authenticator, AuthError
from ragworker.api.problems import Problem
from ragworker.logs import bind_context, get_logger
from ragworker.telemetry import ProcessFigures

logger = get_logger(__name__)

_REQUEST_ID: Final = re.compile(r"req-[a-z0-9]{16}")
_TRACE_ID: Final = re.compile(r"trace-[0-9a-f]{32}")

#: A correlation id comes from other services and keeps their shape, within what is safe in a header and a
#: log line.
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

_ID_ALPHABET: Final = string.ascii_lowercase + string.digits

#: Everything below it needs a token when a secret is set; probes, metrics and UI error reports do not.
PROTECTED_PREFIX: Final = "/rag/"

#: Metric labels must be bounded: any other method is counted as OTHER, any path without a route as
#: `unmatched`.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

#: Asked every few seconds by machines; their answers are counted but logged only when they fail.
_QUIET_ROUTES: Final = frozenset({"/metrics", "/healthz", "/readyz"})

#: A person hung up; no status was sent. The number is nginx's.
_STATUS_CLIENT_GONE: Final = 499

_durable: ContextVar[bool] = ContextVar("ragworker_durable_flag")


@dataclass(frozen=True, slots=True)
class RequestIds:
    """The three ids of one request (spec G1, G3)."""

    request_id: str
    trace_id: str
    correlation_id: str

    @classmethod
    def from_headers(cls, headers: Mapping[str, list[str]]) -> RequestIds:
        """Valid ids are kept; a missing, malformed or repeated one is replaced by one made here."""
        return cls(
            request_id=_kept(headers.get("x-request-id"), _REQUEST_ID) or f"req-{_random_text(16)}",
            trace_id=_kept(headers.get("x-trace-id"), _TRACE_ID) or f"trace-{secrets.token_hex(16)}",
            correlation_id=_kept(headers.get("x-correlation-id"), _CORRELATION_ID)
            or f"corr-{_random_text(16)}",
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and under which ids: what every route needs and every job remembers."""

    ids: RequestIds
    user_id: str


def durable_selected() -> bool:
    """The flag as this request read it (spec A3). Outside a request: LookupError, a mistake in our code."""
    return _durable.get()


class RequestContext:
    """The middleware; see the module's docstring for what it does and in which order."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        read_flag: Callable[[], bool],
        authenticator: Authenticator,
        figures: ProcessFigures,
    ) -> None:
        self._app = app
        self._read_flag = read_flag
        self._authenticator = authenticator
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        ids = RequestIds.from_headers(headers)
        answer = _Answer(send, ids)
        flag = _durable.set(self._read_flag())
        try:
            with bind_context(
                request_id=ids.request_id, trace_id=ids.trace_id, correlation_id=ids.correlation_id
            ):
                await self._run(scope, receive, answer, headers, ids)
        finally:
            _durable.reset(flag)

    async def _run(
        self,
        scope: Scope,
        receive: Receive,
        answer: _Answer,
        headers: Mapping[str, list[str]],
        ids: RequestIds,
    ) -> None:
        user_id = None
        try:
            try:
                user_id = self._authenticated(scope["path"], headers)
            except AuthError as refusal:
                await _unauthorized(str(refusal)).response(instance=scope["path"])(
                    scope, receive, answer.send
                )
                return
            scope.setdefault("state", {})["caller"] = Caller(ids, user_id)
            with bind_context(user_id=user_id):
                await self._app(scope, receive, answer.send)
        except Exception:
            logger.exception("http.request.failed", extra={"fields": {"path": scope["path"]}})
            if answer.status is None:
                await _internal_error().response(instance=scope["path"])(scope, receive, answer.send)
            else:
                # The head is out: cutting the connection is the only honest answer left, and the server
                # does it.
                raise
        finally:
            with bind_context(user_id=user_id):
                self._account(scope, answer)

    def _authenticated(self, path: str, headers: Mapping[str, list[str]]) -> str:
        if not path.startswith(PROTECTED_PREFIX):
            return ""
        given = headers.get("authorization", [])
        if len(given) > 1:
            raise AuthError("expected one Authorization header, came several")
        return self._authenticator.user_of(given[0] if given else None)

    def _account(self, scope: Scope, answer: _Answer) -> None:
        """Count and log the finished request; the time counted is that of the head, as streams last."""
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        status = answer.status or _STATUS_CLIENT_GONE
        self._figures.count("rag_http_requests_total", method=method, route=route, status=str(status))
        if answer.head_ms is not None:
            self._figures.observe("rag_http_request_duration_ms", answer.head_ms, route=route)
        if route in _QUIET_ROUTES and status < 500:
            return
        fields = {"method": method, "route": route, "status": status, "duration_ms": answer.elapsed_ms()}
        logger.info("http.request.finished", extra={"fields": fields})


class _Answer:
    """Watches what is sent: puts the ids into the head, remembers its status and when it left."""

    def __init__(self, send: Send, ids: RequestIds) -> None:
        self._send = send
        self._ids = ids
        self._started = time.monotonic()
        self.status: int | None = None
        self.head_ms: float | None = None

    def elapsed_ms(self) -> float:
        return round((time.monotonic() - self._started) * 1000, 3)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._ids.request_id
            headers["X-Trace-ID"] = self._ids.trace_id
            headers["X-Correlation-ID"] = self._ids.correlation_id
            self.status = message["status"]
            self.head_ms = self.elapsed_ms()
        await self._send(message)


def _headers(scope: Scope) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _kept(values: list[str] | None, shape: re.Pattern[str]) -> str | None:
    return values[0] if values and len(values) == 1 and shape.fullmatch(values[0]) else None


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(length))


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="ragworker"'})


def _internal_error() -> Problem:
    return Problem(
        "internal-error",
        "the request failed; look for its request_id in the log of ragworker-api, then try again",
    )
