"""A document service small enough to misbehave on purpose: it answers the API of the load test from memory.

Runs in threads of the test process. `Mood` says how it treats its callers; what it counted is the truth that the
load step's figures are compared with.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METRICS = """# TYPE rag_queue_length gauge
rag_queue_length 3
# TYPE worker_active_jobs gauge
worker_active_jobs 2
"""


@dataclass(frozen=True, slots=True)
class Mood:
    """How the service behaves. Shares are of the jobs, by their number."""

    job_seconds: float = 0.2
    status: int = 202  # of submissions
    silent: bool = False  # accept connections, never answer
    dead_every: int = 0  # every n-th job ends dead
    break_every: int = 0  # every n-th stream is closed without an end event
    endless_every: int = 0  # every n-th job never ends
    chunked: bool = True
    line_end: str = "\r\n"


class Service(ThreadingHTTPServer):
    """Keeps its jobs and counts what came in."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, mood: Mood) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mood = mood
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.born: list[float] = []
        self.texts: list[str] = []
        self.keys: list[str] = []
        self.requests = 0
        self.streams = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def state(self, number: int) -> str:
        mood = self.mood
        if mood.endless_every and number % mood.endless_every == 0:
            return "running"
        if time.monotonic() < self.born[number] + mood.job_seconds:
            return "running"
        return "dead" if mood.dead_every and number % mood.dead_every == 0 else "done"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as every real server does; otherwise 40 ms of delayed acknowledgements
    server: Service

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._silent():
            self._submit(body)

    def do_GET(self) -> None:
        if self._silent():
            return
        if self.path == "/metrics":
            self._send(200, METRICS.encode(), "text/plain")
        elif self.path.endswith("/events"):
            self._events(self._number())
        else:
            self._status(self._number())

    def _number(self) -> int:
        return int(self.path.split("/")[3].removeprefix("job-"))

    def _submit(self, body: dict[str, str]) -> None:
        service = self.server
        with service.lock:
            service.requests += 1
            number = len(service.born)
            if service.mood.status < 300:
                service.born.append(time.monotonic())
                service.texts.append(body["text"])
                service.keys.append(self.headers["Idempotency-Key"])
        self._answer(service.mood.status, {"job_id": f"job-{number}", "state": "queued"})

    def _status(self, number: int) -> None:
        with self.server.lock:
            self.server.requests += 1
        body = {"job_id": f"job-{number}", "state": self.server.state(number), "duration_ms": 200}
        self._answer(200, body)

    def _silent(self) -> bool:
        if self.server.mood.silent:
            self.server.over.wait(30)
            self.close_connection = True
        return self.server.mood.silent

    def _answer(self, status: int, body: dict[str, object]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        if (
            self.close_connection
        ):  # RFC 9112, 9.6: say so, or the client keeps a connection that is about to close
            self.send_header("Connection", "close")
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self, number: int) -> None:
        mood = self.server.mood
        with self.server.lock:
            self.server.streams += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if mood.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self._write(f": hello{mood.line_end}{mood.line_end}")
        self._write(self._event("state", "running"))
        if mood.break_every and number % mood.break_every == 0:
            self.close_connection = True  # closed in the middle of the body, no end event, no last chunk
            return
        while (state := self.server.state(number)) == "running" and not self.server.over.wait(0.02):
            pass
        self._write(self._event("end", state))
        if mood.chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = not mood.chunked

    def _event(self, name: str, state: str) -> str:
        lines = [f"event: {name}", "id: 1-0", "data: " + json.dumps({"state": state}), "", ""]
        return self.server.mood.line_end.join(lines)

    def _write(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if self.server.mood.chunked else data)
        self.wfile.flush()


@contextmanager
def running(mood: Mood) -> Iterator[Service]:
    """A service that answers until the block is left."""
    service = Service(mood)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.over.set()
        service.shutdown()
        service.server_close()
        thread.join(timeout=5)
