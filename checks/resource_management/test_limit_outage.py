"""While nobody can say whose turn it is nothing leaves; and a Redis that forgot does not make the limit forget."""

from __future__ import annotations

import time
from typing import Any

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.history import requests_of, window_counts
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

TRAVEL_SECONDS = 0.1
# A slot that was given just before the loss may still be used for a moment.
GRACE_SECONDS = 0.5
OUTAGE_SECONDS = 3.0  # longer than the window, so that every slot that was promised before falls into it
CHUNKS = 8  # of each document: it has requests left when Redis goes
DOCUMENTS = 5
FINISH_SECONDS = 40.0
FAULT = "Redis killed with SIGKILL under the rate limiter, and restarted"


@pytest.mark.claim("B2.outage")
def test_nothing_leaves_while_redis_is_away(limited_lane: Any, evidence: ClaimEvidence, seed: int) -> None:
    """Redis is killed in the middle of a queue for slots. Until it is back no request leaves; then every document is
    done, and no window around the loss holds more than the limit.
    """
    if limited_lane.redis is None:
        pytest.skip("needs a real redis-server to kill; `apt install redis-server`")
    lane: Lane = limited_lane.lane
    limit = int(lane.settings["RAG_EMBEDDING_RATE_LIMIT"])
    window = float(lane.settings["RAG_EMBEDDING_RATE_WINDOW_SECONDS"])
    earlier = len(lane.embedding_log())
    lane.script_embedding([])
    jobs = [lane.enqueue(long_document(seed, number)).job_id for number in range(DOCUMENTS)]
    wait_until(
        lambda: len(lane.embedding_log()) >= earlier + limit, seconds=FINISH_SECONDS, what="a full window"
    )
    running = lane.in_flight()
    limited_lane.redis.kill()
    lost = time.monotonic()
    wait_until(lambda: time.monotonic() > lost + OUTAGE_SECONDS, seconds=60, what="the end of the outage")
    back = time.monotonic()
    limited_lane.redis.start()
    states = {job: state_of(status) for job, status in ends_of(lane, jobs, seconds=FINISH_SECONDS).items()}

    requests = requests_of(lane.embedding_log())[earlier:]
    times = [request.at for request in requests]
    during = [at for at in times if lost + GRACE_SECONDS < at < back]
    counts = window_counts(times, seconds=window - TRAVEL_SECONDS)
    wrong = [f"a request left {at - lost:.2f} s after Redis was lost" for at in during[:1]]
    wrong += [
        f"a window with {count} requests, expected at most {limit}" for count in counts if count > limit
    ]
    wrong += [
        f"{job}: expected done after the outage, got {state}"
        for job, state in states.items()
        if state != "done"
    ]
    if len(requests) < CHUNKS * DOCUMENTS:
        wrong.append(f"expected {CHUNKS * DOCUMENTS} requests in all, got {len(requests)}")
    n = 2 + len(counts) + len(jobs)
    evidence.cases(
        n, min(n, len(wrong)), wrong, "windows and documents around the loss of Redis", fault=FAULT
    )
    evidence.facts(
        during_outage=len(during),
        fullest_window=max(counts),
        first_after_seconds=round(min((at for at in times if at >= back), default=back) - back, 3),
        outage_seconds=round(back - lost, 3),
        jobs_running=running,
    )
    assert running, "no job was running when Redis went: the check showed nothing"
    assert not wrong, wrong[0]


def long_document(seed: int, number: int) -> Document:
    words = " ".join(f"outage-{seed}-{number}-{word}" for word in range(150 * CHUNKS + 29))
    return Document(f"outage-{number}.txt", "text/plain", words.encode())
