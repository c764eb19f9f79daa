"""In no window do more embedding requests leave than the limit allows, however many processes send them."""

from __future__ import annotations

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.history import requests_of, window_counts
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.pytest_plugin import LaneFactory

WORKERS = 2
LIMIT = 20
WINDOW_SECONDS = 2.0  # the minute of production, compressed thirty times; the algorithm is the same
# The limiter counts when a request leaves, the log when it arrives: on a crowded machine the way takes up to
# this much longer for one request than for another. A limiter that lets two windows through is far outside.
TRAVEL_SECONDS = 0.1
JOBS = 45  # two requests each: more than four windows
FINISH_SECONDS = 30.0


@pytest.mark.early
@pytest.mark.claim("B2.rate_limit")
def test_no_window_holds_more_than_the_limit(lane: LaneFactory, evidence: ClaimEvidence, seed: int) -> None:
    """Two worker processes under more work than the limit lets through never exceed it in any sliding
    window.
    """
    limited = lane(
        "rate",
        workers=WORKERS,
        RAG_EMBEDDING_RATE_LIMIT=LIMIT,
        RAG_EMBEDDING_RATE_WINDOW_SECONDS=WINDOW_SECONDS,
        RAG_EMBEDDING_BATCH_SIZE=1,
        RAG_WORKER_CONCURRENCY=8,
    )
    jobs = [limited.enqueue(two_chunks(f"rate-{seed}-{number}")).job_id for number in range(JOBS)]
    states = {state_of(status) for status in ends_of(limited, jobs, seconds=FINISH_SECONDS).values()}
    times = [request.at for request in requests_of(limited.embedding_log())]
    assert times, "no request reached the embedding API"
    counts = window_counts(times, seconds=WINDOW_SECONDS - TRAVEL_SECONDS)
    above = [count for count in counts if count > LIMIT]
    evidence.trials(len(counts), len(above), "windows", examples=above)
    evidence.facts(
        fullest_window=max(counts),
        fullest_window_without_tolerance=max(window_counts(times, seconds=WINDOW_SECONDS)),
        limit=LIMIT,
        window_seconds=WINDOW_SECONDS,
        tolerance_seconds=TRAVEL_SECONDS,
        workers=WORKERS,
        requests=len(times),
        seconds=round(times[-1] - times[0], 3),
    )
    assert states == {"done"}, f"expected every job done under the limit, got {sorted(states)}"
    assert max(counts) > LIMIT // 2, f"no pressure on the limiter: the fullest window held {max(counts)}"
    assert not above, f"expected at most {LIMIT} requests in any {WINDOW_SECONDS:g} s, got {max(counts)}"


def two_chunks(name: str) -> Document:
    words = " ".join(f"{name}-{number}" for number in range(200))
    return Document(name=f"{name}.txt", media_type="text/plain", content=words.encode())
