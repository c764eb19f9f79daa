"""A small HTTP/1.1 server on asyncio, for simulators only: loopback, known clients, bodies with a length.

Why not a framework: a simulator must not be what a load test measures, and a request must be cancelled when
its client goes away, so that "in flight" means what the client means. What a request does is left to the
handler.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

LOOPBACK = "127.0.0.1"

MAX_HEAD_BYTES = 65536
"""More header than any known client sends."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Above the largest batch of embedding inputs by far."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, complete. Header names are in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = field(default=())


Handler = Callable[[Request], Awaitable[Response]]


class BadRequest(ValueError):
    """The bytes are no request that this server reads; `status` is the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def json_response(status: int, value: object) -> Response:
    """A response whose body is `value` as JSON."""
    return Response(status, json.dumps(value, ensure_ascii=False).encode())


def problem(status: int, message: str) -> Response:
    """An error of a control route: one line that says what was expected and what came."""
    return json_response(status, {"error": {"message": message, "type": "control", "code": status}})


async def serve_http(handle: Handler, *, port: int) -> asyncio.Server:
    """Listen on loopback; port 0 takes a free one. OSError when the port is in use."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(handle), LOOPBACK, port)


def port_of(server: asyncio.Server) -> int:
    """The port that a server got."""
    port: int = server.sockets[0].getsockname()[1]
    return port


async def run_until_signalled(announcement: dict[str, object]) -> None:
    """Print `announcement` as one JSON line on stdout, then wait for SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    sys.stdout.write(json.dumps(announcement) + "\n")
    sys.stdout.flush()
    await ended.wait()


class _Connection(asyncio.Protocol):
    """One connection: requests one after another, each handled by a task that ends with the connection."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._advance()
        elif len(self._buffer) > MAX_BODY_BYTES:
            self._refuse(413, "expected the answer to be read before more is sent")

    def _advance(self) -> None:
        """Begin the next request if all of it has come."""
        try:
            request, keep = _take_request(self._buffer, self._send)
        except BadRequest as error:
            self._refuse(error.status, str(error))
            return
        if request is not None:
            self._task = asyncio.get_running_loop().create_task(self._answer(request, keep))

    async def _answer(self, request: Request, keep: bool) -> None:
        try:
            response = await self._handle(request)
        except asyncio.CancelledError:
            return
        except Exception as error:
            response = problem(500, f"the simulator failed: {error!r}")
        self._task = None
        self._send(_render(response, keep=keep))
        if not keep:
            self._close()
        elif self._buffer:
            self._advance()

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _refuse(self, status: int, message: str) -> None:
        self._send(_render(problem(status, message), keep=False))
        self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _take_request(buffer: bytearray, send: Callable[[bytes], None]) -> tuple[Request | None, bool]:
    """Cut one complete request off the front of `buffer`; (None, True) while there is not all of it."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD_BYTES:
            raise BadRequest(431, f"expected at most {MAX_HEAD_BYTES} bytes of header")
        return None, True
    method, target, version, headers = _read_head(bytes(buffer[:end]))
    length = _body_length(headers)
    total = end + 4 + length
    if len(buffer) < total:
        if headers.get("expect", "").lower() == "100-continue" and len(buffer) == end + 4:
            send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None, True
    body = bytes(buffer[end + 4 : total])
    del buffer[:total]
    keep = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True) if parts.query else {}
    return Request(method, unquote(parts.path), query, headers, body), keep


def _read_head(head: bytes) -> tuple[str, str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(400, "expected a request line of HTTP/1.1")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(400, "expected header lines of the form name: value")
        headers[name.strip().lower()] = value.strip()
    return words[0], words[1], words[2], headers


def _body_length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(411, "expected Content-Length, got Transfer-Encoding")
    text = headers.get("content-length", "0")
    if not text.isascii() or not text.isdigit():
        raise BadRequest(400, "expected Content-Length to be a number")
    if int(text) > MAX_BODY_BYTES:
        raise BadRequest(413, f"expected at most {MAX_BODY_BYTES} bytes")
    return int(text)


def _render(response: Response, *, keep: bool) -> bytes:
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = "Scripted"
    lines = [
        f"HTTP/1.1 {response.status} {phrase}",
        f"content-type: {response.content_type}",
        f"content-length: {len(response.body)}",
        *(f"{name}: {value}" for name, value in response.headers),
        *(() if keep else ("connection: close",)),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + response.body
