"""An exhausted job is in the dead-letter queue whole, in no other state, and can be brought back."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.targets.base import JobStatus, Lane
from readiness.targets.ragworker_keys import QueueKeys

ATTEMPTS = 5
AT_ONCE = 8
FIRST_DELAY_MS = 20  # base of retry_lane
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
        ("error is that of the last attempt", "EMBEDDING_SERVER_ERROR", last_code(entry)),
        ("error says what the API answered", True, "503" in str((entry.get("error") or {}).get("message"))),
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


@pytest.mark.claim("C3.dead_letter")
def test_requeue_happens_once_and_purge_forgets(retried: Any, evidence: ClaimEvidence) -> None:
    """Asked eight times at once, one requeue is accepted and the document comes back whole; a purged one is gone."""
    lane: Lane = retried.lane
    large, purged = retried.jobs[retried.large], retried.jobs[retried.purged]
    before = entries(lane)
    pages = [
        entry["job_id"]
        for offset in range(0, len(before) + 1, 2)
        for entry in lane.http().get("/rag/dlq", params={"offset": offset, "limit": 2}).json()["entries"]
    ]
    cases: list[tuple[str, object, object]] = [
        ("both are listed", True, {large, purged} <= set(before)),
        ("pages of two are the list, each entry once", before, pages),
        ("state of the large one", "dead", retried.status(retried.large).state),
    ]

    # When the fault passes with one more failure, everybody requeues the large one at once, and the other is purged.
    lane.script_embedding([{"contains": retried.large.split()[0], "times": 1, "status": 503}])
    lane.http()  # one client, made before the threads
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = Counter(pool.map(lambda _: lane.requeue(large), range(AT_ONCE)))
    forgotten = [lane.http().delete(f"/rag/dlq/{purged}").status_code for _ in range(2)]
    status = lane.wait_all([large], seconds=FINISH_SECONDS)[large]
    again = lane.enqueue(Document("purged.txt", "text/plain", b"purged and submitted anew"))
    lane.wait_all([again.job_id], seconds=FINISH_SECONDS)
    with QueueKeys(lane) as keys:
        misplaced = keys.snapshot().misplaced()
    hopeless = retried.hopeless[0]
    known = lane.enqueue(Document(f"{hopeless}.txt", "text/plain", hopeless.encode()))
    cases += [
        ("one requeue of eight is accepted", 1, answers[202]),
        ("the others are refused", AT_ONCE - 1, answers[404] + answers[409]),
        ("state after requeue", "done", status.state),
        ("requeued once in the history", 1, sum(1 for event in status.history if event.event == "requeued")),
        ("ended once after that", 1, sum(1 for event in status.history if event.event == "done")),
        ("a fresh series of attempts", 2, status.attempt),
        ("the first delay of the table again", FIRST_DELAY_MS, last_delay_ms(status)),
        ("one effect after requeue", 1, effects(lane, large)),
        ("listed no more", 0, listed(lane, large)),
        ("content is whole", sha256(retried.large.encode()).hexdigest(), content_of(lane, large)),
        ("words are those of the document", len(retried.large.split()), words_of(lane, large)),
        ("a purge is done once", [204, 404], forgotten),
        ("a purged job is unknown", "missing", lane.status(purged).state),
        ("a purged job is not listed", 0, listed(lane, purged)),
        ("nothing of it is left in Redis", [], misplaced),
        ("a purged job has no effect", 0, effects(lane, purged)),
        ("the other dead ones stay", sorted({*before} - {large, purged}), sorted(entries(lane))),
        ("new work is accepted", 202, again.status_code),
        (
            "a dead job submitted again is that job, still dead",
            (200, retried.jobs[hopeless], "dead"),
            (known.status_code, known.job_id, lane.status(known.job_id).state),
        ),
    ]
    wrong = [f"{what}: expected {want!r}, got {have!r}" for what, want, have in cases if want != have]
    evidence.cases(len(cases), len(wrong), wrong, "facts of requeues at once and of a purge")
    assert not wrong, wrong[0]


def entries(lane: Lane) -> list[str]:
    """Ids in the list of dead letters, in its order."""
    return [str(entry["job_id"]) for entry in lane.dead_letters()]


def content_of(lane: Lane, job: str) -> str:
    """The digest of the document that was committed for the job."""
    document = lane.committed().get(job)
    return document.sha256 if document else "nothing committed"


def words_of(lane: Lane, job: str) -> int:
    """The words that were committed for the job."""
    document = lane.committed().get(job)
    return document.words if document else 0


def last_delay_ms(status: JobStatus) -> int | None:
    """The newest delay in the history."""
    delays = [event.delay_ms for event in status.history if event.delay_ms is not None]
    return delays[-1] if delays else None


def last_code(entry: dict[str, Any]) -> object:
    """The code of the last failure in the history."""
    codes = [event["code"] for event in entry.get("history") or [] if event.get("code")]
    return codes[-1] if codes else None


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
