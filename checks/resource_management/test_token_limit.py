"""Tokens are limited like requests; batch size, concurrency and price follow settings that no default has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.exposition import parse
from readiness.checking.history import Request, batch_sizes, digest_of, held_tokens, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.recount import Recount, recount
from readiness.simulators.embedding import vector_for
from readiness.targets.base import JobStatus, Lane

# Around multiples of the batch size of 7; at last some small ones, of which five fit into the budget at a time.
CHUNKS = (24, 21, 22, 1, 7, 8, *[3] * 8)
LAST_WORDS = 169  # of the last chunk of each: 219.7 tokens, which are 220
LATENCY_MS = 150
TRAVEL_SECONDS = 0.1
FINISH_SECONDS = 30.0
SAMPLE_SECONDS = 0.05
LEDGER_SECONDS = 10.0
CLOSE = 1e-6  # the queue keeps nine digits of a dollar


@dataclass(frozen=True, slots=True)
class Bought:
    """What was submitted by job id, what the rule makes of it, how it ended, and what the simulator saw."""

    lane: Lane
    recounts: Mapping[str, Recount]
    statuses: Mapping[str, JobStatus | None]
    requests: list[Request]
    gauge_pct: list[float]

    @property
    def undone(self) -> list[str]:
        """The jobs that are not done, in words."""
        return [
            f"{job}: expected done, got {state_of(status)}"
            for job, status in self.statuses.items()
            if state_of(status) != "done"
        ]


@pytest.fixture(scope="module")
def bought(odd_lane: Lane, seed: int) -> Bought:
    """More tokens at once than a window holds. The first batch of the first document is answered after later ones."""
    late = f"t{seed}-0-0 "
    odd_lane.script_embedding([{"contains": late, "delay_ms": 4 * LATENCY_MS}], latency_ms=LATENCY_MS)
    recounts: dict[str, Recount] = {}
    for place, chunks in enumerate(CHUNKS):
        words = " ".join(f"t{seed}-{place}-{number}" for number in range(150 * chunks + LAST_WORDS - 150))
        document = Document(f"tokens-{place}.txt", "text/plain", words.encode())
        counted = recount(document)
        assert isinstance(counted, Recount), counted
        recounts[odd_lane.enqueue(document).job_id] = counted
    gauge: list[float] = []

    def sampled_until_drained() -> bool:
        scrape = parse(odd_lane.metrics())
        gauge.extend(scrape.values("memory_token_used_pct"))
        return scrape.total("rag_queue_length") + scrape.total("worker_active_jobs") == 0

    with suppress(WaitedTooLong):  # the states say it
        wait_until(
            sampled_until_drained, seconds=FINISH_SECONDS, what="a drain", every_seconds=SAMPLE_SECONDS
        )
    statuses = ends_of(odd_lane, list(recounts), seconds=1)
    requests = requests_of(odd_lane.embedding_log())
    odd_lane.script_embedding([])
    return Bought(odd_lane, recounts, statuses, requests, gauge)


@pytest.mark.claim("B2.token_limit")
def test_no_window_holds_more_tokens_than_the_limit(bought: Bought, evidence: ClaimEvidence) -> None:
    """In no window do more tokens leave than RAG_EMBEDDING_TOKEN_LIMIT says, and the limit is what held them back."""
    limit = int(bought.lane.settings["RAG_EMBEDDING_TOKEN_LIMIT"])
    window = float(bought.lane.settings["RAG_EMBEDDING_RATE_WINDOW_SECONDS"])
    sums = [
        sum(other.tokens for other in bought.requests if 0 <= other.at - first.at < window - TRAVEL_SECONDS)
        for first in bought.requests
    ]
    above = [tokens for tokens in sums if tokens > limit]
    evidence.trials(len(sums), len(above), "windows", examples=above)
    evidence.facts(
        fullest_window_tokens=max(sums, default=0),
        limit=limit,
        window_seconds=window,
        tolerance_seconds=TRAVEL_SECONDS,
        tokens=sum(request.tokens for request in bought.requests),
    )
    assert not above, f"expected at most {limit} tokens in any {window:g} s, got {max(above)}"
    assert not bought.undone, bought.undone[0]
    assert max(sums) > limit / 2, f"no pressure on the limiter: the fullest window held {max(sums)} tokens"


@pytest.mark.claim("B3.concurrency")
def test_at_most_five_requests_are_in_flight(bought: Bought, evidence: ClaimEvidence) -> None:
    """With RAG_EMBEDDING_CONCURRENCY=5 five requests are in flight at times, never six."""
    limit = int(bought.lane.settings["RAG_EMBEDDING_CONCURRENCY"])
    seen = [request.in_flight for request in bought.requests]
    above = [count for count in seen if count > limit]
    evidence.trials(len(seen), len(above), "requests", examples=above)
    evidence.facts(most_in_flight_of_five=max(seen, default=0))
    assert not above, f"expected at most {limit} requests in flight, got {max(above)}"
    assert max(seen, default=0) == limit, f"expected {limit} requests in flight at times, got {max(seen)}"


@pytest.mark.claim("H5.token_use")
def test_token_use_is_a_share_of_the_budget(bought: Bought, evidence: ClaimEvidence) -> None:
    """With RAG_MEMORY_TOKEN_BUDGET=20000 the tokens in flight are below 35 % of it, though five full batches would not
    be; the gauge tells the truth.
    """
    budget = int(bought.lane.settings["RAG_MEMORY_TOKEN_BUDGET"])
    truth = [100 * tokens / budget for tokens in held_tokens(bought.requests)]
    evidence.samples([*truth, *bought.gauge_pct], "%", f"token use of a budget of {budget}")
    worst, told = max(truth, default=0.0), max(bought.gauge_pct, default=0.0)
    evidence.facts(worst_true_pct_of_20000=round(worst, 3), worst_gauge_pct_of_20000=round(told, 3))
    # The gauge counts a full batch for the last, smaller one of a document, so it may be above the truth.
    assert worst <= told < 1.5 * worst, f"expected a gauge of {worst:.1f} % or little more, got {told:.1f} %"


@pytest.mark.claim("B1.batch")
def test_batches_of_seven_keep_every_vector_in_its_place(bought: Bought, evidence: ClaimEvidence) -> None:
    """Each document is cut at 7, the rest comes last, and each chunk has the vector of its own text."""
    limit = int(bought.lane.settings["RAG_EMBEDDING_BATCH_SIZE"])
    wrong = [
        f"a request with {request.inputs} inputs, expected at most {limit}"
        for request in bought.requests
        if request.inputs > limit
    ]
    wrong += bought.undone
    for job, counted in bought.recounts.items():
        own = {digest_of(text) for text in counted.texts}
        sizes = [request.inputs for request in bought.requests if own.issuperset(request.digests)]
        expected = batch_sizes(counted.chunks, limit=limit)
        if sorted(sizes, reverse=True) != expected:
            wrong.append(f"{job}: expected batches of {expected}, got {sizes}")
        stored = bought.lane.chunks(job)
        if [chunk.text for chunk in stored] != list(counted.texts):
            wrong.append(f"{job}: expected the chunks of the document in order, got others")
        misplaced = [place for place, chunk in enumerate(stored) if chunk.vector != vector_for(chunk.text)]
        if misplaced:
            wrong.append(f"{job}: expected each chunk's own vector, got another one at {misplaced[:5]}")
    n = len(bought.requests) + 4 * len(bought.recounts)
    evidence.cases(n, min(n, len(wrong)), wrong, "requests, batches and vectors at batch size 7")
    assert not wrong, wrong[0]


@pytest.mark.claim("B4.cost")
def test_tokens_are_counted_and_priced(bought: Bought, evidence: ClaimEvidence) -> None:
    """A job's tokens are its words x 1.3 chunk by chunk, its cost is their price, and the ledger of the whole
    instance is what the embedding API answered.
    """
    price = float(bought.lane.settings["RAG_EMBEDDING_PRICE_PER_MILLION_TOKENS"]) / 1e6
    wrong: list[str] = []
    committed = bought.lane.committed()
    for job, counted in bought.recounts.items():
        status, row = bought.statuses[job], committed.get(job)
        told = (status.tokens, status.chunks) if status else None
        if told != (counted.tokens, counted.chunks):
            wrong.append(f"{job}: expected {counted.tokens} tokens in {counted.chunks} chunks, got {told}")
        if row is None or (row.token_count, row.token_sum) != (counted.tokens, counted.tokens):
            wrong.append(f"{job}: expected {counted.tokens} tokens in SQL, got {row}")
        cost = status.cost_usd if status else None
        if cost is None or not math.isclose(cost, counted.tokens * price, rel_tol=CLOSE, abs_tol=1e-9):
            wrong.append(f"{job}: expected a cost of {counted.tokens * price:.9f} USD, got {cost}")
    # What the counters say of the instance; they are told with a heartbeat.
    tokens = sum(counted.tokens for counted in bought.recounts.values())
    seen: dict[str, float] = {}

    def told_all() -> bool:
        scrape = parse(bought.lane.metrics())
        seen["tokens"] = scrape.total("rag_embedding_tokens_total")
        seen["cost"] = scrape.total("rag_embedding_cost_usd_total")
        return seen["tokens"] >= tokens

    with suppress(WaitedTooLong):  # judged below
        wait_until(told_all, seconds=LEDGER_SECONDS, what=f"{tokens} tokens in the ledger", every_seconds=0.1)
    if seen["tokens"] != tokens:
        wrong.append(f"rag_embedding_tokens_total: expected {tokens}, got {seen['tokens']:.0f}")
    if not math.isclose(seen["cost"], tokens * price, rel_tol=CLOSE):
        wrong.append(f"rag_embedding_cost_usd_total: expected {tokens * price:.9f}, got {seen['cost']:.9f}")
    n = 3 * len(bought.recounts) + 2
    evidence.cases(n, len(wrong), wrong, "token counts and costs of jobs and of the instance")
    evidence.facts(tokens=tokens, cost_usd=tokens * price, ledger=seen)
    assert not wrong, wrong[0]
