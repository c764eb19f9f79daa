"""Nothing that was accepted is anywhere else than where it belongs: enqueued = done + dead + cancelled + alive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.targets.base import JobStatus, Lane
from readiness.targets.ragworker_keys import QueueKeys

QUIET_SECONDS = 30.0
# What may follow what in the history of one job; a history begins with "submitted".
FOLLOWS = {
    "submitted": {"claimed", "cancelled"},
    "claimed": {"done", "retry_scheduled", "dead", "cancelled", "released", "taken_over"},
    "retry_scheduled": {"claimed"},
    "released": {"claimed"},
    "taken_over": {"claimed", "dead"},
    "requeued": {"claimed", "cancelled"},
    "done": {"rolled_back"},
    "dead": {"requeued"},
    "cancelled": set(),
    "rolled_back": set(),
}
ENDS = {"done": "done", "dead": "dead", "cancelled": "cancelled", "rolled_back": "cancelled"}


@pytest.mark.claim("C3.conservation")
def test_every_job_is_in_exactly_one_place(retried: Any, evidence: ClaimEvidence) -> None:
    """After successes, retries and failures every job is accounted for by API, Redis, SQL, DLQ and counters."""
    lane: Lane = retried.lane
    with QueueKeys(lane) as keys:
        wait_until(lambda: lane.depth() + lane.in_flight() == 0, seconds=QUIET_SECONDS, what="an idle queue")
        snapshot, counters = keys.snapshot(), keys.counters()
    listed = [str(entry["job_id"]) for entry in lane.dead_letters()]
    effects = Counter(effect.job_id for effect in lane.effects())
    submitted = [*retried.jobs.values(), *(job for job in retried.refused.values() if job)]

    wrong = [
        f"{job}: accepted, but the queue has no record of it"
        for job in submitted
        if job not in snapshot.states
    ]
    wrong += snapshot.misplaced()
    for job, state in snapshot.states.items():
        status = lane.status(job)
        facts = {
            "the API's state": (state, status.state),
            "entries in the DLQ": (int(state == "dead"), listed.count(job)),
            "effects in SQL": (int(state == "done"), effects[job]),
            "a document is kept": (
                state == "dead" and size(status) > 0,
                snapshot.document_bytes.get(job, 0) > 0,
            ),
        }
        wrong += [
            f"{job} is {state}: {what}: expected {want}, got {have}"
            for what, (want, have) in facts.items()
            if want != have
        ]
        wrong += [f"{job}: {problem}" for problem in history_is_wrong(status)]
    wrong += ledger_is_wrong(counters, [lane.status(job) for job in snapshot.states])

    n = 6 * len(snapshot.states) + 5
    evidence.cases(n, min(len(wrong), n), wrong, "jobs and where they are")
    evidence.facts(states=Counter(snapshot.states.values()), jobs=len(snapshot.states))
    assert not wrong, wrong[0]


def size(status: JobStatus) -> int:
    """The bytes of the document that was submitted."""
    given = status.body.get("bytes")
    return given if isinstance(given, int) else 0


def history_is_wrong(status: JobStatus) -> Iterable[str]:
    """What is wrong with one history: its order, its gaps, its attempts, its end."""
    events = status.history
    if not events or events[0].event != "submitted":
        yield f"expected a history that begins with submitted, got {[event.event for event in events[:2]]}"
        return
    for earlier, later in pairwise(events):
        if later.at_ms < earlier.at_ms:
            yield f"expected {later.event} not before {earlier.event}, got {earlier.at_ms - later.at_ms} ms before"
        after = sorted(FOLLOWS.get(earlier.event, ()))
        if later.event not in after:
            yield f"expected one of {after} after {earlier.event}, got {later.event}"
        if earlier.event == "retry_scheduled" and later.attempt != earlier.attempt + 1:
            yield f"expected attempt {earlier.attempt + 1} after a retry, got {later.attempt}"
        if earlier.delay_ms is not None and later.at_ms < earlier.at_ms + earlier.delay_ms:
            yield f"expected the retry {earlier.delay_ms} ms later, got {later.at_ms - earlier.at_ms} ms"
        if later.event in ("retry_scheduled", "dead") and not later.code:
            yield f"expected the error's code with {later.event}, got none"
    if ENDS.get(events[-1].event) != status.state:
        yield f"expected a history that ends as the job did ({status.state}), got {events[-1].event}"
    if status.finished_ms is None or status.finished_ms < status.created_ms:
        yield f"expected an end after the start {status.created_ms}, got {status.finished_ms}"


def ledger_is_wrong(counters: Mapping[str, float], jobs: Sequence[JobStatus]) -> list[str]:
    """The queue's counters against what the records of its jobs say."""
    happened = Counter(event.event for job in jobs for event in job.history)
    wanted = {
        "submitted": len(jobs),
        "retried": happened["retry_scheduled"],
        "dead": happened["dead"],
        "finished:dead": happened["dead"],
        "finished:done": happened["done"],
    }
    return [
        f"counter {name}: expected {want} from the records, got {counters.get(name, 0):g}"
        for name, want in wanted.items()
        if counters.get(name, 0) != want
    ]
