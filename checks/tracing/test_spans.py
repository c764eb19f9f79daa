"""With tracing on, a job is one trace: from the request through the queue to the worker's commit, retries included."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.pytest_plugin import lane_factory
from readiness.targets.base import Lane, Target

JOBS, STUMBLING = 12, 4
FINISH_SECONDS = 20.0
EXPORT_SECONDS = 10.0
EXPORT_EVERY_MS = 200
API, WORKER = "ragworker-api", "ragworker-worker"
ERROR = 2  # opentelemetry.proto Status.STATUS_CODE_ERROR
CANARY = "canary-sentence-of-a-traced-document"


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
        )
        yield Traced(lane=lane, collector=collector)


@pytest.mark.claim("G2.spans")
def test_a_job_is_one_trace(traced_lane: Traced, evidence: ClaimEvidence) -> None:
    """The spans of a job have the id that the answer showed, hang together down from the request, come from both
    services, once a delivery, and hold no text of the document.
    """
    lane, collector = traced_lane.lane, traced_lane.collector
    lane.script_embedding(
        [{"contains": f"traced-{number}-", "times": 1, "status": 500} for number in range(STUMBLING)]
    )
    traces: dict[str, tuple[str, int]] = {}
    for number in range(JOBS):
        content = f"traced-{number}- {CANARY}".encode()
        answer = lane.enqueue(Document(f"traced-{number}.txt", "text/plain", content))
        traces[answer.job_id] = answer.headers["x-trace-id"].removeprefix("trace-"), 1 + (number < STUMBLING)
    lane.wait_all(list(traces), seconds=FINISH_SECONDS)

    def wrong_ones() -> list[str]:
        spans = collector.spans()
        return [f"{job}: {why}" for job, (trace, n) in traces.items() if (why := fault(spans, job, trace, n))]

    try:
        wait_until(lambda: not wrong_ones(), seconds=EXPORT_SECONDS, what="whole traces", every_seconds=0.2)
        wrong: list[str] = []
    except WaitedTooLong:
        wrong = wrong_ones()
    leaks = [
        body for body in collector.bodies if CANARY.encode() in body or lane.embedding_key.encode() in body
    ]
    if leaks:
        wrong.append(f"expected no text of a document and no key in a span, got it in {len(leaks)} exports")
    evidence.trials(JOBS + 1, min(len(wrong), JOBS + 1), "jobs", examples=wrong)
    evidence.facts(spans=len(collector.spans()), exports=len(collector.bodies))
    assert not wrong, wrong[0]


def fault(spans: list[Span], job: str, trace: str, deliveries: int) -> str:
    """What is wrong with the trace of a job; "" for nothing."""
    own = {span.id: span for span in spans if span.trace == trace}
    of_job = [span for span in spans if span.job == job]
    strays = [span for span in of_job if span.trace != trace]
    if strays:
        return f"expected the trace {trace}, got {strays[0].name} of {strays[0].service} in {strays[0].trace}"
    work = [span for span in of_job if span.name == "process"]
    if len(work) != deliveries or any(span.service != WORKER for span in work):
        return f"expected {deliveries} spans process of {WORKER} in the trace {trace}, got {len(work)}"
    if sum(span.failed for span in work) != deliveries - 1:
        return f"expected {deliveries - 1} of its spans process marked as failed, got {sum(s.failed for s in work)}"
    roots = [span for span in own.values() if span.parent not in own]
    if len(roots) != 1 or roots[0].service != API:
        return (
            f"expected one root, of {API}, in the trace {trace}, got {[(r.service, r.name) for r in roots]}"
        )
    names = {span.name for span in own.values()}
    if not {"submit", "extract", "commit"} <= names:
        return f"expected submit, extract and commit in the trace {trace}, got {sorted(names)}"
    return ""


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
