"""In no window do more embedding requests leave than the limit allows, however many processes send them."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.history import requests_of, window_counts
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

# The limiter counts when a request leaves, the log when it arrives: on a crowded machine the way takes up to
# this much longer for one request than for another. A limiter that lets two windows through is far outside.
TRAVEL_SECONDS = 0.1
# The system may keep a longer window than it promises, to be sure; the bursts are timed by this guess of it.
MARGIN_SECONDS = 0.5
REQUESTS_A_JOB = 2
FINISH_SECONDS = 30.0
LATENCY_MS = 50
LEAST_SHARE = 0.2  # of the jobs, done by the worker that did fewer


@pytest.mark.early
@pytest.mark.claim("B2.rate_limit")
def test_no_window_holds_more_than_the_limit(limited_lane: Any, evidence: ClaimEvidence, seed: int) -> None:
    """Two workers with more work than may leave never exceed the limit in any sliding window, also when the bursts
    straddle the edges of windows that a simpler limiter would have.

    A counter that starts anew with its first request would let a burst through twice shortly after a lone request;
    one that starts anew at fixed times, at one of two bursts that come half a window apart.
    """
    lane: Lane = limited_lane.lane
    limit = int(lane.settings["RAG_EMBEDDING_RATE_LIMIT"])
    window = float(lane.settings["RAG_EMBEDDING_RATE_WINDOW_SECONDS"])
    kept = window + MARGIN_SECONDS
    lane.script_embedding([])
    burst = 2 * limit // REQUESTS_A_JOB

    # Given a lone request, two full windows of work just before its window ends, and two more half a window off.
    started = time.monotonic()
    jobs = submit(lane, f"lone-{seed}", 1, words=5)
    sleep_until(started + 0.8 * kept)
    jobs += submit(lane, f"first-{seed}", burst)
    sleep_until(started + 0.8 * kept + 2.5 * kept)
    jobs += submit(lane, f"second-{seed}", burst)
    states = {state_of(status) for status in ends_of(lane, jobs, seconds=FINISH_SECONDS).values()}

    # Then no window holds more than the limit, and the limit is what held the work back.
    times = [request.at for request in requests_of(lane.embedding_log())]
    assert times, "no request reached the embedding API"
    counts = window_counts(times, seconds=window - TRAVEL_SECONDS)
    above = [count for count in counts if count > limit]
    own = set(jobs)
    shares = Counter(effect.worker for effect in lane.effects() if effect.job_id in own)
    evidence.trials(len(counts), len(above), "windows", examples=above)
    evidence.facts(
        fullest_window=max(counts),
        fullest_window_without_tolerance=max(window_counts(times, seconds=window)),
        limit=limit,
        window_seconds=window,
        tolerance_seconds=TRAVEL_SECONDS,
        jobs_by_worker=dict(shares),
        requests=len(times),
        seconds=round(times[-1] - times[0], 3),
    )
    assert not above, f"expected at most {limit} requests in any {window:g} s, got {max(counts)}"
    assert states == {"done"}, f"expected every job done under the limit, got {sorted(states)}"
    assert max(counts) > 0.8 * limit, f"expected the limit of {limit} to be used, got {max(counts)} at most"
    assert len(shares) == len(lane.workers), f"expected every worker to do jobs, got {dict(shares)}"
    assert min(shares.values()) >= LEAST_SHARE * len(jobs), f"expected workers to share, got {dict(shares)}"


@pytest.mark.claim("B3.concurrency")
def test_a_worker_sends_one_request_at_a_time(limited_lane: Any, evidence: ClaimEvidence, seed: int) -> None:
    """With RAG_EMBEDDING_CONCURRENCY=1 two workers never have more than two requests in flight."""
    lane: Lane = limited_lane.lane
    limit = int(lane.settings["RAG_EMBEDDING_CONCURRENCY"]) * len(lane.workers)
    lane.script_embedding([], latency_ms=LATENCY_MS)
    jobs = submit(lane, f"single-{seed}", 8, words=5)
    states = {state_of(status) for status in ends_of(lane, jobs, seconds=FINISH_SECONDS).values()}
    lane.script_embedding([])
    seen = [request.in_flight for request in requests_of(lane.embedding_log())]
    assert states == {"done"}, f"expected every job done, got {sorted(states)}"
    above = [count for count in seen if count > limit]
    evidence.trials(len(seen), len(above), "requests", examples=above)
    assert not above, f"expected at most {limit} requests of {len(lane.workers)} workers, got {max(above)}"


@pytest.mark.claim("B2.refusal")
def test_a_refusal_is_heard_by_all_workers(limited_lane: Any, evidence: ClaimEvidence, seed: int) -> None:
    """One request is answered 429 with Retry-After: until then nothing leaves from any worker, although both have
    work; then the work goes on, more slowly at first, and nothing is lost.
    """
    lane: Lane = limited_lane.lane
    limit = int(lane.settings["RAG_EMBEDDING_RATE_LIMIT"])
    earlier = len(lane.embedding_log())
    asked_seconds = 1.5
    refused = f"refused-{seed}"
    lane.script_embedding([{"contains": refused, "times": 1, "status": 429, "retry_after": asked_seconds}])
    jobs = submit(lane, refused, 1, words=5) + submit(lane, f"waiting-{seed}", limit // 2)
    statuses = ends_of(lane, jobs, seconds=FINISH_SECONDS)
    requests = requests_of(lane.embedding_log())[earlier:]
    refusals = [request for request in requests if request.status == 429]
    assert len(refusals) == 1, f"expected one refusal, got {len(refusals)}"
    heard, over = refusals[0].ended + MARGIN_SECONDS, refusals[0].ended + asked_seconds - TRAVEL_SECONDS
    deaf = [request for request in requests if heard < request.at < over]
    after = [request for request in requests if request.at >= over]
    wrong = [f"a request {request.at - refusals[0].ended:.2f} s after the refusal" for request in deaf]
    wrong += [
        f"{job}: expected done after the pause, got {state_of(status)}"
        for job, status in statuses.items()
        if state_of(status) != "done"
    ]
    if len(after) < limit // 2:
        wrong.append(
            f"expected the work to wait for the end of the pause, got {len(after)} requests after it"
        )
    at_first = [request for request in after if request.at < after[0].at + 1.0]
    if len(at_first) > limit // 2 + 1:
        wrong.append(
            f"expected at most half the limit ({limit // 2}) at first, got {len(at_first)} in a second"
        )
    evidence.cases(len(requests) + 3, len(wrong), wrong, "requests around a 429 with Retry-After")
    evidence.facts(
        asked_seconds=asked_seconds,
        first_after_seconds=round(min((r.at for r in after), default=0.0) - refusals[0].ended, 3),
        requests_after=len(after),
        in_the_first_second_after=len(at_first),
    )
    assert not wrong, wrong[0]


def submit(lane: Lane, name: str, count: int, *, words: int = 200) -> list[str]:
    """Documents of two chunks (200 words), one request each at a batch size of 1."""
    jobs = []
    for number in range(count):
        content = " ".join(f"{name}-{number}-{word}" for word in range(words)).encode()
        jobs.append(lane.enqueue(Document(f"{name}-{number}.txt", "text/plain", content)).job_id)
    return jobs


def sleep_until(moment: float) -> None:
    """Wait for a moment of time.monotonic()."""
    wait_until(lambda: time.monotonic() >= moment, seconds=60, what="the moment of the next burst")
