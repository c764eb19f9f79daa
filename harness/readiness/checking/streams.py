"""Read a job's event stream as a client does: until its end, until cut, or without taking a byte.

What the events mean is left to the checks; how lines become events is `load/sse.py`'s.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from readiness.load.sse import EventReader, StreamEvent

CONNECT_SECONDS = 10.0
SILENT = "nothing came"

# A reader that takes nothing: small segments and a small window, so that the sender's buffers are soon full.
SLOW_SEGMENT_BYTES = 536
SLOW_WINDOW_BYTES = 2_048


@dataclass(slots=True)
class Heard:
    """What one connection brought. ``silence`` is its longest pause in seconds, ``bytes`` all of its body."""

    events: list[StreamEvent] = field(default_factory=list)
    at: list[float] = field(default_factory=list)  # time.time() of each event
    status: int = 0
    bytes: int = 0
    silence: float = 0.0
    heartbeats: int = 0
    closed_at: float | None = None  # the server ended it; None: it was cut, or failed
    failure: str = ""

    @property
    def last_id(self) -> str:
        """The id to resume from; "" when no event had one."""
        return next((event.event_id for event in reversed(self.events) if event.event_id), "")


def listen(
    url: str,
    *,
    seconds: float,
    silence_seconds: float | None = None,
    after: str = "",
    headers: Mapping[str, str] | None = None,
    enough: Callable[[Heard], bool] = lambda heard: False,
) -> Heard:
    """Read the stream at ``url`` until the server ends it, ``enough`` says so, or ``seconds`` are over, or
    nothing came for ``silence_seconds`` (then ``failure`` begins with SILENT).

    ``after`` is sent as Last-Event-ID. ``enough`` is asked after each piece that arrives. Never raises: what went
    wrong is in ``failure``.
    """
    heard, reader = Heard(), EventReader()
    deadline = time.monotonic() + seconds
    sent = {**(headers or {}), **({"Last-Event-ID": after} if after else {})}
    timeout = httpx.Timeout(CONNECT_SECONDS, read=silence_seconds or seconds)
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False) as client,
            client.stream("GET", url, headers=sent) as answer,
        ):
            heard.status = answer.status_code
            rest, moved = "", time.monotonic()
            for piece in answer.iter_text():
                now = time.monotonic()
                heard.silence, moved = max(heard.silence, now - moved), now
                heard.bytes += len(piece.encode())
                *lines, rest = (rest + piece).split("\n")
                for line in lines:
                    event = reader.line(line.rstrip("\r"))
                    if event is not None:
                        heard.events.append(event)
                        heard.at.append(time.time())
                heard.heartbeats = reader.heartbeats
                if enough(heard):
                    return heard
                if now > deadline:
                    heard.failure = f"no end within {seconds:g} s"
                    return heard
            heard.closed_at = time.time()
    except httpx.ReadTimeout:
        heard.failure = f"{SILENT} for {silence_seconds or seconds:g} s after {len(heard.events)} events"
    except httpx.HTTPError as error:
        heard.failure = f"{type(error).__name__} after {len(heard.events)} events"
    return heard


@contextmanager
def taking_nothing(url: str, *, headers: Mapping[str, str] | None = None) -> Iterator[socket.socket]:
    """A connection that asks for the stream at ``url`` and then reads nothing, for the time of the block."""
    parts = urlsplit(url)
    lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Accept: text/event-stream"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_WINDOW_BYTES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SLOW_SEGMENT_BYTES)
        connection.settimeout(CONNECT_SECONDS)
        connection.connect((parts.hostname or "127.0.0.1", parts.port or 80))
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        yield connection


def unsent_bytes(connection: socket.socket) -> int:
    """What the server's kernel holds for this connection and cannot send (Linux; 0 elsewhere). Source: proc(5)."""
    host, port = connection.getsockname()
    _, server_port = connection.getpeername()
    packed = socket.inet_aton(host)[::-1].hex().upper()
    mine, theirs = f"{packed}:{port:04X}", f":{server_port:04X}"
    try:
        rows = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return 0
    for row in rows:
        columns = row.split()
        if columns[2] == mine and columns[1].endswith(theirs):
            return int(columns[4].partition(":")[0], 16)
    return 0
