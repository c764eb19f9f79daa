"""For releases: a stopping worker hands back what it cannot finish, and a drained queue leaves Redis as it was."""

from __future__ import annotations

import time

import pytest
import redis

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.pytest_plugin import LaneFactory
from readiness.targets.base import JobStatus, Lane
from readiness.targets.ragworker_keys import QueueKeys

# A worker gives its jobs ten seconds after SIGTERM: this one takes longer.
LATENCY_MS = 16_000
PATIENCE_SECONDS = 10.0
GOODBYE_SECONDS = 8.0  # what may come on top, on a crowded machine
HELD_SECONDS = 15.0
FINISH_SECONDS = 60.0
ROUNDS, EACH = 3, 120
RECORDS = 40  # RAG_JOB_HISTORY_COUNT of the lane
GROWTH_BYTES = 1_500_000  # of ROUNDS x EACH documents that hold ten times as much


@pytest.mark.claim("A5.handback")
def test_a_job_longer_than_the_patience_is_handed_back(
    lane: LaneFactory, evidence: ClaimEvidence, seed: int
) -> None:
    """Asked to stop, a worker waits ten seconds, gives its job back unblamed and goes; another one does the job."""
    stand = lane("goodbye", workers=1)
    text = f"a long goodbye {seed}"
    stand.script_embedding([{"contains": text, "times": 1, "delay_ms": LATENCY_MS}])
    with QueueKeys(stand) as keys:
        job = stand.enqueue(Document("goodbye.txt", "text/plain", text.encode())).job_id
        leaving = wait_until(
            lambda: keys.claims().get(job, ""), seconds=HELD_SECONDS, what="an owner of the job"
        )
        stand.start_worker()
        asked = time.monotonic()
        next(one for one in stand.workers if one.pid == keys.pid_of(leaving)).stop(
            grace_seconds=PATIENCE_SECONDS + GOODBYE_SECONDS
        )
        took = time.monotonic() - asked
        status = ends_of(stand, [job], seconds=FINISH_SECONDS)[job]
    effects = [effect.job_id for effect in stand.effects()]
    cases: list[tuple[str, object, object]] = [
        ("state", "done", state_of(status)),
        ("effects", 1, effects.count(job)),
        ("attempt", 1, status.attempt if status else None),
        ("history", ["submitted", "claimed", "released", "claimed", "done"], names(status)),
        ("another worker ended it", True, bool(status) and owners(status)[-1] != leaving),
        ("patience was kept", True, took >= PATIENCE_SECONDS - 1),
        ("it went by itself", True, took < PATIENCE_SECONDS + GOODBYE_SECONDS),
    ]
    wrong = [f"{what}: expected {want!r}, got {have!r}" for what, want, have in cases if want != have]
    evidence.cases(
        len(cases), len(wrong), wrong, "a job that is handed back", fault="worker ended with SIGTERM"
    )
    evidence.facts(stop_seconds=round(took, 2))
    assert not wrong, wrong[0]


@pytest.mark.claim("A5.footprint")
def test_redis_is_as_small_after_a_drain_as_before(
    lane: LaneFactory, evidence: ClaimEvidence, seed: int
) -> None:
    """Round after round of large documents, and the keys and bytes in Redis stay those of the records that are kept."""
    stand = lane("footprint", workers=1, RAG_JOB_HISTORY_COUNT=RECORDS, RAG_EMBEDDING_RATE_LIMIT=100_000)
    kept: list[int] = []
    held: list[int] = []
    lost: list[str] = []
    with QueueKeys(stand) as keys:
        for turn in range(ROUNDS):
            jobs = [submit(stand, f"footprint {seed} {turn} {number}") for number in range(EACH)]
            quiet(stand)
            committed = {effect.job_id for effect in stand.effects()}
            lost += [job for job in jobs if job not in committed]
            snapshot = keys.snapshot()
            kept.append(len(snapshot.states))
            held.append(queue_bytes(keys.client, keys.prefix))
    wrong = [
        f"round {turn}: expected at most {RECORDS} records, got {count}"
        for turn, count in enumerate(kept)
        if count > RECORDS
    ]
    if held[-1] > held[0] + GROWTH_BYTES / 10 or max(held) > GROWTH_BYTES:
        wrong.append(f"expected the queue's bytes to stay below {GROWTH_BYTES} and not to grow, got {held}")
    wrong += [f"{job}: expected an effect in SQL, got none" for job in lost]
    n = ROUNDS + 1 + ROUNDS * EACH
    evidence.cases(n, min(len(wrong), n), wrong, "records and bytes in Redis after each drain")
    evidence.facts(records=kept, queue_bytes=held)
    assert not wrong, wrong[0]


def quiet(stand: Lane) -> None:
    wait_until(
        lambda: stand.depth() + stand.in_flight() == 0,
        seconds=FINISH_SECONDS,
        what="an idle queue",
        every_seconds=0.2,
    )


def queue_bytes(client: redis.Redis, prefix: str) -> int:
    """What all keys of the queue take in Redis' memory."""
    return sum(int(client.memory_usage(key) or 0) for key in client.scan_iter(match=f"{prefix}*", count=1000))


def submit(stand: Lane, text: str) -> str:
    """Submit about 40 kB that begin with the text."""
    content = f"{text} " + "filler " * 6_000
    return stand.enqueue(Document("footprint.txt", "text/plain", content.encode())).job_id


def names(status: JobStatus | None) -> list[str]:
    return [event.event for event in status.history] if status else []


def owners(status: JobStatus | None) -> list[str]:
    return [event.worker for event in status.history if event.event == "claimed"] if status else [""]
