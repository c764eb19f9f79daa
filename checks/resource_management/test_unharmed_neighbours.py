"""One bad document fails alone: what was claimed, embedded and settled together with it is done all the same."""

from __future__ import annotations

import random
import threading

import pytest

from readiness.checking.ends import ends_of
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.simulators.embedding import vector_for
from readiness.targets.base import JobStatus, Lane

GOOD, BAD = 40, 10  # 10 of each kind of bad
SUBMITTERS = 4  # so that submissions travel together
FINISH_SECONDS = 30.0
REJECTED = "rejected"
# Kinds of documents that can never be done, by the code that must say why.
KINDS = {
    "blank": ("text/plain", "VALIDATION_ERROR"),
    "broken": ("application/pdf", "DOCUMENT_UNREADABLE"),
    REJECTED: ("text/plain", "EMBEDDING_REJECTED"),
}


@pytest.mark.claim("B1.items")
def test_a_bad_document_fails_alone(odd_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """Good and bad documents in random order, many at a time: each good one is done with its own vector and each bad
    one is dead with its own code, at its first attempt.
    """
    odd_lane.script_embedding([{"contains": f"{REJECTED}-{seed}", "status": 400}])
    texts = {f"good-{number}.txt": f"good {seed} {number}" for number in range(GOOD)}
    documents = [Document(name, "text/plain", text.encode()) for name, text in texts.items()]
    documents += [bad_document(kind, number, seed) for kind in KINDS for number in range(BAD)]
    random.Random(seed).shuffle(documents)
    jobs: dict[str, str] = {}

    def submit(some: list[Document]) -> None:
        for document in some:
            jobs[document.name] = odd_lane.enqueue(document).job_id

    threads = [
        threading.Thread(target=submit, args=(documents[start::SUBMITTERS],)) for start in range(SUBMITTERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=FINISH_SECONDS)
    missing = [f"{document.name}: not accepted" for document in documents if not jobs.get(document.name)]
    accepted = {name: job for name, job in jobs.items() if job}
    statuses = ends_of(odd_lane, list(accepted.values()), seconds=FINISH_SECONDS)
    odd_lane.script_embedding([])

    wrong = missing + [
        f"{name}: expected {expected}, got {got}"
        for name, job in sorted(accepted.items())
        if (expected := end_of(name)) != (got := seen_end(statuses[job]))
    ]
    for name, text in texts.items():
        stored = [(chunk.text, chunk.vector) for chunk in odd_lane.chunks(jobs.get(name, ""))]
        if stored != [(text, vector_for(text))]:
            wrong.append(f"{name}: expected its own text and vector in SQL, got {len(stored)} chunks")
    n = 2 * GOOD + BAD * len(KINDS)
    evidence.cases(n, min(n, len(wrong)), wrong, "documents that were at work together, each by its own end")
    assert not wrong, wrong[0]


def bad_document(kind: str, number: int, seed: int) -> Document:
    contents = {
        "blank": " " * (number + 1),
        "broken": f"%PDF-1.7 no document {seed} {number}",
        REJECTED: f"{REJECTED}-{seed} {number}",
    }
    return Document(
        f"{kind}-{number}.{'pdf' if kind == 'broken' else 'txt'}", KINDS[kind][0], contents[kind].encode()
    )


def end_of(name: str) -> str:
    """How a document must end, by its name."""
    kind = name.partition("-")[0]
    return "done" if kind == "good" else f"dead by {KINDS[kind][1]} at attempt 1"


def seen_end(status: JobStatus | None) -> str:
    if status is None:
        return "unknown to the target"
    return (
        status.state
        if status.state == "done"
        else f"{status.state} by {status.error_code} at attempt {status.attempt}"
    )
