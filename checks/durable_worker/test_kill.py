"""kill -9 of busy workers loses no acknowledged document, commits none twice, and is recovered from in
seconds.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from readiness.checking.ends import ends_of, state_of
from readiness.checking.history import repeated
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Corpus, Document
from readiness.pytest_plugin import LaneFactory
from readiness.targets.base import Effect, JobStatus, Lane, Submission, Worker

WORKERS = 2
DEFAULT_KILLS = 20
MIN_DOCUMENTS = 120  # above the 100 that the claim needs, also when kills go faster than planned
SUBMIT_EVERY_SECONDS = 0.08
BACKLOG = 16  # jobs that may wait: always work in flight, and a short drain at the end, on any machine
ALIVE_SECONDS = (0.0, 0.8)  # how long work goes on before the next kill: also long enough to finish some
BUSY_SECONDS = 15.0  # a fresh worker is ready within about two seconds, also on a crowded machine
DRAIN_SECONDS = 30.0
LARGEST_BYTES = 12_000  # so that one document takes a fraction of a second
LATENCY_MS = 30
FAULT = "worker killed with SIGKILL"
# Lease and delivery count are the system's defaults. Small batches and a slow embedding API keep each job in flight
# for some hundred milliseconds, so that kills hit work.
SETTINGS = {
    "RAG_EMBEDDING_BATCH_SIZE": 4,
    "RAG_EMBEDDING_RATE_LIMIT": 100_000,
}


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL: when (milliseconds since the epoch), on whom, and the jobs that the victim held."""

    at_ms: int
    worker: str
    held: tuple[str, ...]


@pytest.mark.early
@pytest.mark.claim("A5.kill", "A5.once", "H7.recovery", "H9.availability")
def test_killed_worker_loses_no_document(
    lane: LaneFactory, documents: Corpus, evidence: ClaimEvidence, plan: Mapping[str, Any], seed: int
) -> None:
    """Busy workers die at random moments while documents come in; all end done, each with one effect."""
    kills_wanted = int(plan.get("kills", DEFAULT_KILLS))
    draw = random.Random(seed)
    small = small_texts(documents)
    killed_lane = lane("kill", workers=WORKERS, USE_DURABLE_WORKER="true", **SETTINGS)
    killed_lane.script_embedding([], latency_ms=LATENCY_MS)

    # Given a stream of real documents, when busy workers are killed and replaced, one after the other.
    answers: list[Submission] = []
    with (
        redis.Redis.from_url(killed_lane.redis_url, decode_responses=True, socket_timeout=5) as client,
        ThreadPoolExecutor(WORKERS) as starters,
        submitting(killed_lane, small, answers, seed=seed) as stream,
    ):
        kills = kill_busy_workers(killed_lane, client, starters, draw, count=kills_wanted)
        wait_until(stream.enough, seconds=DRAIN_SECONDS, what=f"{MIN_DOCUMENTS} submissions")
        stream.end()
        # Still inside: the kernel ends the replacements together with the threads that started them.
        acknowledged = [one.job_id for one in answers if one.accepted]
        statuses = ends_of(killed_lane, acknowledged, seconds=DRAIN_SECONDS)

    # Then what was acknowledged is done, with exactly one row in the commit log, soon after each kill.
    effects = killed_lane.effects()
    record(evidence, kills, answers, statuses, effects, wanted=kills_wanted, depths=stream.depths)


def small_texts(documents: Corpus) -> list[Document]:
    """The text documents of the corpus that a worker is done with in a fraction of a second."""
    texts = [one for one in documents.documents if one.media_type.startswith("text/")]
    return [one for one in texts if len(one.content) <= LARGEST_BYTES] or texts


def kill_busy_workers(
    lane: Lane, client: redis.Redis, starters: ThreadPoolExecutor, draw: random.Random, *, count: int
) -> list[Kill]:
    """Kill until ``count`` victims held jobs, each at a random moment, and start a replacement for each."""
    kills: list[Kill] = []
    ready = list(lane.workers)
    starting: list[Future[Worker]] = []
    while sum(1 for kill in kills if kill.held) < count:
        if len(kills) >= 2 * count:  # the victims' jobs end just before the kill, again and again
            break

        def busy() -> dict[str, Worker]:
            return busy_workers(lane, client, [*ready, *started(starting)])

        wait_until(busy, seconds=BUSY_SECONDS, what="a worker that holds a job")
        time.sleep(draw.uniform(*ALIVE_SECONDS))  # the random moment itself: nothing is waited for
        victims = wait_until(busy, seconds=BUSY_SECONDS, what="a worker that holds a job")
        worker_id, victim = draw.choice(sorted(victims.items()))
        victim.kill()
        at_ms = time.time_ns() // 1_000_000
        # Nobody but the dead touches these claims before its lease runs out, so this is what it held.
        held = client.hkeys(f"{prefix(lane)}claimed:{worker_id}")
        kills.append(Kill(at_ms=at_ms, worker=worker_id, held=tuple(sorted(held))))
        starting.append(starters.submit(lane.start_worker))
    for future in starting:
        future.result(timeout=BUSY_SECONDS)
    return kills


def started(starting: Sequence[Future[Worker]]) -> list[Worker]:
    """The replacements that are up: who is still starting is no victim, or its start would seem to fail."""
    return [future.result() for future in starting if future.done()]


def busy_workers(lane: Lane, client: redis.Redis, workers: Sequence[Worker]) -> dict[str, Worker]:
    """Those of ``workers`` that live and hold a job, by their id in Redis."""
    by_pid = {str(worker.pid): worker for worker in workers if worker.alive}
    found: dict[str, Worker] = {}
    for key in client.scan_iter(f"{prefix(lane)}claimed:*"):
        worker_id = str(key).rpartition("claimed:")[2]
        worker = by_pid.get(client.hget(f"{prefix(lane)}workers:{worker_id}", "pid") or "")
        if worker is not None and client.hlen(key):
            found[worker_id] = worker
    return found


def prefix(lane: Lane) -> str:
    """What the keys of the lane's queue start with."""
    return f"{{rag:{lane.queue}}}:"


class Stream(threading.Thread):
    """Submits documents in turn, each as work of its own, until it is ended."""

    def __init__(
        self, lane: Lane, documents: Sequence[Document], answers: list[Submission], *, seed: int
    ) -> None:
        super().__init__(name="submissions")
        self._lane, self._documents, self._answers, self._seed = lane, documents, answers, seed
        self._ended = threading.Event()
        self.depths: list[tuple[float, float]] = []

    def run(self) -> None:
        while not self._ended.wait(SUBMIT_EVERY_SECONDS):
            depth = self._lane.depth()
            self.depths.append((time.time_ns() // 1_000_000, depth))
            if depth <= BACKLOG:
                number = len(self._answers)
                document = self._documents[number % len(self._documents)]
                self._answers.append(self._lane.enqueue(document, key=f"kill-{self._seed}-{number}"))

    def enough(self) -> bool:
        """Enough for the claim, or nothing more will come."""
        return len(self._answers) >= MIN_DOCUMENTS or not self.is_alive()

    def end(self) -> None:
        """Stop submitting and wait for the last answer."""
        self._ended.set()
        self.join(timeout=DRAIN_SECONDS)


@contextmanager
def submitting(
    lane: Lane, documents: Sequence[Document], answers: list[Submission], *, seed: int
) -> Iterator[Stream]:
    """A running stream of submissions; ended with the block, however it ends."""
    stream = Stream(lane, documents, answers, seed=seed)
    stream.start()
    try:
        yield stream
    finally:
        stream.end()


def record(
    evidence: ClaimEvidence,
    kills: Sequence[Kill],
    answers: Sequence[Submission],
    statuses: Mapping[str, JobStatus | None],
    effects: Sequence[Effect],
    *,
    wanted: int,
    depths: Sequence[tuple[float, float]],
) -> None:
    """Write down losses, repetitions and recoveries, then judge them."""
    committed = {effect.job_id for effect in effects}
    lost = [
        f"{job}: {state_of(status)}, {'with' if job in committed else 'without'} an effect"
        for job, status in statuses.items()
        if state_of(status) != "done" or job not in committed
    ]
    twice = [
        f"{job}: {count} effects" for job, count in repeated(effect.job_id for effect in effects).items()
    ]
    in_flight = [kill for kill in kills if kill.held]
    recoveries = [recovery_seconds(kill, statuses) for kill in in_flight]
    evidence.trials(len(statuses), len(lost), "jobs", examples=lost, claim="A5.kill", fault=FAULT)
    evidence.trials(len(statuses), len(twice), "jobs", examples=twice, claim="A5.once", fault=FAULT)
    evidence.samples(
        recoveries,
        "s",
        "from each kill until the last job that the victim held has ended",
        claim="H7.recovery",
        fault=FAULT,
    )
    evidence.samples(recoveries, "s", "recoveries from SIGKILL", claim="H9.availability", fault=FAULT)
    windows = [
        (FAULT, kill.at_ms, kill.at_ms + 1000 * took)
        for kill, took in zip(in_flight, recoveries, strict=True)
    ]
    evidence.timeline(faults=windows, curves={("queue length", "jobs"): depths}, claim="H7.recovery")
    evidence.facts(
        kills=len(kills),
        kills_of_work_in_flight=len(in_flight),
        jobs_held_by_victims=sum(len(kill.held) for kill in kills),
        submitted=len(answers),
        refused=sum(1 for one in answers if not one.accepted),
        redelivered=sum(1 for status in statuses.values() if status is not None and status.deliveries > 1),
        most_deliveries=max(
            (status.deliveries for status in statuses.values() if status is not None), default=0
        ),
        kill_seconds=(kills[-1].at_ms - kills[0].at_ms) / 1000 if kills else 0,
        submitted_before_last_kill=sum(
            1
            for status in statuses.values()
            if status is not None and kills and status.created_ms < kills[-1].at_ms
        ),
        settings=SETTINGS,
        kills_log=[{"at_ms": kill.at_ms, "worker": kill.worker, "held": list(kill.held)} for kill in kills],
    )
    assert all(one.accepted for one in answers), "a submission was refused although only workers were killed"
    assert len(in_flight) >= wanted, f"only {len(in_flight)} of {len(kills)} kills hit work in flight"
    assert not lost, f"{len(lost)} of {len(statuses)} acknowledged documents lost: {lost[0]}"
    assert not twice, f"{len(twice)} of {len(statuses)} documents committed twice: {twice[0]}"


def recovery_seconds(kill: Kill, statuses: Mapping[str, JobStatus | None]) -> float:
    """Until the last job that the victim held has ended, on the clock of this machine; at least 0.

    A job that never ended counts with the whole time that was given to it.
    """
    seconds = [0.0]
    for job in kill.held:
        status = statuses.get(job)
        ended_ms = status.finished_ms if status is not None else None
        seconds.append((ended_ms - kill.at_ms) / 1000 if ended_ms is not None else DRAIN_SECONDS)
    return max(seconds)
