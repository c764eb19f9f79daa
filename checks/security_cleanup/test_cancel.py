"""A cancelled job ends within five seconds, commits nothing, and does nothing any more."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from readiness.checking.history import Request, digest_of, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.recount import Recount, recount
from readiness.targets.base import Lane

JOBS = 24
BY_FAILURE = 4  # of them fail and wait for a retry when they are cancelled
SLOW_TO_READ = 4  # the next ones are cancelled while they are read, or later
SLOW_TAGS = 60_000  # empty elements: a while to read, nothing to embed
EFFECT_SECONDS = 5.0
LATENCY_MS = 400
BATCHES = 10
SPREAD_SECONDS = 0.12  # between two cancels
FINISH_SECONDS = 20.0
LAST_SECONDS = 0.5  # a request that had left when the job ended may arrive so much later
CAPACITY_JOBS = 4  # RAG_WORKER_CONCURRENCY: were slots lost, these would not run side by side


@dataclass(slots=True)
class Cancels:
    """What was asked of which job in which stage, and when it took effect; times of time.monotonic()."""

    at: dict[str, float] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)
    accepted: dict[str, bool] = field(default_factory=dict)
    kept: dict[str, dict[str, str]] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)  # seconds that the request is kept, below 0: for ever
    by_hash: set[str] = field(default_factory=set)

    def seconds(self, job: str) -> float:
        """From the request to its effect; infinite when there was none."""
        return self.ended.get(job, float("inf")) - self.at[job]


@pytest.mark.early
@pytest.mark.claim("D1.cancel")
def test_cancel_takes_effect_within_five_seconds(
    cleanup_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """Jobs cancelled while they wait, run, or wait for a retry, by the API or by the hash that somebody else wrote
    into Redis, all end cancelled in time and without an effect.
    """
    slow = cleanup_lane
    slow.script_embedding([{"contains": f"cancel-fails-{seed}", "status": 500}], latency_ms=LATENCY_MS)
    documents = {
        slow.enqueue(document).job_id: document
        for document in (long_document(seed, number) for number in range(JOBS))
    }
    failing = list(documents)[:BY_FAILURE]
    wait_until(lambda: slow.in_flight() > 0, seconds=FINISH_SECONDS, what="a running job")

    # When they are cancelled one by one, in random order, so that some run and some wait.
    cancels = cancel_all(slow, random.Random(seed).sample(list(documents), JOBS), failing, f"reason {seed}")

    # Then each took effect in time, nothing was committed, and the request is in its hash.
    final = {job: slow.status(job).state for job in documents}
    effects = {effect.job_id for effect in slow.effects()}
    late = late_requests(requests_of(slow.embedding_log()), documents, cancels.ended)
    wrong: list[str] = []
    for job in documents:
        facts: dict[str, Any] = {
            "accepted": cancels.accepted[job],
            "ended cancelled": final[job] == "cancelled",
            "within 5 s": cancels.seconds(job) <= EFFECT_SECONDS,
            "nothing committed": job not in effects,
            "request in Redis with its reason": cancels.kept[job].get("reason") == f"reason {seed}",
            "no embedding request after its end": job not in late,
            "its request in Redis expires": cancels.lives[job] > 0,
        }
        how = f"{cancels.stages[job]}, by {'hash' if job in cancels.by_hash else 'API'}"
        wrong += [
            f"{job} ({how}): {what} is not so ({final[job]}, {cancels.seconds(job):.2f} s)"
            for what, ok in facts.items()
            if not ok
        ]

    # And normal jobs are done as before; what has ended cannot be cancelled any more.
    slow.script_embedding([], latency_ms=LATENCY_MS)
    normal = [slow.enqueue(short_document(seed, number)).job_id for number in range(CAPACITY_JOBS)]
    states = {status.state for status in slow.wait_all(normal, seconds=FINISH_SECONDS).values()}
    slow.script_embedding([])
    if states != {"done"}:
        wrong.append(f"normal jobs afterwards: expected done, got {sorted(states)}")
    for job, what in ((normal[0], "finished"), (failing[0], "cancelled")):
        if (again := slow.cancel(job, reason="too late")) != 409:
            wrong.append(f"cancel of a {what} job: expected 409, got {again}")
    if slow.status(normal[0]).state != "done":
        wrong.append("a finished job that was cancelled too late is not done any more")
    if (unknown := slow.cancel("job-that-never-was", reason="none")) != 404:
        wrong.append(f"cancel of an unknown job: expected 404, got {unknown}")

    n = 7 * JOBS + 5
    evidence.cases(n, min(n, len(wrong)), wrong, "facts of cancelled jobs")
    took = [cancels.seconds(job) for job in documents if job in cancels.ended]
    evidence.samples(took, "s", "from the cancel request to its effect")
    stages = list(cancels.stages.values())
    evidence.facts(stages={stage: stages.count(stage) for stage in set(stages)}, by_hash=len(cancels.by_hash))
    assert not wrong, wrong[0]


def cancel_all(lane: Lane, order: list[str], failing: list[str], reason: str) -> Cancels:
    """Cancel job by job, watch them end. Every other running job is cancelled as another host would do it, by the hash
    alone; not so those that may begin to wait for a retry in that very moment.
    """
    cancels = Cancels()
    with redis.Redis.from_url(lane.redis_url, decode_responses=True, socket_timeout=5) as client:
        for job in order:
            key = f"job:cancel:{job}"
            cancels.stages[job] = lane.status(job).state
            cancels.at[job] = time.monotonic()
            if cancels.stages[job] == "running" and job not in failing and len(cancels.at) % 2:
                client.hset(key, mapping={"reason": reason})
                cancels.by_hash.add(job)
                cancels.accepted[job] = True
            else:
                cancels.accepted[job] = lane.cancel(job, reason=reason) == 202
            cancels.kept[job] = client.hgetall(key)
            watch(lane, cancels, seconds=SPREAD_SECONDS)
        deadline = time.monotonic() + FINISH_SECONDS
        while len(cancels.ended) < len(order) and time.monotonic() < deadline:
            watch(lane, cancels, seconds=SPREAD_SECONDS)
        cancels.lives = {job: client.ttl(f"job:cancel:{job}") for job in order}
    return cancels


def watch(lane: Lane, cancels: Cancels, *, seconds: float) -> None:
    """For a moment, look which of the cancelled jobs have ended by now."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for job in [job for job in cancels.at if job not in cancels.ended]:
            if lane.status(job).finished:
                cancels.ended[job] = time.monotonic()
        time.sleep(0.02)


def late_requests(
    requests: list[Request], documents: dict[str, Document], ended: dict[str, float]
) -> set[str]:
    """The jobs for which a request came after they had ended: work that only looks cancelled."""
    owners: dict[str, str] = {}
    for job, document in documents.items():
        counted = recount(document)
        assert isinstance(counted, Recount), counted
        owners.update((digest_of(text), job) for text in counted.texts)
    found = set()
    for request in requests:
        job = owners.get(request.digests[0], "") if request.digests else ""
        if job in ended and request.at > ended[job] + LAST_SECONDS:
            found.add(job)
    return found


def long_document(seed: int, number: int) -> Document:
    """A document of some batches; the first few of them never embed, the next ones take their time to be read."""
    start = f"cancel-fails-{seed}" if number < BY_FAILURE else "cancel"
    words = " ".join(f"{start}-{number}-{word}" for word in range(150 * 4 * BATCHES))
    if BY_FAILURE <= number < BY_FAILURE + SLOW_TO_READ:
        content = "<b></b>" * SLOW_TAGS + f"<p>{words}</p>"
        return Document(name=f"cancel-{number}.html", media_type="text/html", content=content.encode())
    return Document(name=f"cancel-{number}.txt", media_type="text/plain", content=words.encode())


def short_document(seed: int, number: int) -> Document:
    content = f"after the cancels {seed} {number}"
    return Document(name=f"normal-{number}.txt", media_type="text/plain", content=content.encode())
