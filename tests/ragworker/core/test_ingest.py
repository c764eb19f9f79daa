"""One document's way through the pipeline: what arrives, how it is batched, what a cancellation leaves."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworker import ingest as ingest_module
from ragworker.cancellation import Cancellation
from ragworker.chunking import Chunk, ChunkPlan
from ragworker.embedding import Vector
from ragworker.errors import ErrorCode, JobFailedError, LeaseLostError, WorkerCancellationError
from ragworker.ingest import Ingestor, _Chunks, _Spool, cut_batches
from ragworker.job import ClaimedJob, NewJob
from ragworker.limits import BatchGate
from ragworker.rows import about
from ragworker.settings import Settings
from ragworker.stats import Stats
from ragworker.store import CommitResult, Store
from ragworker.tempfiles import PrivateFiles

pytestmark = pytest.mark.anyio


class Delivery:
    """A document in pieces, and whatever a test makes of it."""

    def __init__(
        self, content: bytes, *, pieces: list[bytes] | None = None, media_type: str = "text/plain"
    ) -> None:
        self.pieces = [content] if pieces is None else pieces
        self.cancellation = Cancellation()
        self.confirmed = True
        self.job = ClaimedJob(
            job_id="job-1",
            fence=10,
            attempt=1,
            delivery=1,
            about=about(
                NewJob("n", "n", media_type, content), sha256=hashlib.sha256(content).hexdigest()
            ).encode(),
        )

    async def document(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(0)
            yield piece

    async def progressed(self, stage: str, done: int, total: int) -> None:
        pass

    async def confirm(self) -> None:
        if not self.confirmed:
            raise LeaseLostError("gone")


class Embedder:
    """Vectors of one length, unless told otherwise."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.dimensions = iter(lambda: 3, 0)

    async def embed(self, texts: list[str], *, tokens: int) -> list[Vector]:
        self.requests.append(texts)
        dimensions = next(self.dimensions)
        return [Vector(dimensions, b"abcd" * dimensions) for _ in texts]


class Pipeline:
    """An ingestor on SQLite with an embedder that never fails."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.settings = Settings.load({"RAG_TEMP_DIR": str(folder / "tmp"), **environ})
        self.store = Store(f"sqlite:///{folder / 'rag.db'}")
        self.store.create_schema()
        self.embedder = Embedder()
        self.threads = ThreadPoolExecutor(8)
        parts: dict[str, Any] = {"store": self.store, "embedder": self.embedder, "threads": self.threads}
        self.ingestor = Ingestor(
            self.settings,
            gate=BatchGate(concurrency=3, token_budget=100_000),
            files=PrivateFiles(self.settings.temp_dir, owner="w1"),
            worker="w1",
            stats=Stats(),
            **parts,
        )

    def close(self) -> None:
        self.threads.shutdown()
        self.store.close()


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """A fresh one, whose private folder must be empty at the end."""
    made = Pipeline(tmp_path)
    yield made
    made.close()
    assert list(made.settings.temp_dir.glob("*")) == []


async def failure(pipeline: Pipeline, delivery: Delivery) -> ErrorCode:
    with pytest.raises(JobFailedError) as caught:
        await pipeline.ingestor.run(delivery)
    assert pipeline.store.committed("job-1") is None
    return caught.value.code


async def test_document_in_many_pieces_is_one_document(pipeline: Pipeline) -> None:
    """Pieces that cut words and characters in two make the same document."""
    content = "한국어 문서 words ".encode() * 1000
    delivery = Delivery(content, pieces=[content[at : at + 7] for at in range(0, len(content), 7)])
    result = await pipeline.ingestor.run(delivery)
    assert result.commit is CommitResult.COMMITTED
    assert (result.figures.words, result.figures.chunks) == (3000, ChunkPlan().count(3000))
    assert sum(map(len, pipeline.embedder.requests)) == result.figures.chunks


@pytest.mark.parametrize(
    "pieces",
    [[], [b"one two "], [b"one two thre"], [b"one two three", b" four"], [b"one two threE"]],
    ids=["nothing", "a piece is gone", "cut short", "longer", "other bytes"],
)
async def test_other_bytes_than_submitted_are_refused(pipeline: Pipeline, pieces: list[bytes]) -> None:
    """What does not have the size and the hash of the submission is never read."""
    delivery = Delivery(b"one two three", pieces=pieces)
    if pieces == [b"one two three", b" four"]:
        delivery.pieces = [b"one two three four"]
    assert await failure(pipeline, delivery) is ErrorCode.PAYLOAD_MISSING
    assert pipeline.embedder.requests == []


async def test_vectors_of_several_lengths_are_refused(pipeline: Pipeline) -> None:
    """Also when each answer has one length of its own."""
    pipeline.embedder.dimensions = iter([3, 4, 3, 4])
    assert await failure(pipeline, Delivery(b"word " * 9000)) is ErrorCode.EMBEDDING_BAD_RESPONSE


async def test_chunk_without_measure_is_refused(pipeline: Pipeline) -> None:
    """Words that are long, but not too long, still make a chunk that no model could read."""
    content = (b"x" * 60_000 + b" ") * 20
    assert await failure(pipeline, Delivery(content)) is ErrorCode.DOCUMENT_TOO_LARGE
    assert pipeline.embedder.requests == []


async def test_reading_has_a_deadline(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that takes too long to read is refused for good; one that takes too long to come is not its fault."""
    monkeypatch.setattr(ingest_module, "EXTRACT_SECONDS", 0.2)
    late = Delivery(b"one two", pieces=[])

    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(10)
        yield b""

    late.document = never  # type: ignore[method-assign]  # a stub of a stub
    assert await failure(pipeline, late) is ErrorCode.QUEUE_UNAVAILABLE
    released = threading.Event()

    def slow(*_: object, **__: object) -> Iterator[list[str]]:
        released.wait(10)
        yield ["word"]

    monkeypatch.setattr(ingest_module, "read_words", slow)
    assert await failure(pipeline, Delivery(b"one two")) is ErrorCode.DOCUMENT_TOO_LARGE
    released.set()


async def test_cancelled_reading_leaves_nothing(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation while a thread reads ends the job at once; the thread wipes what it holds when it notices."""
    reading, noticed = threading.Event(), threading.Event()

    def slow(*_: object, stopped: Callable[[], bool]) -> Iterator[list[str]]:
        reading.set()
        deadline = time.monotonic() + 10
        while not stopped() and time.monotonic() < deadline:
            yield ["word"]
        if stopped():
            noticed.set()

    monkeypatch.setattr(ingest_module, "read_words", slow)
    delivery = Delivery(b"one two")
    running = asyncio.create_task(pipeline.ingestor.run(delivery))
    await asyncio.to_thread(reading.wait, 10)
    delivery.cancellation.request("by a test")
    with pytest.raises(WorkerCancellationError):
        await asyncio.wait_for(running, 5)
    assert await asyncio.to_thread(noticed.wait, 5)
    assert pipeline.store.committed("job-1") is None


async def test_commit_under_way_is_heard_to_its_end(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops cancels again and again; the spools stay until the commit is done, and it counts."""
    committing, released = threading.Event(), threading.Event()
    real = pipeline.store.commit

    def slow(*arguments: Any) -> CommitResult:
        committing.set()
        released.wait(10)
        return real(*arguments)

    monkeypatch.setattr(pipeline.store, "commit", slow)
    running = asyncio.create_task(pipeline.ingestor.run(Delivery(b"one two three")))
    await asyncio.to_thread(committing.wait, 10)
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0.01)
    assert not running.done()
    released.set()
    assert (await asyncio.wait_for(running, 10)).commit is CommitResult.COMMITTED
    row = pipeline.store.committed("job-1")
    assert row is not None
    assert row.words == 3


async def test_lost_lease_commits_nothing(pipeline: Pipeline) -> None:
    """A delivery that is no longer ours, by Redis or by a newer fence in SQL, leaves no effect."""
    delivery = Delivery(b"one two three")
    delivery.confirmed = False
    with pytest.raises(LeaseLostError):
        await pipeline.ingestor.run(delivery)
    pipeline.store.raise_fences([("job-1", 11)])
    with pytest.raises(LeaseLostError):
        await pipeline.ingestor.run(Delivery(b"one two three"))
    assert pipeline.store.committed("job-1") is None


@given(
    st.lists(st.integers(1, 60), max_size=40),
    st.integers(1, 8),
    st.sampled_from([0, 60, 100, 500]),
    st.sampled_from([40, 200, 10_000]),
)
def test_batches_keep_order_and_bounds(words: list[int], size: int, token_limit: int, chars: int) -> None:
    """Every chunk once, in order; no batch above a bound unless it is one chunk; full unless a bound stops it."""
    chunks = [Chunk(n, "w " * count, count) for n, count in enumerate(words)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest_module, "BATCH_CHARS", chars)
        batches = [*cut_batches(chunks, size=size, token_limit=token_limit)]

    def fits(batch: list[Chunk]) -> bool:
        tokens, length = sum(c.tokens for c in batch), sum(len(c.text) for c in batch)
        return len(batch) <= size and length <= chars and (not token_limit or tokens <= token_limit)

    assert [chunk for batch in batches for chunk in batch] == chunks
    assert all(fits(batch) or len(batch) == 1 for batch in batches)
    for batch, following in pairwise(batches):
        assert not fits([*batch, following[0]])


@given(st.lists(st.lists(st.text("ab한\ud800", min_size=1, max_size=3), max_size=30), max_size=10))
def test_spooled_chunks_are_the_cut_ones(lists: list[list[str]]) -> None:
    """What is read from the spool is what the plan cuts, lone surrogates apart."""
    plan = ChunkPlan(words=7, overlap=2)
    spool = _Chunks(Path("/tmp"), plan)
    words = [word for some in lists for word in some]
    assert spool.fill(lists) == len(words)
    expected = [*plan.cut(word.replace("\ud800", "?") for word in words)]
    assert [*spool.read()] == [*spool.read()] == expected
    spool.close()


def test_spilled_spool_is_overwritten(tmp_path: Path) -> None:
    """Text that went to the disk is random bytes there when the spool is closed; its file never had a name."""
    spool = _Spool(tmp_path)
    spool._file.write(b"secret text" * 200_000)
    kept = os.dup(spool._file.fileno())
    assert list(tmp_path.iterdir()) == []
    spool.close()
    with os.fdopen(kept, "rb") as leftover:
        leftover.seek(0)
        content = leftover.read()
    assert len(content) == 2_200_000
    assert b"secret" not in content
