"""An exhausted job is in the dead-letter queue whole, in no other state, and can be brought back."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.targets.base import Lane

ATTEMPTS = 5
FINISH_SECONDS = 20.0


@pytest.mark.claim("C3.dead_letter")
def test_dead_letter_is_whole_and_can_be_requeued(retried: Any, evidence: ClaimEvidence) -> None:
    """The entry keeps payload, error and every attempt; without the fault a requeue brings the job to its
    end.
    """
    # Given a job that is dead because its embedding failed five times.
    lane: Lane = retried.lane
    text = retried.buried
    content, job, status = text.encode(), retried.jobs[text], retried.status(text)
    digest = sha256(content).hexdigest()
    entry = entry_of(lane, job)
    cases: list[tuple[str, object, object]] = [
        ("state", "dead", status.state),
        ("listed", 1, listed(lane, job)),
        ("payload sha256", digest, find(entry, "sha256")),
        ("payload bytes", len(content), find(entry, "bytes")),
        ("error code is the job's", status.error_code, (entry.get("error") or {}).get("code")),
        ("error has a message", True, bool((entry.get("error") or {}).get("message"))),
        ("attempts", ATTEMPTS, attempts_in(entry)),
        ("no effect", 0, effects(lane, job)),
        ("waiting nowhere", 0, lane.depth()),
        ("held by nobody", 0, lane.in_flight()),
    ]

    # When the fault is gone and an operator requeues it, then it completes and leaves the queue of the dead.
    lane.script_embedding([])
    cases.append(("requeue is accepted", 202, lane.requeue(job)))
    status = lane.wait_all([job], seconds=FINISH_SECONDS)[job]
    cases += [
        ("state after requeue", "done", status.state),
        ("one effect after requeue", 1, effects(lane, job)),
        ("not listed any more", 0, listed(lane, job)),
        (
            "content after requeue",
            digest,
            lane.committed()[job].sha256 if status.state == "done" else "",
        ),
        ("a second requeue is refused", True, lane.requeue(job) in (404, 409)),
    ]

    wrong = [f"{what}: expected {want!r}, got {have!r}" for what, want, have in cases if want != have]
    evidence.cases(len(cases), len(wrong), wrong, "facts of a dead letter before and after its requeue")
    evidence.facts(error=entry.get("error"), history_events=len(entry.get("history") or []))
    assert not wrong, wrong[0]


def entry_of(lane: Lane, job: str) -> dict[str, Any]:
    """The whole entry as the API shows it; empty when there is none."""
    answer = lane.http().get(f"/rag/dlq/{job}")
    return dict(answer.json()) if answer.status_code == 200 else {}


def listed(lane: Lane, job: str) -> int:
    """How often the job is in the list of dead letters."""
    return sum(1 for entry in lane.dead_letters() if entry.get("job_id") == job)


def effects(lane: Lane, job: str) -> int:
    """How many committed effects SQL has for the job."""
    return sum(1 for effect in lane.effects() if effect.job_id == job)


def find(entry: dict[str, Any], key: str) -> object:
    """A fact of the payload, beside the entry's own or in a ``payload`` object."""
    payload = entry.get("payload")
    return payload.get(key) if isinstance(payload, dict) else entry.get(key)


def attempts_in(entry: dict[str, Any]) -> int:
    """How many distinct attempts the history shows as failed."""
    failed = {event.get("attempt") for event in entry.get("history") or [] if event.get("code")}
    return len(failed)
