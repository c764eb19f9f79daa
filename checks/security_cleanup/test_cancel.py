"""A cancelled job ends within five seconds, commits nothing, and leaves the worker as able as before."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import redis

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

JOBS = 24
BY_FAILURE = 4  # of them fail and wait for a retry when they are cancelled
EFFECT_SECONDS = 5.0
LATENCY_MS = 400
BATCHES = 10
SPREAD_SECONDS = 0.12  # between two cancels
FINISH_SECONDS = 20.0
CAPACITY_JOBS = 4  # RAG_WORKER_CONCURRENCY: were slots lost, these would not run side by side


@pytest.mark.early
@pytest.mark.claim("D1.cancel")
def test_cancel_takes_effect_within_five_seconds(
    cleanup_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """Jobs cancelled while they wait, run, or wait for a retry all end cancelled in time and without an
    effect.
    """
    slow = cleanup_lane
    slow.script_embedding([{"contains": f"cancel-fails-{seed}", "status": 500}], latency_ms=LATENCY_MS)
    draw = random.Random(seed)
    jobs = [slow.enqueue(long_document(seed, number)).job_id for number in range(JOBS)]
    wait_until(lambda: slow.in_flight() > 0, seconds=FINISH_SECONDS, what="a running job")

    # When they are cancelled one by one, in random order, so that some run and some wait.
    cancelled_at: dict[str, float] = {}
    stages: dict[str, str] = {}
    ended_at: dict[str, float] = {}
    keys: dict[str, dict[str, str]] = {}
    statuses: dict[str, int] = {}
    order = draw.sample(jobs, len(jobs))
    with redis.Redis.from_url(slow.redis_url, decode_responses=True, socket_timeout=5) as client:
        while order or len(ended_at) < len(jobs):
            if order:
                job = order.pop()
                stages[job] = slow.status(job).state
                cancelled_at[job] = time.monotonic()
                statuses[job] = slow.cancel(job, reason=f"reason {seed}")
                keys[job] = client.hgetall(f"job:cancel:{job}")
            watch(slow, cancelled_at, ended_at, seconds=SPREAD_SECONDS)
            if not order and time.monotonic() > max(cancelled_at.values()) + FINISH_SECONDS:
                break

    # Then each took effect in time, nothing was committed, and the request is in its hash.
    final = {job: slow.status(job).state for job in jobs}
    effects = {effect.job_id for effect in slow.effects()}
    seconds = [ended_at.get(job, float("inf")) - cancelled_at[job] for job in jobs]
    wrong: list[str] = []
    for job in jobs:
        took = ended_at.get(job, float("inf")) - cancelled_at[job]
        facts: dict[str, Any] = {
            "accepted": statuses[job] == 202,
            "ended cancelled": final[job] == "cancelled",
            "within 5 s": took <= EFFECT_SECONDS,
            "nothing committed": job not in effects,
            "request in Redis with its reason": keys[job].get("reason") == f"reason {seed}",
        }
        wrong += [
            f"{job} ({stages[job]}): {what} is not so ({final[job]}, {took:.2f} s)"
            for what, ok in facts.items()
            if not ok
        ]

    # And the capacity is what it was: as many normal jobs as there are slots run side by side.
    slow.script_embedding([], latency_ms=LATENCY_MS)
    normal = [slow.enqueue(short_document(seed, number)).job_id for number in range(CAPACITY_JOBS)]
    states = {status.state for status in slow.wait_all(normal, seconds=FINISH_SECONDS).values()}
    slow.script_embedding([])
    again = slow.cancel(normal[0], reason="too late")
    if states != {"done"}:
        wrong.append(f"normal jobs afterwards: expected done, got {sorted(states)}")
    if again != 409:
        wrong.append(f"cancel of a finished job: expected 409, got {again}")

    n = 5 * JOBS + 2
    evidence.cases(n, len(wrong), wrong, "facts of cancelled jobs")
    evidence.samples(
        [value for value in seconds if value != float("inf")], "s", "from the cancel request to its effect"
    )
    evidence.facts(stages={stage: list(stages.values()).count(stage) for stage in set(stages.values())})
    assert not wrong, wrong[0]


def watch(lane: Lane, cancelled_at: dict[str, float], ended_at: dict[str, float], *, seconds: float) -> None:
    """For a moment, look which of the cancelled jobs have ended by now."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for job in [job for job in cancelled_at if job not in ended_at]:
            if lane.status(job).finished:
                ended_at[job] = time.monotonic()
        time.sleep(0.02)


def long_document(seed: int, number: int) -> Document:
    """A document of some batches; the first few of them never embed."""
    start = f"cancel-fails-{seed}" if number < BY_FAILURE else "cancel"
    words = " ".join(f"{start}-{number}-{word}" for word in range(150 * 4 * BATCHES))
    return Document(name=f"cancel-{number}.txt", media_type="text/plain", content=words.encode())


def short_document(seed: int, number: int) -> Document:
    content = f"after the cancels {seed} {number}"
    return Document(name=f"normal-{number}.txt", media_type="text/plain", content=content.encode())
