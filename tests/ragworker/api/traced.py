"""A collector, an API and a worker as real processes, with a secret in every place; `test_tracing.py` asks them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from api_process import SECRET, Api, passed_on, wait_until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

CANARIES = {
    "document": "canary-document-text-zebra",
    "redis": "canary-redis-password",
    "embedding": "sk-canary-embedding-key",
    "collector": "canary-collector-token",
    "jwt secret": SECRET,
}


@dataclass(frozen=True)
class Seen:
    """One span as the collector got it."""

    service: str
    span: Span
    attributes: dict[str, Any]

    @property
    def trace_id(self) -> str:
        return f"trace-{self.span.trace_id.hex()}"


@dataclass
class Sink:
    """An OTLP collector and an embedding API on one port; keeps what came."""

    bodies: list[bytes] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    collector_headers: list[dict[str, str]] = field(default_factory=list)
    failures_left: int = 0

    def spans(self, **attributes: Any) -> list[Seen]:
        """All spans so far that have these attributes (`__` for a dot), in the order of their start."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
                for scope in resource.scope_spans:
                    found += [Seen(service, span, _plain(span)) for span in scope.spans]
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        matching = [one for one in found if wanted.items() <= one.attributes.items()]
        return sorted(matching, key=lambda one: one.span.start_time_unix_nano)

    def of_trace(self, trace_id: str) -> list[Seen]:
        return [one for one in self.spans() if one.trace_id == trace_id]

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve; the URL."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = 200, b""
                if self.path == "/v1/traces":
                    outer.collector_headers.append(dict(self.headers))
                    outer.bodies.append(body)
                else:
                    outer.asked.append({name.lower(): value for name, value in self.headers.items()})
                    status = 500 if outer.failures_left > 0 else 200
                    outer.failures_left -= 1
                    vectors = [
                        {"index": i, "embedding": [1.0, 2.0]} for i, _ in enumerate(json.loads(body)["input"])
                    ]
                    answer = json.dumps({"data": vectors}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()


def _plain(span: Span) -> dict[str, Any]:
    values = {a.key: a.value for a in span.attributes}
    return {name: getattr(value, str(value.WhichOneof("value"))) for name, value in values.items()}


@dataclass
class Stand:
    """API, worker and sink as real processes."""

    api: Api
    sink: Sink
    environ: dict[str, str]
    worker_log: Path
    headers: dict[str, str]

    def submit(self, text: str, *, ids: dict[str, str] | None = None, **fields: str) -> tuple[str, str]:
        """Job id and trace id of a submitted text; `ids` are headers."""
        answer = self.api.submit(text, headers={**self.headers, **(ids or {})}, **fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["job_id"], answer.headers["X-Trace-ID"]

    def ended(self, job_id: str) -> str:
        """The state in which the job ended."""

        def look() -> Any:
            return self.api.client.get(f"/rag/jobs/{job_id}", headers=self.headers).json()["state"]

        wait_until(lambda: look() in ("done", "dead", "cancelled"), seconds=30, what=f"the end of {job_id}")
        return str(look())

    def spans(self, trace_id: str, *, names: list[str]) -> dict[str, list[Seen]]:
        """The trace's spans by name, once those of `names` have arrived."""

        def arrived() -> dict[str, list[Seen]]:
            by_name: dict[str, list[Seen]] = {}
            for one in self.sink.of_trace(trace_id):
                by_name.setdefault(one.span.name, []).append(one)
            return by_name

        def complete() -> bool:
            found = arrived()
            return all(len(found.get(name, [])) >= names.count(name) for name in names)

        wait_until(complete, seconds=20, what=f"{names}, got {sorted(arrived())}")
        return arrived()


@contextmanager
def running_worker(environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "ragworker", "worker"], env={**passed_on(), **environ}, stderr=stderr
        )
    try:
        wait_until(lambda: "worker.ready" in log.read_text("utf-8"), seconds=30, what="worker.ready")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
