"""The lane that exports its spans to a collector of ours, and lives in another time zone than most machines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from readiness.pytest_plugin import lane_factory
from readiness.targets.base import Lane, Target

EXPORT_EVERY_MS = 200
ERROR = 2  # opentelemetry.proto Status.STATUS_CODE_ERROR
ZONE = "Asia/Seoul"  # nine hours from UTC, without summer time


@dataclass(frozen=True, slots=True)
class Span:
    """One span as the collector got it; ids are hex digits."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    job: str
    failed: bool


@dataclass
class Collector:
    """An OTLP/HTTP collector that keeps what came."""

    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Span]:
        """All spans so far."""
        found: list[Span] = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = {one.key: one.value.string_value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    found += [read(span, about.get("service.name", "")) for span in scope.spans]
        return found


@dataclass(frozen=True, slots=True)
class Traced:
    lane: Lane
    collector: Collector


@pytest.fixture(scope="session")
def traced_lane(target: Target) -> Iterator[Traced]:
    """API and one worker that export to a collector of ours."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: what came is kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with ExitStack() as cleanup:
        cleanup.callback(server.server_close)
        cleanup.callback(server.shutdown)
        lane = lane_factory(cleanup, target)(
            "traced",
            DISTRIBUTED_TRACING_ENABLED="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            OTEL_BSP_SCHEDULE_DELAY=EXPORT_EVERY_MS,
            RAG_RETRY_BASE_SECONDS=0.02,
            TZ=ZONE,
        )
        yield Traced(lane=lane, collector=collector)


def read(span: Any, service: str) -> Span:
    """A span of the protocol as ours."""
    about = {one.key: one.value.string_value for one in span.attributes}
    return Span(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        job=about.get("messaging.message.id", ""),
        failed=span.status.code == ERROR,
    )
