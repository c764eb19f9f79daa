"""A job has one owner at a time, is done only when its effect is in SQL, and ends, whoever is killed or frozen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.history import digest_of, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import JobStatus, Lane, Worker
from readiness.targets.ragworker_keys import QueueKeys
from readiness.targets.ragworker_sql import fences, held_commits

# What lease_lane sets.
SLOTS = 4  # two workers of two
LEASE_SECONDS = 1.5
DELIVERIES = 2

CHUNK_LATENCY_MS = 450
CHUNKS = 4  # two jobs of a worker take turns: 2 x 4 x 0.45 s is more than two leases
WORDS_A_CHUNK, WORDS_SHARED = 180, 30  # the public chunking rule
BEFORE_COMMIT_MS = 600  # time to see that a job is owned and to stop SQL before the job gets there
HELD_SECONDS = 1.6  # longer than embedding takes for both jobs of a worker: they stand before their commit
TAKEN_SECONDS = 15.0
FINISH_SECONDS = 30.0


@pytest.mark.early
@pytest.mark.claim("A5.lease")
def test_long_jobs_of_busy_workers_have_one_owner(
    lease_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """Jobs that fill all slots for longer than two leases are claimed once, embedded once and never taken over."""
    lane = lease_lane
    lane.script_embedding([], latency_ms=CHUNK_LATENCY_MS)
    jobs = [lane.enqueue(long_document(f"long-{seed}-{number}")).job_id for number in range(SLOTS)]
    statuses = ends_of(lane, jobs, seconds=FINISH_SECONDS)
    lane.script_embedding([])
    chunks = [chunk.text for job in jobs for chunk in lane.chunks(job)]
    asked = Counter(digest for request in requests_of(lane.embedding_log()) for digest in request.digests)
    effects = Counter(effect.job_id for effect in lane.effects())

    wrong: list[str] = []
    lasted: list[float] = []
    for job in jobs:
        wrong += single_owner_is_wrong(job, statuses[job])
        wrong += [f"{job}: expected one effect, got {effects[job]}"] if effects[job] != 1 else []
        lasted += [run_seconds(statuses[job])]
    wrong += [
        f"a chunk was embedded {asked[digest_of(text)]} times, expected once"
        for text in chunks
        if asked[digest_of(text)] != 1
    ]
    if len(chunks) != SLOTS * CHUNKS:
        wrong.append(f"expected {SLOTS * CHUNKS} chunks in SQL, got {len(chunks)}")
    n = 2 * len(jobs) + SLOTS * CHUNKS + 1
    evidence.cases(n, min(len(wrong), n), wrong, "owners of long jobs")
    evidence.facts(lease_seconds=LEASE_SECONDS, run_seconds=lasted)
    assert min(lasted, default=0) > LEASE_SECONDS or wrong, (
        "no job ran for longer than a lease: nothing was shown"
    )
    assert not wrong, wrong[0]


@pytest.mark.claim("A5.atomic")
def test_done_means_committed_when_the_worker_is_killed(
    lease_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """While SQL keeps commits waiting nobody says done; what the worker killed there held is done once by another."""
    lane = lease_lane
    lane.script_embedding([], latency_ms=BEFORE_COMMIT_MS)
    with QueueKeys(lane) as keys:
        jobs = [
            lane.enqueue(short_document(f"atomic-{seed}-{number}", pad=number)).job_id
            for number in range(SLOTS)
        ]
        owners = owners_when_fenced(lane, jobs)
        with held_commits(lane):
            early = done_without_effect(lane, jobs, seconds=HELD_SECONDS)
            victim = worker_of(lane, keys, owners[jobs[0]])
            victim.kill()
        lane.start_worker()
        held = [job for job in jobs if owners[job] == owners[jobs[0]]]
        statuses = ends_of(lane, jobs, seconds=FINISH_SECONDS)
    effects = Counter(effect.job_id for effect in lane.effects())

    wrong = early
    for job in jobs:
        if (state_of(statuses[job]), effects[job]) != ("done", 1):
            wrong.append(
                f"{job}{' of the killed worker' if job in held else ''}: expected done with one effect,"
                f" got {state_of(statuses[job])} with {effects[job]}"
            )
    for job in held:
        status = statuses[job]
        facts = (status.attempt, status.deliveries, "taken_over" in events_of(status)) if status else None
        if state_of(status) == "done" and facts != (1, 2, True):
            wrong.append(
                f"{job} of the killed worker: expected attempt 1 at delivery 2, taken over, got {facts}"
            )
    n = 2 * len(jobs) + len(held)
    evidence.cases(
        n, min(len(wrong), n), wrong, "states and effects around a killed commit", fault="worker killed"
    )
    evidence.facts(jobs_of_the_victim=len(held))
    assert not wrong, wrong[0]


@pytest.mark.claim("A5.atomic", "C2.poison")
def test_stale_owner_commits_nothing_and_poison_ends(
    lease_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """A worker frozen before its commit wakes after its lease and is refused; a job that lost two owners is dead."""
    lane = lease_lane
    lane.script_embedding([], latency_ms=BEFORE_COMMIT_MS)
    document = short_document(f"poison-{seed}")
    with QueueKeys(lane) as keys:
        job = lane.enqueue(document).job_id
        # Given an owner that was frozen when all was done but the commit.
        first_id = owners_when_fenced(lane, [job])[job]
        with held_commits(lane):
            early = done_without_effect(lane, [job], seconds=HELD_SECONDS)
            first = worker_of(lane, keys, first_id)
            first.pause()
        lane.script_embedding([], latency_ms=1500)
        second_id = wait_until(
            lambda: other_owner(lane, keys, job, than=first_id),
            seconds=TAKEN_SECONDS,
            what="a second owner of the job",
        )
        # When the second owner freezes before it can commit, and the first one wakes and goes on with its commit.
        second = worker_of(lane, keys, second_id)
        second.pause()
        first.resume()
        statuses = ends_of(lane, [job], seconds=FINISH_SECONDS)
        second.resume()
        lane.script_embedding([])
        # Then whoever woke may still be about to commit: its next job shows that it is past that.
        after = [
            lane.enqueue(short_document(f"after-poison-{seed}-{number}")).job_id
            for number in range(2 * SLOTS)
        ]
        ended = ends_of(lane, after, seconds=FINISH_SECONDS)
        claims_left = [held for held in keys.claims() if held == job]
        newest = keys.fence(job)
    committed = lane.effects()
    effects = Counter(effect.job_id for effect in committed)
    status = statuses[job]

    stale = [*early]
    stale += [
        f"{job}: expected no effect by an owner that lost its lease, got one under fence {effect.fence}, not {newest}"
        for effect in committed
        if effect.job_id == job and effect.fence != newest
    ]
    stale += [
        f"{one}: expected done with one effect after the freeze, got {state_of(ended[one])} with {effects[one]}"
        for one in after
        if (state_of(ended[one]), effects[one]) != ("done", 1)
    ]
    claimed = events_of(status).count("claimed")
    facts: dict[str, tuple[object, object]] = {
        "state": ("dead", state_of(status)),
        "code": ("WORKER_CRASHED", status.error_code if status else ""),
        "deliveries": (DELIVERIES, claimed),
        "history": (["submitted", "claimed", "taken_over", "claimed", "dead"], events_of(status)),
        "listed as a dead letter": (1, [entry.get("job_id") for entry in lane.dead_letters()].count(job)),
        "in workers' hands": (0, len(claims_left)),
        "effects": (0, effects[job]),
    }
    endless = [
        f"poison: {what}: expected {want!r}, got {have!r}"
        for what, (want, have) in facts.items()
        if want != have
    ]
    evidence.cases(
        2 + len(after),
        min(len(stale), 2 + len(after)),
        stale,
        "commits of a stale owner",
        claim="A5.atomic",
        fault="worker frozen beyond its lease",
    )
    evidence.cases(
        len(facts),
        len(endless),
        endless,
        "a job that its workers do not survive",
        claim="C2.poison",
        fault="workers frozen, one after the other",
    )
    assert not stale, stale[0]
    assert not endless, endless[0]


def single_owner_is_wrong(job: str, status: JobStatus | None) -> list[str]:
    """What shows that a job of a healthy worker was not claimed just once."""
    events = events_of(status)
    if (
        state_of(status) == "done"
        and events == ["submitted", "claimed", "done"]
        and status
        and status.deliveries == 1
    ):
        return []
    return [f"{job}: expected done, claimed once by one owner, got {state_of(status)} after {events}"]


def events_of(status: JobStatus | None) -> list[str]:
    """The names of what happened to a job, in order."""
    return [event.event for event in status.history] if status else []


def run_seconds(status: JobStatus | None) -> float:
    """From the first claim to the end."""
    moments = (
        [event.at_ms for event in status.history if event.event in ("claimed", "done")] if status else []
    )
    return (moments[-1] - moments[0]) / 1000 if moments else 0.0


def done_without_effect(lane: Lane, jobs: Sequence[str], *, seconds: float) -> list[str]:
    """Jobs that were called done within ``seconds`` although SQL had no effect of theirs."""
    found: dict[str, str] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        # First the state, then the effect: a commit in between cannot look like a lie.
        done = [job for job in jobs if lane.status(job).state == "done"]
        committed = {effect.job_id for effect in lane.effects()} if done else set()
        found |= {job: f"{job}: done without an effect in SQL" for job in done if job not in committed}
        time.sleep(0.05)
    return list(found.values())


def owners_when_fenced(lane: Lane, jobs: Sequence[str]) -> dict[str, str]:
    """Who claimed the jobs, as soon as SQL knows that they are owned: from here on only the commit needs SQL."""

    def fenced() -> dict[str, str]:
        known = fences(lane)
        return (
            {job: claimed_by(lane.status(job)) for job in jobs} if all(job in known for job in jobs) else {}
        )

    return wait_until(fenced, seconds=TAKEN_SECONDS, what="every job claimed, its fence raised in SQL")


def claimed_by(status: JobStatus) -> str:
    """Who claimed the job last."""
    return next((event.worker for event in reversed(status.history) if event.event == "claimed"), "")


def other_owner(lane: Lane, keys: QueueKeys, job: str, *, than: str) -> str:
    """The owner of the job when it is another one and SQL knows it, else "" """
    owner = keys.claims().get(job, "")
    return owner if owner and owner != than and keys.fence(job) == fences(lane).get(job) else ""


def worker_of(lane: Lane, keys: QueueKeys, worker_id: str) -> Worker:
    """The process of a worker's id."""
    pid = keys.pid_of(worker_id)
    return next(worker for worker in lane.workers if worker.pid == pid)


def long_document(name: str) -> Document:
    words = " ".join(
        f"{name}-{number}" for number in range(WORDS_A_CHUNK + (CHUNKS - 1) * (WORDS_A_CHUNK - WORDS_SHARED))
    )
    return Document(f"{name}.txt", "text/plain", words.encode())


def short_document(name: str, *, pad: int = 0) -> Document:
    return Document(f"{name}.txt", "text/plain", f"{name} {pad}".encode())
