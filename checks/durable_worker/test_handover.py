"""Jobs outlive the processes that hold them: an API killed after its answers, a worker that is asked to stop."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Lane
from readiness.targets.ragworker_keys import QueueKeys

JOBS = 8  # twice as many as there are slots: some run, some wait
LATENCY_MS = 500
HELD_SECONDS = 15.0
STOP_SECONDS = 20.0  # a worker gives its jobs ten seconds, and says goodbye within three
FINISH_SECONDS = 30.0
FAULT = "API killed with SIGKILL, worker ended with SIGTERM"


@pytest.mark.claim("A5.handover")
def test_jobs_outlive_api_and_worker(lease_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """Acknowledged jobs are done although the API is killed; a worker that is stopped finishes what it holds."""
    lane = lease_lane
    lane.script_embedding([], latency_ms=LATENCY_MS)
    with QueueKeys(lane) as keys:
        jobs = [lane.enqueue(numbered(f"handover-{seed}-{number}")).job_id for number in range(JOBS)]
        lane.kill_api()
        claims = wait_until(keys.claims, seconds=HELD_SECONDS, what="a worker that holds jobs")
        leaving = next(iter(claims.values()))
        pid = keys.pid_of(leaving)
        worker = next(one for one in lane.workers if one.pid == pid)
        asked = time.monotonic()
        worker.stop(grace_seconds=STOP_SECONDS)
        took = time.monotonic() - asked
        left = [job for job, owner in keys.claims().items() if owner == leaving]
    lane.start_api()
    lane.start_worker()
    statuses = ends_of(lane, jobs, seconds=FINISH_SECONDS)
    lane.script_embedding([])
    effects = Counter(effect.job_id for effect in lane.effects())
    stopped = [
        line for line in lane.log_lines() if line.get("message") == "worker.stopped" and leaving in str(line)
    ]

    wrong: list[str] = []
    for job in jobs:
        status = statuses[job]
        if (state_of(status), effects[job]) != ("done", 1) or status is None:
            wrong.append(f"{job}: expected done with one effect, got {state_of(status)} with {effects[job]}")
            continue
        claimed = [event.worker for event in status.history if event.event == "claimed"]
        lost = [event.event for event in status.history if event.event in ("taken_over", "retry_scheduled")]
        # A job of half a second ends long before the worker's patience does.
        if len(claimed) != 1 or lost or status.attempt != 1:
            wrong.append(
                f"{job}: expected one delivery that ends it, got {[one.event for one in status.history]}"
            )
    if left:
        wrong.append(f"expected nothing in the hands of a stopped worker, got {left}")
    if took >= STOP_SECONDS or not stopped:
        wrong.append(
            f"expected the worker to end by itself within {STOP_SECONDS:g} s, got {took:.1f} s, {len(stopped)} goodbyes"
        )
    n = 2 * len(jobs) + 2
    evidence.cases(n, min(len(wrong), n), wrong, "jobs of a killed API and of a stopped worker", fault=FAULT)
    evidence.facts(stop_seconds=round(took, 2))
    assert not wrong, wrong[0]


def numbered(name: str) -> Document:
    return Document(f"{name}.txt", "text/plain", f"{name} outlives".encode())
