"""A cancelled job stays cancelled: no retry, no takeover and no new submission brings it back."""

from __future__ import annotations

import time

import pytest
import redis

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import JobStatus, Lane

FAILING = 8  # cancelled while the attempt that will fail is under way
FAIL_MS = 300
UNDER_WAY_SECONDS = 0.05
RACE_MS = 50
ORPHANS = 2  # cancelled by API and by hash when their worker is killed
LATENCY_MS = 300
EFFECT_SECONDS = 5.0
FINISH_SECONDS = 20.0
QUIET_SECONDS = 1.5  # longer than a lease and than the worker's look at all cancellations
FAULT = "worker killed with SIGKILL right after a cancellation"


@pytest.mark.claim("D1.final")
def test_a_cancelled_job_never_comes_back(cleanup_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """Jobs whose attempt fails after the cancellation, and jobs whose worker dies after it, end cancelled in time; then
    nothing of them happens any more, not even when they are submitted again.
    """
    lane = cleanup_lane
    stubborn = f"stubborn-{seed}"
    lane.script_embedding([{"contains": stubborn, "status": 500, "delay_ms": FAIL_MS}], latency_ms=LATENCY_MS)
    documents: dict[str, Document] = {}
    cancelled_at: dict[str, float] = {}
    with redis.Redis.from_url(lane.redis_url, decode_responses=True, socket_timeout=5) as client:
        # Given attempts that are about to fail, cancelled before they do.
        by_hash = 0
        for number in range(FAILING):
            document = Document(f"{stubborn}-{number}.txt", "text/plain", f"{stubborn} {number}".encode())
            job = run_and_cancel(lane, client, document, by_hash=number % 2 == 0)
            documents[job], cancelled_at[job] = document, time.monotonic()
            by_hash += number % 2 == 0
        statuses = ends_of(lane, list(documents), seconds=EFFECT_SECONDS + 1)
        took = {
            job: ended_seconds(lane, job, at, status)
            for (job, at), status in zip(cancelled_at.items(), statuses.values(), strict=True)
        }

        # And jobs whose worker dies: one cancelled just before, one just after.
        orphans = [document_of_batches(seed, number) for number in range(ORPHANS)]
        first, second = (lane.enqueue(document).job_id for document in orphans)
        wait_until(lambda: lane.in_flight() >= ORPHANS, seconds=FINISH_SECONDS, what="two running jobs")
        accepted = lane.cancel(first, reason="before the kill")
        lane.workers[-1].kill()
        client.hset(f"job:cancel:{second}", mapping={"reason": "after the kill"})
    lane.start_worker()
    statuses |= ends_of(lane, [first, second], seconds=FINISH_SECONDS)
    documents |= dict(zip((first, second), orphans, strict=True))

    # Then they stay as they are, also when the same work is submitted again.
    wrong = [
        f"{documents[job].name}: expected cancelled, got {state_of(status)}"
        f" with the history {[event.event for event in status.history] if status else []}"
        for job, status in statuses.items()
        if state_of(status) != "cancelled"
    ]
    wrong += [
        f"{documents[job].name}: expected its end within {EFFECT_SECONDS:g} s, got {seconds:.2f} s"
        for job, seconds in took.items()
        if seconds > EFFECT_SECONDS
    ]
    if accepted != 202:
        wrong.append(f"expected 202 to the cancellation of a running job, got {accepted}")
    lane.script_embedding([])
    requests = len(lane.embedding_log())
    for job, document in documents.items():
        again = lane.enqueue(document)
        if (again.job_id, again.duplicate) != (job, True):
            wrong.append(f"{document.name}: expected the same cancelled job again, got {again.body}")
    until = time.monotonic() + QUIET_SECONDS
    wait_until(lambda: time.monotonic() > until, seconds=60, what="a quiet while")
    wrong += [
        f"{document.name}: expected it to stay cancelled, got {state}"
        for job, document in documents.items()
        if (state := lane.status(job).state) != "cancelled"
    ]
    if (more := len(lane.embedding_log()) - requests) > 0:
        wrong.append(f"expected no embedding request after the end of all jobs, got {more}")
    effects = {effect.job_id for effect in lane.effects()}
    wrong += [f"{document.name}: committed" for job, document in documents.items() if job in effects]

    n = 4 * len(documents) + 2
    evidence.cases(
        n, min(n, len(wrong)), wrong, "facts of jobs that were cancelled before a retry", fault=FAULT
    )
    evidence.facts(
        by_hash=by_hash,
        attempts={documents[job].name: status.attempt for job, status in statuses.items() if status},
        seconds={documents[job].name: round(seconds, 3) for job, seconds in took.items()},
    )
    assert not wrong, wrong[0]


def run_and_cancel(lane: Lane, client: redis.Redis, document: Document, *, by_hash: bool) -> str:
    """Submit, wait until its attempt is under way, cancel; by the hash alone as another host would, or by the API."""
    job = lane.enqueue(document).job_id
    wait_until(
        lambda: lane.status(job).state not in ("queued", "missing"),
        seconds=FINISH_SECONDS,
        what="a running job",
        every_seconds=0.005,
    )
    time.sleep(
        UNDER_WAY_SECONDS
    )  # it is on its way to the embedding API now; were it not, the check still holds
    if by_hash:
        written_ms = time.time() * 1000
        client.hset(f"job:cancel:{job}", mapping={"reason": "another host"})
        retries = [event.at_ms for event in lane.status(job).history if event.delay_ms is not None]
        if not retries or retries[0] > written_ms + RACE_MS:
            return job
        # The attempt had failed before the hash was there: a job that waits is cancelled by the API.
    lane.cancel(job, reason="by the API")
    return job


def ended_seconds(lane: Lane, job: str, cancelled_at: float, status: JobStatus | None) -> float:
    """From the cancellation to the end, by the job's own clock; infinite when it has not ended."""
    if status is None or not status.finished or status.finished_ms is None:
        return float("inf")
    return status.finished_ms / 1000 - (time.time() - (time.monotonic() - cancelled_at))


def document_of_batches(seed: int, number: int) -> Document:
    words = " ".join(f"orphan-{seed}-{number}-{word}" for word in range(150 * 4 * 20))
    return Document(f"orphan-{number}.txt", "text/plain", words.encode())
