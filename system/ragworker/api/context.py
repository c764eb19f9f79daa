"""The outermost layer of every request: ids, caller, limits, flag, access log, and the answer to what went wrong.

Pure ASGI, because it must work with streams: a middleware that buffers or runs the app in another task
would lose context variables and hide a vanished client. In this order it 1. takes the three ids from the
request's headers when they are valid, makes them when not (spec G1, G3); 2. reads the flag
USE_DURABLE_WORKER once, so that the whole request sees one value (spec A3); 3. for everything below /rag/,
before a byte of the body is read, verifies the caller's token (spec G4) and counts the request against the
caller's limit; 4. runs the app with ids and user bound to every log line, the ids in the answer's headers,
and a bound on the body; 5. turns an unexpected exception into a problem answer, counts the request and logs it.
"""

from __future__ import annotations

import re
import secrets
import string
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragworker.api.auth import Authenticator
from ragworker.api.problems import Problem, problem_response
from ragworker.api.uploads import bounded_body
from ragworker.api.user_limit import UserLimit
from ragworker.logs import bind_context, get_logger
from ragworker.telemetry import ProcessFigures
from ragworker.tracing import Span, ids_of, span

logger = get_logger(__name__)

#: Each id: the header that brings it, its shape, and the prefix of one made here. A correlation id comes from
#: other services and keeps their shape, within what is safe in a header and a log line.
_IDS: Final = {
    "request_id": ("X-Request-ID", re.compile(r"req-[a-z0-9]{16}"), "req-"),
    "trace_id": ("X-Trace-ID", re.compile(r"trace-(?!0{32})[0-9a-f]{32}"), "trace-"),
    "correlation_id": ("X-Correlation-ID", re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"), "corr-"),
}
ID_HEADERS: Final = tuple(header for header, _, _ in _IDS.values())

_ID_ALPHABET: Final = string.ascii_lowercase + string.digits

#: Everything below it needs a token when authentication is on; probes, metrics and UI error reports do not.
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
class Caller:
    """Who asks, and under which ids (spec G1, G3, G4): what every route needs and every job remembers."""

    request_id: str
    trace_id: str
    correlation_id: str
    user_id: str = ""

    @classmethod
    def from_headers(cls, headers: Headers) -> tuple[Caller, str]:
        """Valid ids are kept; a missing, malformed or repeated one is replaced by one made here.

        In place of X-Trace-ID a W3C `traceparent` will do; its parent id comes second, if it is of the same trace.
        """
        ids = {}
        parents = headers.getlist("traceparent")
        trace_id, parent = ids_of(parents[0]) if len(parents) == 1 else ("", "")
        for name, (header, shape, prefix) in _IDS.items():
            given = headers.getlist(header)
            made = (
                trace_id or prefix + secrets.token_hex(16)
                if name == "trace_id"
                else prefix + "".join(map(secrets.choice, [_ID_ALPHABET] * 16))
            )
            ids[name] = given[0] if len(given) == 1 and shape.fullmatch(given[0]) else made
        return cls(**ids), parent if ids["trace_id"] == trace_id else ""


def durable_selected() -> bool:
    """The flag as this request read it (spec A3). Outside a request: LookupError, a mistake in our code."""
    return _durable.get()


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The middleware; see the module's docstring for what it does and in which order."""

    app: ASGIApp
    read_flag: Callable[[], bool]
    authenticator: Authenticator
    figures: ProcessFigures
    user_limit: UserLimit | None = None
    max_upload_bytes: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        caller, parent = Caller.from_headers(Headers(scope=scope))
        answer = _Answer(send, caller)
        flag = _durable.set(self.read_flag())
        try:
            with bind_context(**asdict(caller)), _span(scope, caller, parent) as answer.span:
                await self._answered(scope, receive, answer, caller)
        finally:
            _durable.reset(flag)

    async def _answered(self, scope: Scope, receive: Receive, answer: _Answer, caller: Caller) -> None:
        try:
            if scope["path"].startswith(PROTECTED_PREFIX):
                caller = await self._admitted(scope, answer, caller)
            scope.setdefault("state", {})["caller"] = caller
            bounded = bounded_body(scope, receive, max_upload_bytes=self.max_upload_bytes)
            with bind_context(user_id=caller.user_id):
                await self.app(scope, bounded, answer.send)
        except Exception as error:
            if not isinstance(error, HTTPException):
                logger.exception("http.request.failed", extra={"fields": {"path": scope["path"]}})
                error = Problem("internal-error", "look for the request_id in the API's log; try again")
            if answer.status is not None:
                # The head is out: cutting the connection is the only honest answer left, the server does it.
                raise
            await problem_response(Request(scope), error)(scope, receive, answer.send)
        finally:
            self._account(scope, answer, caller)

    async def _admitted(self, scope: Scope, answer: _Answer, caller: Caller) -> Caller:
        user_id = await self.authenticator.user_of(Headers(scope=scope).getlist("authorization"))
        if self.user_limit:
            answer.headers |= await self.user_limit.admit(user_id)
        return replace(caller, user_id=user_id)

    def _account(self, scope: Scope, answer: _Answer, caller: Caller) -> None:
        """Count and log the finished request; the time counted is that of the head, as streams last."""
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        status = answer.status or _STATUS_CLIENT_GONE
        self.figures.count("rag_http_requests_total", method=method, route=route, status=str(status))
        if answer.head_ms is not None:
            self.figures.observe("rag_http_request_duration_ms", answer.head_ms, route=route)
        matched = {"http.route": route} if scope.get("route") else {}
        answer.span.set({"http.response.status_code": status, **matched}, name=f"{method} {route}")
        if status >= 500:
            answer.span.fail(str(status))
        if route in _QUIET_ROUTES and status < 500:
            return
        fields = {"method": method, "route": route, "status": status, "duration_ms": answer.elapsed_ms()}
        with bind_context(user_id=caller.user_id):
            logger.info("http.request.finished", extra={"fields": fields})


def _span(scope: Scope, caller: Caller, parent: str) -> Span:
    if scope["path"] in _QUIET_ROUTES:
        return Span()
    about = {"http.request.method": scope["method"], "url.path": scope["path"], "url.scheme": scope["scheme"]}
    return span(scope["method"], "server", about, (caller.trace_id, parent))


class _Answer:
    """Watches what is sent: puts our headers into the head, remembers its status and when it left."""

    def __init__(self, send: Send, caller: Caller) -> None:
        self._send = send
        self._started = time.monotonic()
        self.headers = {header: getattr(caller, name) for name, (header, _, _) in _IDS.items()}
        self.span = Span()
        self.status: int | None = None
        self.head_ms: float | None = None

    def elapsed_ms(self) -> float:
        """Milliseconds since the request began."""
        return round((time.monotonic() - self._started) * 1000, 3)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(self.headers)
            self.status, self.head_ms = message["status"], self.elapsed_ms()
        await self._send(message)
