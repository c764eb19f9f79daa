"""Chunks are embedded in batches of min(batch size, chunks left)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.history import Request, batch_sizes, digest_of, requests_of
from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.recount import Recount, Unreadable, recount
from readiness.targets.base import Lane

DEFAULT_BATCH = 32
LARGER_BATCH = 64
# Around the borders of one and two batches of 64 (a chunk more is 150 words more).
CHUNKS = (1, 63, 64, 65, 129)
FINISH_SECONDS = 20.0


@pytest.mark.claim("B1.batch")
def test_corpus_is_embedded_in_batches_of_32(ingested: Ingested, evidence: ClaimEvidence) -> None:
    """No request of the whole corpus carries more than 32 texts, and each document is cut into full
    batches.
    """
    recounts = {job: ingested.recounts[job] for job in ingested.done}
    readable = sum(isinstance(texts, Recount) for texts in ingested.recounts.values())
    undone = [f"expected {readable} documents done, got {len(recounts)}"] if len(recounts) < readable else []
    judge_batches(ingested.lane, recounts, DEFAULT_BATCH, evidence, undone)


@pytest.mark.claim("B1.batch")
def test_batch_size_of_64_is_kept(retry_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """With RAG_EMBEDDING_BATCH_SIZE=64 documents around the border of a batch are cut at 64."""
    retry_lane.script_embedding([])
    documents: dict[str, Document] = {}
    for chunks in CHUNKS:
        words = " ".join(f"w{seed}-{chunks}-{number}" for number in range(150 * chunks + 30))
        document = Document(name=f"batch-{chunks}.txt", media_type="text/plain", content=words.encode())
        documents[retry_lane.enqueue(document).job_id] = document
    statuses = ends_of(retry_lane, list(documents), seconds=FINISH_SECONDS)
    undone = [
        f"{documents[job].name}: expected done, got {state_of(status)}"
        for job, status in statuses.items()
        if state_of(status) != "done"
    ]
    recounts = {job: recount(document) for job, document in documents.items()}
    judge_batches(retry_lane, recounts, LARGER_BATCH, evidence, undone)


def judge_batches(
    lane: Lane,
    recounts: Mapping[str, Recount | Unreadable],
    limit: int,
    evidence: ClaimEvidence,
    undone: Sequence[str],
) -> None:
    """Compare the true log with the sizes that each document must be cut into; one case a document, one a
    request.
    """
    requests = requests_of(lane.embedding_log())
    wrong = [
        f"a request with {request.inputs} inputs, expected at most {limit}"
        for request in requests
        if request.inputs > limit
    ]
    wrong += undone
    counted = {job: texts for job, texts in recounts.items() if isinstance(texts, Recount)}
    for job, texts in counted.items():
        expected = batch_sizes(texts.chunks, limit=limit)
        seen = sizes_of(requests, texts)
        if seen != expected:
            wrong.append(f"{job}: expected batches of {expected}, got {seen}")
    n = len(requests) + len(counted) + 1
    evidence.cases(n, min(len(wrong), n), wrong, f"requests and documents at batch size {limit}")
    evidence.facts(requests=len(requests), documents=len(counted), batch_size=limit)
    assert not wrong, wrong[0]


def sizes_of(requests: Sequence[Request], document: Recount) -> list[int]:
    """The sizes of the successful requests that carried this document, first text first, each batch counted
    once.

    Documents may share a text, so a request belongs to the document only when all of its texts do.
    """
    order = {digest_of(text): index for index, text in reversed(list(enumerate(document.texts)))}
    mine = {
        request.digests
        for request in requests
        if request.status == 200 and all(digest in order for digest in request.digests)
    }
    return [len(digests) for digests in sorted(mine, key=lambda digests: order[digests[0]])]
