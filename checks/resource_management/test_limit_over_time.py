"""What the limit does over many windows, and over two queues: for the release, because it takes its time."""

from __future__ import annotations

from typing import Any

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.history import requests_of, window_counts
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.pytest_plugin import LaneFactory
from readiness.targets.base import Lane

LIMIT = 20
WINDOW_SECONDS = 2.0
TRAVEL_SECONDS = 0.1
WINDOWS = 12  # more than the eight in which all of the limit comes back
FINISH_SECONDS = 90.0


@pytest.mark.early
@pytest.mark.claim("B2.recovery")
def test_the_limit_comes_back_after_a_refusal(limited_lane: Any, evidence: ClaimEvidence, seed: int) -> None:
    """After one 429 fewer requests leave, then more and more, at last as many as the limit allows, never more."""
    lane: Lane = limited_lane.lane
    limit = int(lane.settings["RAG_EMBEDDING_RATE_LIMIT"])
    window = float(lane.settings["RAG_EMBEDDING_RATE_WINDOW_SECONDS"])
    earlier = len(lane.embedding_log())
    refused = f"comes-back-{seed}-0"
    lane.script_embedding([{"contains": refused, "times": 1, "status": 429, "retry_after": 0.5}])
    jobs = [
        lane.enqueue(one_chunk(f"comes-back-{seed}-{number}")).job_id for number in range(WINDOWS * limit)
    ]
    states = {state_of(status) for status in ends_of(lane, jobs, seconds=FINISH_SECONDS).values()}
    requests = requests_of(lane.embedding_log())[earlier:]
    refusal = next(request for request in requests if request.status == 429)
    after = [request.at for request in requests if request.at > refusal.ended]
    counts = window_counts(after, seconds=window - TRAVEL_SECONDS)
    first, fullest = counts[0], max(counts)
    wrong = [] if fullest <= limit else [f"expected at most {limit} requests in a window, got {fullest}"]
    if fullest < 0.9 * limit:
        wrong.append(f"expected the full limit of {limit} to come back, got {fullest} in the fullest window")
    if first > 0.7 * limit:
        wrong.append(
            f"expected fewer requests right after the 429, got {first} of {limit} in the first window"
        )
    if states != {"done"}:
        wrong.append(f"expected every job done, got {sorted(states)}")
    evidence.cases(4, len(wrong), wrong, "the rate after a 429")
    evidence.facts(first_window=first, fullest_window=fullest, limit=limit, requests=len(requests))
    assert not wrong, wrong[0]


@pytest.mark.claim("B2.queues")
def test_queues_on_one_redis_have_a_limit_each(lane: LaneFactory, evidence: ClaimEvidence, seed: int) -> None:
    """Two queues with work for one window each are both done within it: neither waits for the other's limit."""
    lanes = [
        lane(
            f"queue-{number}",
            RAG_EMBEDDING_RATE_LIMIT=LIMIT,
            RAG_EMBEDDING_RATE_WINDOW_SECONDS=WINDOW_SECONDS,
        )
        for number in range(2)
    ]
    jobs = {
        one.name: [one.enqueue(one_chunk(f"{one.name}-{seed}-{number}")).job_id for number in range(LIMIT)]
        for one in lanes
    }
    wrong: list[str] = []
    spans: dict[str, float] = {}
    for one in lanes:
        states = {
            state_of(status) for status in ends_of(one, jobs[one.name], seconds=FINISH_SECONDS).values()
        }
        if states != {"done"}:
            wrong.append(f"{one.name}: expected every job done, got {sorted(states)}")
        times = [request.at for request in requests_of(one.embedding_log())]
        spans[one.name] = max(times) - min(times)
        if spans[one.name] > WINDOW_SECONDS:
            wrong.append(
                f"{one.name}: expected {LIMIT} requests within a window, they took {spans[one.name]:.1f} s"
            )
    evidence.cases(2 * len(lanes), len(wrong), wrong, "queues that share a Redis")
    evidence.facts(seconds={name: round(span, 3) for name, span in spans.items()})
    assert not wrong, wrong[0]


def one_chunk(name: str) -> Document:
    return Document(f"{name}.txt", "text/plain", name.encode())
