"""Workers outlive an outage of Redis: they come back spread over time, each by itself, and serve again in seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document

AWAY_SECONDS = 4.5
SETTLED_SECONDS = 2.5  # by then the pauses have grown to their longest, about a second
PAUSE_SECONDS = 1.0  # the longest pause, around which the true ones have to be spread
SAME_MOMENT_SECONDS = 0.03
IN_STEP_SHARE = (
    0.75  # of attempts that come a pause after another one, to the moment; spread ones: about a third
)
ATTEMPTS_MIN = 10
JOBS = 12
BACK_SECONDS = 20.0
FAULT = "Redis gone for seconds, then started again"


@pytest.mark.claim("A5.reconnect", "H7.spread")
def test_workers_come_back_by_themselves_and_not_in_step(
    outage_lane: Any, evidence: ClaimEvidence, seed: int
) -> None:
    """While Redis is away workers ask for it at jittered moments; when it is back the same processes do all jobs."""
    alone, server = outage_lane.lane, outage_lane.redis
    alone.script_embedding([])
    workers = [worker for worker in alone.workers if worker.alive]
    pids = [worker.pid for worker in workers]

    # Only workers may knock: the API, asked by Prometheus, would come as regularly as a clock.
    before = alone.enqueue(numbered(f"before-the-outage-{seed}"))
    alone.stop_api()
    server.stop()
    with knocks_at(server.url) as knocks:
        time.sleep(AWAY_SECONDS)  # the outage itself: nothing is waited for
    heard = [at - knocks[0] for at in knocks] if knocks else []
    server.start()
    back = time.monotonic()
    alone.start_api()
    jobs = [before, *(alone.enqueue(numbered(f"reconnect-{seed}-{number}")) for number in range(JOBS))]
    statuses = ends_of(alone, [one.job_id for one in jobs if one.accepted], seconds=BACK_SECONDS)
    took = time.monotonic() - back
    effects = [effect.job_id for effect in alone.effects()]

    wrong = [f"expected 202, got {one.status_code}" for one in jobs if one.status_code != 202]
    wrong += [
        f"{job}: expected done with one effect within {BACK_SECONDS:g} s of Redis' return,"
        f" got {state_of(status)} with {effects.count(job)}"
        for job, status in statuses.items()
        if state_of(status) != "done" or effects.count(job) != 1
    ]
    durable = sum(1 for status in statuses.values() if status is not None and status.mode == "durable")
    if not durable:
        wrong.append("expected jobs that workers did, got only background ones")
    wrong += [
        f"worker {worker.pid}: expected it to outlive the outage, it ended"
        for worker in workers
        if not worker.alive
    ]
    in_step = in_step_problems(heard, workers=len(workers))
    n = len(jobs) + len(workers) + 1
    evidence.cases(
        n, min(len(wrong), n), wrong, "jobs and workers after the outage", claim="A5.reconnect", fault=FAULT
    )
    evidence.cases(
        2, len(in_step), in_step, "attempts to reach Redis while it was away", claim="H7.spread", fault=FAULT
    )
    evidence.facts(
        worker_pids=pids,
        durable=durable,
        served_again_seconds=round(took, 2),
        knocks=[round(at, 3) for at in heard],
        in_step_share=in_step_share(heard),
    )
    assert not wrong, wrong[0]
    assert not in_step, in_step[0]


def in_step_problems(heard: Sequence[float], *, workers: int) -> list[str]:
    """What is wrong with the moments at which workers asked for Redis: too few, or as if by one clock."""
    if len(heard) < ATTEMPTS_MIN:
        return [
            f"expected at least {ATTEMPTS_MIN} attempts of {workers} workers to reach Redis, got {len(heard)}"
        ]
    share = in_step_share(heard)
    if share < IN_STEP_SHARE:
        return []
    return [
        f"expected attempts spread by jitter, got {share:.0%} of them {PAUSE_SECONDS:g} s after another one,"
        f" to {SAME_MOMENT_SECONDS * 1000:g} ms: they come in step"
    ]


def in_step_share(heard: Sequence[float]) -> float:
    """Which part of the later attempts follows some attempt by just the longest pause."""
    later = [at for at in heard if at >= SETTLED_SECONDS]
    same = [
        at for at in later if any(abs(at - PAUSE_SECONDS - other) <= SAME_MOMENT_SECONDS for other in heard)
    ]
    return len(same) / len(later) if later else 0.0


@contextmanager
def knocks_at(url: str) -> Iterator[list[float]]:
    """Listen where Redis was, hang up at once, and note when somebody came; seconds of the monotonic clock."""
    address = urlsplit(url)
    moments: list[float] = []
    ended = threading.Event()
    with socket.create_server((address.hostname or "", address.port or 0), backlog=256) as door:
        door.settimeout(0.2)

        def listen() -> None:
            while not ended.is_set():
                try:
                    caller, _ = door.accept()
                except TimeoutError:
                    continue
                moments.append(time.monotonic())
                caller.close()

        listener = threading.Thread(target=listen, name="knocks")
        listener.start()
        try:
            yield moments
        finally:
            ended.set()
            listener.join(timeout=5)


def numbered(name: str) -> Document:
    return Document(f"{name}.txt", "text/plain", f"{name} back again".encode())
