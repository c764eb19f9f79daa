"""With tracing on, a job is one trace: from the request through the queue to the worker's commit, retries included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document

JOBS, STUMBLING = 12, 4
FINISH_SECONDS = 20.0
EXPORT_SECONDS = 10.0
API, WORKER = "ragworker-api", "ragworker-worker"
CANARY = "canary-sentence-of-a-traced-document"


@pytest.mark.claim("G2.spans")
def test_a_job_is_one_trace(traced_lane: Any, evidence: ClaimEvidence) -> None:
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


def fault(spans: Sequence[Any], job: str, trace: str, deliveries: int) -> str:
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
