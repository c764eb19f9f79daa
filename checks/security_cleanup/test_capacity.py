"""Cancellations cost the worker nothing: after a hundred of them it can do what it could before."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import redis

from readiness.checking.ends import ends_of, state_of
from readiness.checking.exposition import parse
from readiness.checking.history import requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

CANCELS = 100
LEAST_WHILE_RUNNING = 80  # of them hit a job that runs
LOOKED_AT = 8  # jobs at the front of the queue
BATCHES, BATCH = 24, 4
LATENCY_MS = 20
SLOTS, IN_FLIGHT = 4, 3  # RAG_WORKER_CONCURRENCY and RAG_EMBEDDING_CONCURRENCY, defaults
PROBES = 8
PROBE_MS = 600  # long against the starts of eight jobs on a busy machine
LOOKS = 3
MORE_FILES = 8  # open files that connection pools may add
FINISH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """The most jobs that ran at a time, the most requests in flight, and files that the worker has open."""

    jobs: int
    requests: int
    open_files: int
    done: int


@pytest.mark.claim("D1.capacity")
def test_capacity_survives_a_hundred_cancellations(
    cleanup_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """A hundred cancellations of running jobs change neither slots nor requests in flight nor open files."""
    lane = cleanup_lane
    before = at_its_best(lane, f"before-{seed}")
    lane.script_embedding([], latency_ms=LATENCY_MS)
    jobs = [lane.enqueue(long_document(seed, number)).job_id for number in range(CANCELS)]
    while_running = cancel_running(lane, jobs)
    states = [state_of(status) for status in ends_of(lane, jobs, seconds=FINISH_SECONDS).values()]
    after = at_its_best(lane, f"after-{seed}")

    # A few may have been done in the instant before their cancellation; that running ones end is D1.cancel's.
    wrong = [
        f"a cancelled job: expected cancelled, got {state}"
        for state in states
        if state not in ("cancelled", "done")
    ]
    for when, found in (("before", before), ("after", after)):
        if (found.jobs, found.requests, found.done) != (SLOTS, IN_FLIGHT, PROBES):
            wrong.append(
                f"{when} the cancellations: expected {SLOTS} jobs at a time, {IN_FLIGHT} requests in flight and"
                f" {PROBES} jobs done, got {found.jobs}, {found.requests} and {found.done}"
            )
    if after.open_files > before.open_files + MORE_FILES:
        wrong.append(f"expected {before.open_files} open files as before, got {after.open_files}")
    n = CANCELS + 7
    evidence.cases(n, min(n, len(wrong)), wrong, "cancelled jobs, and the capacity before and after them")
    evidence.facts(
        seen_running=while_running,
        cancelled=states.count("cancelled"),
        before=asdict(before),
        after=asdict(after),
    )
    assert not wrong, wrong[0]
    assert while_running >= LEAST_WHILE_RUNNING, f"only {while_running} of {CANCELS} jobs ran when cancelled"
    assert states.count("cancelled") >= LEAST_WHILE_RUNNING, f"too few cancelled: {states.count('cancelled')}"


def cancel_running(lane: Lane, jobs: list[str]) -> int:
    """Cancel each job as soon as it is seen running, as another host would; how many were."""
    waiting = list(jobs)
    running = 0

    def step() -> bool:
        nonlocal running
        for job in waiting[:LOOKED_AT]:
            state = lane.status(job).state
            if state == "queued":
                break
            client.hset(f"job:cancel:{job}", mapping={"reason": "capacity"})
            running += state == "running"
            waiting.remove(job)
        return not waiting

    with redis.Redis.from_url(lane.redis_url, socket_timeout=5) as client, suppress(WaitedTooLong):
        wait_until(step, seconds=FINISH_SECONDS, what="the cancellation of all jobs", every_seconds=0.002)
    return running


def at_its_best(lane: Lane, name: str) -> Capacity:
    """The first look with everything at work, else the last: what has leaked is missing in all of them."""
    for number in range(LOOKS):
        found = measured(lane, f"{name}-{number}")
        if (found.jobs, found.requests, found.done) == (SLOTS, IN_FLIGHT, PROBES):
            break
    return found


def measured(lane: Lane, name: str) -> Capacity:
    """Fill every slot with jobs of one slow request, and look how many are at work."""
    lane.script_embedding([], latency_ms=PROBE_MS)
    earlier = len(lane.embedding_log())
    jobs = [
        lane.enqueue(Document(f"{name}-{number}.txt", "text/plain", f"{name} {number}".encode())).job_id
        for number in range(PROBES)
    ]
    most = 0

    def drained() -> bool:
        nonlocal most
        scrape = parse(lane.metrics())
        most = max(most, int(scrape.total("worker_active_jobs")))
        return scrape.total("rag_queue_length") + scrape.total("worker_active_jobs") == 0

    with suppress(WaitedTooLong):  # the states say it
        wait_until(drained, seconds=FINISH_SECONDS / 3, what="a drain")
    states = [state_of(status) for status in ends_of(lane, jobs, seconds=0.2).values()]
    requests = requests_of(lane.embedding_log())[earlier:]
    lane.script_embedding([])
    return Capacity(
        jobs=most,
        requests=max((request.in_flight for request in requests), default=0),
        open_files=open_files(lane.workers[-1].pid),
        done=states.count("done"),
    )


def open_files(pid: int) -> int:
    """Descriptors of a process; 0 where there is no /proc."""
    folder = Path(f"/proc/{pid}/fd")
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def long_document(seed: int, number: int) -> Document:
    words = f"capacity-{seed}-{number} " + "w " * (150 * BATCH * BATCHES)
    return Document(f"capacity-{number}.txt", "text/plain", words.encode())
