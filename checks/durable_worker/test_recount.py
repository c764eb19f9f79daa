"""Every ingested document has exactly the chunks, vectors and tokens that an independent recount of its
file gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from readiness.checking.ends import state_of
from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.recount import Recount, Unreadable
from readiness.simulators.embedding import vector_for
from readiness.targets.base import CommittedDocument, JobStatus, Lane, StoredChunk


@dataclass(frozen=True, slots=True)
class Row:
    """One document beside what became of it."""

    document: Document
    job_id: str
    status: JobStatus | None
    committed: CommittedDocument | None
    chunks: list[StoredChunk]


@pytest.mark.claim("H10.recount")
def test_committed_rows_equal_an_independent_recount(ingested: Ingested, evidence: ClaimEvidence) -> None:
    """Words, chunks, texts, vectors, tokens and digest in SQL are those of the file; what has no text is
    refused.
    """
    wrong: list[str] = []
    counted = list(ingested.recounts.values())
    for row, expected in zip(rows(ingested), counted, strict=True):
        # The first difference stands for its document: one violation a document, however many rows are off.
        if difference := next(differences(row, expected), ""):
            wrong.append(f"{row.document.name} ({row.job_id}): {difference}")

    evidence.trials(len(counted), len(wrong), "documents", examples=wrong)
    readable = [one for one in counted if isinstance(one, Recount)]
    evidence.facts(
        documents=len(counted),
        refused=len(counted) - len(readable),
        words=sum(one.words for one in readable),
        chunks=sum(one.chunks for one in readable),
        vectors=sum(one.chunks for one in readable),
        tokens=sum(one.tokens for one in readable),
        bytes=ingested.corpus.total_bytes,
        skipped_files=len(ingested.corpus.skipped),
        ingestion_seconds=round(ingested.total_seconds, 3),
    )
    assert not wrong, f"{len(wrong)} of {len(counted)} documents differ from the recount, first: {wrong[0]}"


def rows(ingested: Ingested) -> Iterator[Row]:
    """Each ingested document with its state and its rows, in the order of submission."""
    lane: Lane = ingested.lane
    committed = lane.committed()
    for job, document in ingested.documents.items():
        yield Row(document, job, ingested.statuses[job], committed.get(job), lane.chunks(job))


def differences(row: Row, expected: Recount | Unreadable) -> Iterator[str]:
    """What is wrong with one document's rows, the plainest first."""
    if isinstance(expected, Unreadable):
        if state_of(row.status) != "dead" or row.committed is not None or row.chunks:
            yield f"expected refusal ({expected.reason}), got {state_of(row.status)}, {len(row.chunks)} chunks"
        return
    if row.status is None or row.status.state != "done" or row.committed is None:
        yield f"expected done with rows in SQL, got {state_of(row.status)}"
        return
    got = row.committed
    pairs = {
        "sha256": (row.document.sha256, got.sha256),
        "words": (expected.words, got.words),
        "chunk_count": (expected.chunks, got.chunk_count),
        "chunk rows": (expected.chunks, got.chunk_rows),
        "vector rows": (expected.chunks, got.vector_rows),
        "token_count": (expected.tokens, got.token_count),
        "sum of chunk tokens": (expected.tokens, got.token_sum),
        "chunks in the API's answer": (expected.chunks, row.status.chunks),
        "tokens in the API's answer": (expected.tokens, row.status.tokens),
    }
    for what, (want, have) in pairs.items():
        if want != have:
            yield f"{what}: expected {want}, got {have}"
    for ordinal, (text, chunk) in enumerate(zip(expected.texts, row.chunks, strict=False)):
        if chunk.text != text:
            yield f"chunk {ordinal}: expected the text {text[:40]!r}…, got {chunk.text[:40]!r}…"
        if tuple(chunk.vector) != vector_for(text):
            yield f"chunk {ordinal}: expected the vector of its text, got another one"
