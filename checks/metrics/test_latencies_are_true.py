"""Durations are milliseconds and are those that clients, histories and the embedding API saw: each sum, each bucket."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

import pytest

from readiness.checking.exposition import Exposition
from readiness.checking.fates import CLIENT_CLOSED, KINDS, SLOW_MS, Fates
from readiness.checking.recorder import ClaimEvidence

QUANTILE = 0.95
OBJECTIVE_MS = 60_000.0  # spec H1, F7: P95 must be readable on both sides of it
LONGEST_MS = 300_000.0
# Around the objective a quantile is read from a bucket: no farther apart than this, or it says next to nothing.
BUCKET_RATIO = 2.5
CLOCK_MS = 5.0  # rounding to milliseconds, twice
# The server's part of an answer's time is not less than this of what the client saw; a wrong unit is a factor of 1,000.
LEAST_SHARE = 0.01


@pytest.mark.claim("E1.latency")
def test_latencies_are_true(fates: Fates, evidence: ClaimEvidence) -> None:
    """Job durations equal the histories, embedding latencies the embedding API's, answers the client's."""
    end = fates.scrapes["end"]
    wrong = [*borders(end), *jobs(fates, end), *embedding(fates, end), *answers(fates, end)]
    n = max(12, len(wrong))
    evidence.cases(n, len(wrong), wrong, "sums, counts and buckets compared with what others measured")
    evidence.facts(
        jobs_sum_ms=end.total("rag_job_duration_ms_sum"),
        embedding_sum_ms=end.total("embedding_api_latency_ms_sum"),
        answers=len(fates.answers),
    )
    assert not wrong, wrong[0]


def borders(end: Exposition) -> Iterator[str]:
    """Whether a P95 near the objective can be read at all: an error bound of the quantile."""
    edges = sorted(float(le) for le in labels(end, "rag_job_duration_ms_bucket"))
    finite = [edge for edge in edges if edge != float("inf")]
    if not finite or finite[-1] < LONGEST_MS:
        yield f"rag_job_duration_ms: expected buckets up to {LONGEST_MS:g} ms, got up to {max(finite, default=0):g}"
    if OBJECTIVE_MS not in finite:
        yield f"rag_job_duration_ms: expected a border at {OBJECTIVE_MS:g} ms, got {finite}"
    near = [edge for edge in finite if OBJECTIVE_MS / BUCKET_RATIO <= edge <= OBJECTIVE_MS * BUCKET_RATIO]
    if any(high / low > BUCKET_RATIO for low, high in pairwise(near)) or len(near) < 3:
        yield f"rag_job_duration_ms: expected borders near {OBJECTIVE_MS:g} no farther apart than 1:{BUCKET_RATIO}"


def jobs(fates: Fates, end: Exposition) -> Iterator[str]:
    """The histogram of jobs against their histories, and those against what the client waited."""
    truth = sorted(durations(fates))
    total = end.total("rag_job_duration_ms_sum")
    if abs(total - sum(truth)) > CLOCK_MS:
        yield f"rag_job_duration_ms: expected a sum of {sum(truth):g} ms (histories), got {total:g}"
    for le in labels(end, "rag_job_duration_ms_bucket"):
        below = bisect_left(truth, float(le) + 1e-9)
        if (got := end.total("rag_job_duration_ms_bucket", le=le)) != below:
            yield f"rag_job_duration_ms: expected {below} jobs up to {le} ms, got {got:g}"
    slow = [value for job in fates.jobs["slow"] for value in durations(fates, job)]
    if len(slow) != KINDS["slow"] or min(slow, default=0) < SLOW_MS:
        yield f"jobs whose embedding takes {SLOW_MS} ms: expected durations above that, got {slow}"
    for job in fates.all_jobs:
        if (
            job in fates.seconds
            and max(durations(fates, job), default=0) > 1000 * fates.seconds[job] + CLOCK_MS
        ):
            yield f"{job}: says {max(durations(fates, job)):g} ms, the client waited {1000 * fates.seconds[job]:g} ms"


def embedding(fates: Fates, end: Exposition) -> Iterator[str]:
    """Latencies that workers saw are those of the embedding API and the way between them."""
    answered = [request for request in fates.requests if request.status not in (0, CLIENT_CLOSED)]
    truth = [1000 * (request.ended - request.at) for request in answered]
    total = end.total("embedding_api_latency_ms_sum")
    # On a busy machine the way takes long, but never a thousand times as long.
    if not sum(truth) - CLOCK_MS <= total <= 20 * sum(truth) + 1000 * len(truth):
        yield f"embedding_api_latency_ms: expected a sum of about {sum(truth):.0f} ms, got {total:g}"
    slow = sum(1 for value in truth if value >= SLOW_MS)
    below = end.total("embedding_api_latency_ms_bucket", le="250.0")
    if len(truth) - below < slow:
        yield f"embedding_api_latency_ms: expected at least {slow} requests above 250 ms, got {len(truth) - below:g}"
    stage = end.total("rag_stage_duration_ms_sum", stage="embed")
    if stage < sum(truth) - CLOCK_MS:
        yield f"rag_stage_duration_ms of embed: expected at least {sum(truth):.0f} ms, got {stage:g}"


def answers(fates: Fates, end: Exposition) -> Iterator[str]:
    """Requests are counted one by one, and took the server a part of what they took the client."""
    mine = [answer for answer in fates.answers if answer[1] != "/metrics"]
    counted = {
        (one.labels["method"], one.labels["status"]): 0.0
        for one in end.series
        if one.name == "rag_http_requests_total"
    }
    for method, status in counted:
        rows = [
            one.value
            for one in end.series
            if one.name == "rag_http_requests_total"
            and (one.labels["method"], one.labels["status"]) == (method, status)
            and one.labels["route"] != "/metrics"
        ]
        known = sum(1 for answer in mine if (answer[0], str(answer[2])) == (method, status))
        if sum(rows) != known:
            yield f"rag_http_requests_total: expected {known} {method} answered {status}, got {sum(rows):g}"
    seen = 1000 * sum(answer[3] for answer in mine)
    server = sum(
        one.value
        for one in end.series
        if one.name == "rag_http_request_duration_ms_sum" and one.labels["route"] != "/metrics"
    )
    if not LEAST_SHARE * seen <= server <= seen + CLOCK_MS:
        yield f"rag_http_request_duration_ms: expected a part of the client's {seen:.0f} ms, got {server:.0f}"


def durations(fates: Fates, only: str = "") -> list[float]:
    """How long jobs took from their entry into the queue to their end, done or dead, in ms; twice when requeued."""
    found: list[float] = []
    for job, status in fates.statuses.items():
        if status is None or (only and job != only):
            continue
        entered = status.created_ms
        for event in status.history:
            if event.event == "requeued":
                entered = event.at_ms
            elif event.event in ("done", "dead"):
                found.append(float(event.at_ms - entered))
    return found


def labels(scrape: Exposition, name: str) -> list[str]:
    return [one.labels["le"] for one in scrape.series if one.name == name]
