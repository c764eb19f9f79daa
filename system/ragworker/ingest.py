"""What a job does: document -> words -> chunks -> vectors -> one SQL transaction. Used by worker and background.

Knows no queue and no lease: whether the job is still ours, whether it was cancelled and who listens to its progress
come in through `Delivery`. Memory is bounded by the batches in flight, not by the document (spec B5): words and
embedded chunks are spooled, and spill from memory to unnamed files in the private folder.

Nothing has an effect before the last step. Crash or cancellation at any earlier line leaves no trace in SQL, and
the private file is wiped by the next sweep; crash after it leaves a committed document, which the next delivery
finds (CommitResult.ALREADY). So the effect happens once whatever happens, and a failed attempt may simply start
from the beginning.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol, TypeVar

from ragworker.cancellation import Cancellation
from ragworker.chunking import Chunk, ChunkPlan, batches
from ragworker.embedding import EmbeddingClient
from ragworker.errors import ErrorCode, JobFailedError, LeaseLostError
from ragworker.extract import read_words, write_words
from ragworker.job import ClaimedJob, Figures
from ragworker.limits import BatchGate, Limiter
from ragworker.settings import Settings
from ragworker.store import ChunkRow, CommitResult, DocumentRow, Store
from ragworker.tempfiles import PrivateFiles

#: A spool stays in memory up to this size; then it becomes an unnamed file, which no crash can leave behind.
SPOOL_BYTES: Final = 1 << 20

#: A document that takes longer to read was made to.
EXTRACT_SECONDS: Final = 120.0

#: ordinal, tokens, dimensions, bytes of text, bytes of vector.
_RECORD: Final = struct.Struct("<IIIII")

Answer = TypeVar("Answer")


class Delivery(Protocol):
    """One delivery of a job, as its owner sees it."""

    job: ClaimedJob
    cancellation: Cancellation

    async def progressed(self, stage: str, done: int, total: int) -> None:
        """Tell listeners, and look for a cancel request. Never fails."""
        ...

    async def confirm(self) -> None:
        """Return when the delivery is still ours. LeaseLostError when it is not."""
        ...

    def document(self) -> AsyncIterator[bytes]:
        """The document in pieces; it ends early, or has none, when its bytes are gone."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished job did, and whether this very delivery did it."""

    figures: Figures
    commit: CommitResult


@dataclass(frozen=True, slots=True)
class _Batch:
    chunks: tuple[Chunk, ...]
    tokens: int


class Ingestor:
    """The pipeline; one per process, shared by its jobs."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        embedder: EmbeddingClient,
        limiter: Limiter,
        gate: BatchGate,
        files: PrivateFiles,
        threads: Executor,
        worker: str,
    ) -> None:
        self._settings = settings
        self._store = store
        self._embedder = embedder
        self._limiter = limiter
        self._gate = gate
        self._files = files
        self._threads = threads
        self._worker = worker

    async def run(self, delivery: Delivery) -> Result:
        """Do the job. JobFailedError, WorkerCancellationError, LeaseLostError, or what a client library raised."""
        delivery.cancellation.check()
        job = delivery.job
        payload = b"".join([piece async for piece in delivery.document()])
        with closing(_Spool(self._files.folder)) as embedded:
            # One race around everything that can wait: a cancelled job stops where it stands.
            work = self._prepare(delivery, payload, embedded)
            del payload  # it is on disk soon, and must not stay in memory for as long as its chunks take
            figures = await delivery.cancellation.race(work)
            await delivery.confirm()
            delivery.cancellation.check()
            result = await self._commit(job, figures, embedded)
        if result is CommitResult.STALE:
            raise LeaseLostError("a newer delivery of this job has reached the database")
        return Result(figures, result)

    async def _prepare(self, delivery: Delivery, payload: bytes | None, embedded: _Spool) -> Figures:
        plan = self._settings.chunk_plan
        price = self._settings.embedding.price_per_million_tokens
        words, count = await self._extract(delivery.job, payload)
        del payload
        with closing(words):
            tokens = plan.document_tokens(count)
            figures = Figures(count, plan.count(count), tokens, cost_usd=tokens * price / 1e6)
            await delivery.progressed("extract", 1, 1)
            await self._embed(delivery, plan, figures, words, embedded)
        return figures

    async def _extract(self, job: ClaimedJob, payload: bytes | None) -> tuple[_Spool, int]:
        stopped = threading.Event()

        def extract() -> tuple[_Spool, int]:
            # The thread owns the spool until it is done: nobody closes it under its hands.
            words = _Spool(self._files.folder)
            try:
                with self._files.hold(_verified(job, payload)) as path:
                    return words, write_words(path, job.media_type, words.file, stopped=stopped.is_set)
            except BaseException:
                words.close()
                raise

        try:
            async with asyncio.timeout(EXTRACT_SECONDS):
                return await self._in_thread(extract)
        except TimeoutError:
            raise JobFailedError(
                ErrorCode.DOCUMENT_TOO_LARGE, f"reading took longer than {EXTRACT_SECONDS:g} s"
            ) from None
        finally:
            stopped.set()

    async def _embed(
        self, delivery: Delivery, plan: ChunkPlan, figures: Figures, words: _Spool, embedded: _Spool
    ) -> None:
        """Embed batch by batch. A batch is cut only when the gate lets it in, so waiting batches hold nothing."""
        size, token_limit = self._settings.embedding.batch_size, self._settings.embedding.token_limit
        source = cut_batches(plan.cut(read_words(words.file)), size=size, token_limit=token_limit)
        largest = min(figures.tokens, plan.tokens(plan.words) * size, token_limit or figures.tokens)
        dimensions: set[int] = set()
        done = 0
        total = batches(figures.chunks, size=size)

        async def one(batch: _Batch) -> None:
            nonlocal done
            rows = await self._embed_batch(batch)
            dimensions.update(row.dimensions for row in rows)
            if len(dimensions) > 1:
                raise JobFailedError(
                    ErrorCode.EMBEDDING_BAD_RESPONSE, f"vectors of several lengths: {sorted(dimensions)}"
                )
            embedded.append(rows)
            done += 1
            await delivery.progressed("embed", done, max(done, total))

        await self._in_flight(source, one, largest=largest, delivery=delivery)

    async def _in_flight(
        self,
        source: Iterator[_Batch],
        work: Callable[[_Batch], Awaitable[None]],
        *,
        largest: int,
        delivery: Delivery,
    ) -> None:
        lock = asyncio.Lock()
        finished = False

        async def lane() -> None:
            nonlocal finished
            while not finished:
                delivery.cancellation.check()
                async with self._gate.hold(largest):
                    async with lock:
                        batch = None if finished else await self._in_thread(lambda: next(source, None))
                    if batch is None:
                        finished = True
                        return
                    await work(batch)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.embedding.concurrency):
                    group.create_task(lane())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _embed_batch(self, batch: _Batch) -> list[ChunkRow]:
        await self._limiter.acquire(batch.tokens)
        texts = [chunk.text for chunk in batch.chunks]
        vectors = await self._embedder.embed(texts, tokens=batch.tokens)
        return [
            ChunkRow(chunk.ordinal, chunk.text, chunk.tokens, vector.dimensions, vector.data)
            for chunk, vector in zip(batch.chunks, vectors, strict=True)
        ]

    async def _commit(self, job: ClaimedJob, figures: Figures, embedded: _Spool) -> CommitResult:
        document = DocumentRow(
            job_id=job.job_id,
            name=job.name,
            media_type=job.media_type,
            sha256=job.sha256,
            bytes=job.bytes,
            words=figures.words,
            chunk_count=figures.chunks,
            token_count=figures.tokens,
            user_id=job.user_id,
            fence=job.fence,
            worker=self._worker,
        )
        commit = self._in_thread(lambda: self._store.commit(document, embedded.rows()))
        # A commit under way cannot be called back, so a worker that stops waits for its end: the spool must
        # not be closed under it, and its result is the truth about the job.
        task = asyncio.ensure_future(commit)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            return task.result()

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def cut_batches(chunks: Iterator[Chunk], *, size: int, token_limit: int) -> Iterator[_Batch]:
    """Batches of `size` chunks (spec B1), fewer when a token limit would never let so many leave at once."""
    held: list[Chunk] = []
    tokens = 0
    for chunk in chunks:
        if len(held) == size or (held and token_limit and tokens + chunk.tokens > token_limit):
            yield _Batch(tuple(held), tokens)
            held, tokens = [], 0
        held.append(chunk)
        tokens += chunk.tokens
    if held:
        yield _Batch(tuple(held), tokens)


def _verified(job: ClaimedJob, payload: bytes | None) -> bytes:
    if payload is None:
        raise JobFailedError(ErrorCode.PAYLOAD_MISSING, "the document's bytes are no longer in the queue")
    if hashlib.sha256(payload).hexdigest() != job.sha256:
        raise JobFailedError(
            ErrorCode.PAYLOAD_MISSING, "the document's bytes are not those that were submitted"
        )
    return payload


class _Spool:
    """Bytes in memory, or in an unnamed private file when they are many; wiped when closed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(folder))  # noqa: SIM115  closed by close()

    def append(self, rows: list[ChunkRow]) -> None:
        """Add embedded chunks, in any order."""
        for row in rows:
            text = row.text.encode()
            self.file.write(
                _RECORD.pack(row.ordinal, row.tokens, row.dimensions, len(text), len(row.embedding))
            )
            self.file.write(text)
            self.file.write(row.embedding)

    def rows(self) -> Iterator[ChunkRow]:
        """The embedded chunks, in the order in which they came."""
        self.file.seek(0)
        while head := self.file.read(_RECORD.size):
            ordinal, tokens, dimensions, text_bytes, vector_bytes = _RECORD.unpack(head)
            text = self.file.read(text_bytes).decode()
            yield ChunkRow(ordinal, text, tokens, dimensions, self.file.read(vector_bytes))

    def close(self) -> None:
        """Overwrite and forget."""
        left = self.file.seek(0, os.SEEK_END) or self.file.tell()
        self.file.seek(0)
        while left > 0:
            left -= self.file.write(os.urandom(min(left, SPOOL_BYTES)))
        self.file.close()
