"""One worker under more work than it can do holds at most three requests and a third of its token budget."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.exposition import parse
from readiness.checking.history import Request, held_tokens, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

CONCURRENCY = 3  # RAG_EMBEDDING_CONCURRENCY, default
TOKEN_BUDGET = 100_000  # RAG_MEMORY_TOKEN_BUDGET, default
LARGE, CHUNKS = 10, 96  # documents of three full batches of 32 chunks: the most that a request can hold
SMALL = 40  # documents of one chunk
LATENCY_MS = 120  # the API answers slowly, so that requests pile up
FINISH_SECONDS = 30.0
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Pressure:
    """What was seen while the worker was busy: the true log, the gauge, and the states of the jobs."""

    requests: list[Request]
    gauge_pct: list[float]
    states: set[str]


@pytest.fixture(scope="module")
def pressure(pressure_lane: Lane, seed: int) -> Pressure:
    """Submit more than the worker can take at once, sample its gauge meanwhile, wait for the end."""
    pressure_lane.script_embedding([], latency_ms=LATENCY_MS)
    words = " ".join(f"word{number}" for number in range(150 * CHUNKS + 29))
    texts = [f"large-{seed}-{number} {words}" for number in range(LARGE)]
    texts += [f"small-{seed}-{number}" for number in range(SMALL)]
    jobs = [
        pressure_lane.enqueue(Document(f"pressure-{number}.txt", "text/plain", text.encode())).job_id
        for number, text in enumerate(texts)
    ]
    samples: list[float] = []

    def sampled_until_drained() -> bool:
        scrape = parse(pressure_lane.metrics())
        samples.extend(scrape.values("memory_token_used_pct"))
        return scrape.total("rag_queue_length") + scrape.total("worker_active_jobs") == 0

    with suppress(WaitedTooLong):  # the states say it
        wait_until(
            sampled_until_drained, seconds=FINISH_SECONDS, what="a drain", every_seconds=SAMPLE_SECONDS
        )
    states = {state_of(status) for status in ends_of(pressure_lane, jobs, seconds=1).values()}
    return Pressure(requests_of(pressure_lane.embedding_log()), samples, states)


@pytest.mark.claim("B3.concurrency")
def test_at_most_three_requests_are_in_flight(pressure: Pressure, evidence: ClaimEvidence) -> None:
    """The embedding API never sees more than three requests of one worker at a time, and often sees three."""
    seen = [request.in_flight for request in pressure.requests]
    assert seen, "no request reached the embedding API"
    above = [count for count in seen if count > CONCURRENCY]
    evidence.trials(len(seen), len(above), "requests", examples=above)
    evidence.facts(most_in_flight=max(seen), at_the_limit=seen.count(CONCURRENCY), limit=CONCURRENCY)
    assert pressure.states == {"done"}, f"expected every job done under pressure, got {pressure.states}"
    assert max(seen) >= CONCURRENCY, f"no pressure: at most {max(seen)} requests were in flight at a time"
    assert not above, f"expected at most {CONCURRENCY} requests in flight, got {max(seen)}"


@pytest.mark.claim("H5.token_use")
def test_token_use_stays_below_a_third(pressure: Pressure, evidence: ClaimEvidence) -> None:
    """The tokens held by requests in flight stay below 35 % of the budget, by the true log and by the
    worker's gauge.
    """
    assert pressure.requests, "no request reached the embedding API"
    truth = [100 * tokens / TOKEN_BUDGET for tokens in held_tokens(pressure.requests)]
    evidence.samples(
        [*truth, *pressure.gauge_pct], "%", "token use at each request and each sample of the gauge"
    )
    evidence.facts(
        worst_true_pct=round(max(truth), 3),
        worst_gauge_pct=round(max(pressure.gauge_pct), 3),
        gauge_samples=len(pressure.gauge_pct),
        budget_tokens=TOKEN_BUDGET,
        jobs=LARGE + SMALL,
    )
    # A gauge that never moves would hide what the log shows.
    assert pressure.states == {"done"}, f"expected every job done under pressure, got {pressure.states}"
    assert max(pressure.gauge_pct) > 0, "the gauge memory_token_used_pct stayed at 0 under pressure"
