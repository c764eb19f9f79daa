"""A healthy job is claimed once, tried once and embedded once, and nothing of it stays behind in Redis."""

from __future__ import annotations

from collections import Counter

import pytest

from readiness.checking.history import digest_of, requests_of
from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.targets.base import JobStatus
from readiness.targets.ragworker_keys import QueueKeys

QUIET_SECONDS = 15.0


@pytest.mark.claim("A5.deliveries")
def test_healthy_jobs_are_delivered_once(ingested: Ingested, evidence: ClaimEvidence) -> None:
    """Each document of the corpus is claimed once, embedded as often as its text occurs, and leaves Redis empty."""
    lane = ingested.lane
    wrong: list[str] = []
    try:
        wait_until(lambda: lane.depth() + lane.in_flight() == 0, seconds=QUIET_SECONDS, what="an idle queue")
    except WaitedTooLong as late:
        wrong.append(f"every job of the corpus has ended, but {late}")
    for job in ingested.job_ids:
        wrong += delivery_is_wrong(job, lane.status(job))

    # A chunk that occurs in two documents is embedded for each of them.
    stored = Counter(digest_of(chunk.text) for job in ingested.done for chunk in lane.chunks(job))
    asked = Counter(digest for one in requests_of(lane.embedding_log()) for digest in one.digests)
    again = {digest: asked[digest] for digest, count in stored.items() if asked[digest] > count}
    wrong += [
        f"chunk {digest[:12]}: expected no second request, got {times}" for digest, times in again.items()
    ]

    with QueueKeys(lane) as keys:
        snapshot = keys.snapshot()
    wrong += [f"after the drain: {problem}" for problem in snapshot.misplaced()]
    n = len(ingested.job_ids) + len(stored) + len(snapshot.states)
    evidence.cases(n, min(len(wrong), n), wrong, "deliveries, requests and leftovers of healthy jobs")
    evidence.facts(jobs=len(ingested.job_ids), chunks=sum(stored.values()), records=len(snapshot.states))
    assert not wrong, wrong[0]


def delivery_is_wrong(job: str, status: JobStatus) -> list[str]:
    """What shows a second delivery or attempt of a job that met no fault."""
    events = [event.event for event in status.history]
    once = events[:2] == ["submitted", "claimed"] and events[2:] in (["done"], ["dead"])
    if once and status.deliveries == status.attempt == 1:
        return []
    return [f"{job}: expected to be claimed once and to end, got {status.state} after {events}"]
