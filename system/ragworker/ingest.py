"""What a job does: document -> words -> chunks -> vectors -> one SQL transaction.

Knows no queue and no lease: whether the job is still ours, whether it was cancelled, where its document comes from and
who listens to its progress come in through `Delivery`. Memory is bounded by the batches in flight, not by the document
(spec B5): it arrives in pieces and is written to a private file; its chunks and their vectors are spooled, in memory
while they are few and then in unnamed files of the private folder; SQL reads the spools piece by piece.

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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Final, TypeVar

from ragworker.chunking import Chunk, ChunkPlan, batches
from ragworker.delivery import Delivery
from ragworker.embedding import EmbeddingClient, Vector
from ragworker.errors import ErrorCode, JobFailedError, LeaseLostError
from ragworker.extract import read_words
from ragworker.job import ClaimedJob, Figures
from ragworker.limits import BatchGate
from ragworker.settings import Settings
from ragworker.stats import Stats
from ragworker.store import ChunkRow, CommitResult, DocumentRow, Store, VectorRow
from ragworker.tempfiles import PrivateFiles, wipe
from ragworker.tracing import span

#: A spool stays in memory up to this size; then it becomes an unnamed file, which no crash can leave behind.
SPOOL_BYTES: Final = 1 << 20

#: A document that takes longer to arrive and be read was made to: so long, and as much again for each so many bytes.
EXTRACT_SECONDS: Final = 120.0
EXTRACT_BYTES: Final = 1 << 26

#: Characters of a chunk (no model reads a twentieth of it) and of a batch: tokens say nothing of how long words are.
LONGEST_CHUNK_CHARS: Final = 1 << 20
BATCH_CHARS: Final = 1 << 22

#: What precedes a vector in its spool: ordinal, dimensions.
_HEAD: Final = struct.Struct("<II")

#: What a document's row says as the job does.
_OF_THE_JOB: Final = ("job_id", "name", "media_type", "sha256", "bytes", "user_id", "fence")

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished job did, and whether this very delivery did it."""

    figures: Figures
    commit: CommitResult


@dataclass(eq=False, slots=True)
class Ingestor:
    """The pipeline; one per process, shared by its jobs. `worker` is the id that is kept with an effect."""

    settings: Settings
    store: Store
    embedder: EmbeddingClient
    gate: BatchGate
    files: PrivateFiles
    threads: Executor
    stats: Stats
    worker: str

    async def run(self, delivery: Delivery) -> Result:
        """Do the job. JobFailedError, WorkerCancellationError, LeaseLostError, or what a client library raised."""
        delivery.cancellation.check()
        with ExitStack() as spools:
            # One race around everything that can wait: a cancelled job stops where it stands.
            work = self._prepare(delivery, spools)
            figures, chunks, vectors = await delivery.cancellation.race(work)
            await delivery.confirm()
            delivery.cancellation.check()
            with span("commit"), self.stats.timed("commit"):
                result = await self._commit(delivery.job, figures, chunks, vectors)
        if result is CommitResult.STALE:
            raise LeaseLostError("a newer delivery of this job has reached the database")
        return Result(figures, result)

    async def _prepare(self, delivery: Delivery, spools: ExitStack) -> tuple[Figures, _Chunks, _Vectors]:
        plan = self.settings.chunk_plan
        price = self.settings.embedding.price_per_million_tokens
        with span("extract"), self.stats.timed("extract"):
            chunks, words = await self._extract(delivery, plan)
        spools.callback(self._drop, chunks)
        vectors = _Vectors(self.files.folder)
        spools.callback(self._drop, vectors)
        tokens = plan.document_tokens(words)
        figures = Figures(words, plan.count(words), tokens, cost_usd=tokens * price / 1e6)
        await delivery.progressed("extract", 1, 1)
        with self.stats.timed("embed"):
            await self._embed(delivery, figures, chunks, vectors)
        return figures, chunks, vectors

    def _drop(self, spool: _Spool) -> None:
        # Wiping may take seconds and nobody waits for it; a process that ends meanwhile leaves no name behind.
        with suppress(RuntimeError):
            self.threads.submit(spool.close)

    async def _extract(self, delivery: Delivery, plan: ChunkPlan) -> tuple[_Chunks, int]:
        """The document's chunks, and how many words it has."""
        job, loop = delivery.job, asyncio.get_running_loop()
        pieces = delivery.document()
        arrived, stopped = threading.Event(), threading.Event()

        async def take() -> bytes:
            return await anext(pieces, b"")

        def more() -> bytes:
            return b"" if stopped.is_set() else asyncio.run_coroutine_threadsafe(take(), loop).result()

        def extract(first: bytes) -> tuple[_Chunks, int]:
            # The thread owns file and spool until it is done: nobody closes them under its hands.
            chunks = _Chunks(self.files.folder, plan)
            try:
                with self.files.hold() as (path, file):
                    _receive(job, chain([first], iter(more, b"")), file)
                    arrived.set()
                    words = chunks.fill(read_words(path, job.media_type, stopped=stopped.is_set))
                if stopped.is_set():
                    raise InterruptedError("nobody waits for these chunks any more")
                return chunks, words
            except BaseException:
                chunks.close()
                raise

        limit = EXTRACT_SECONDS * (1 + job.bytes // EXTRACT_BYTES)
        try:
            async with asyncio.timeout(limit):
                first = await take()
                return await loop.run_in_executor(self.threads, extract, first)
        except TimeoutError:
            code, what = ErrorCode.QUEUE_UNAVAILABLE, "arrive"
            if arrived.is_set():
                code, what = ErrorCode.DOCUMENT_TOO_LARGE, "be read"
            raise JobFailedError(code, f"the document did not {what} within {limit:g} s") from None
        finally:
            stopped.set()

    async def _embed(self, delivery: Delivery, figures: Figures, chunks: _Chunks, vectors: _Vectors) -> None:
        """Embed batch by batch. A batch is cut only when the gate lets it in, so waiting batches hold nothing."""
        plan, settings = self.settings.chunk_plan, self.settings.embedding
        size, token_limit = settings.batch_size, settings.token_limit
        source = cut_batches(chunks.read(), size=size, token_limit=token_limit)
        largest = min(figures.tokens, plan.tokens(plan.words) * size, token_limit or figures.tokens)
        total = batches(figures.chunks, size=size)
        left, done = figures.chunks, 0
        lock = asyncio.Lock()

        async def lane() -> None:
            nonlocal left, done
            while left:
                delivery.cancellation.check()
                async with self.gate.hold(largest):
                    async with lock:
                        batch = await self._in_thread(lambda: next(source, []))
                        left -= len(batch)
                    if not batch:
                        return
                    tokens = sum(chunk.tokens for chunk in batch)
                    found = await self.embedder.embed([chunk.text for chunk in batch], tokens=tokens)
                    async with lock:
                        await self._in_thread(partial(vectors.append, batch[0].ordinal, found))
                done += 1
                await delivery.progressed("embed", done, max(done, total))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(settings.concurrency, total)):
                    group.create_task(lane())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _commit(
        self, job: ClaimedJob, figures: Figures, chunks: _Chunks, vectors: _Vectors
    ) -> CommitResult:
        document = DocumentRow(
            **{name: getattr(job, name) for name in _OF_THE_JOB},
            words=figures.words,
            chunk_count=figures.chunks,
            token_count=figures.tokens,
            worker=self.worker,
        )
        # What it says is the truth about the job, also when the worker stops meanwhile.
        return await self._in_thread(lambda: self.store.commit(document, chunks, vectors), shielded=True)

    async def _in_thread(self, work: Callable[[], Answer], *, shielded: bool = False) -> Answer:
        """Do `work` in a thread, which cannot be called back: whoever is cancelled meanwhile waits for its end.

        Nobody may close the spools before. The cancellation is raised then, or ignored when `shielded`.
        """
        future = asyncio.get_running_loop().run_in_executor(self.threads, work)
        cancelled = False
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                cancelled = True
        if cancelled and not shielded:
            raise asyncio.CancelledError
        return future.result()


def cut_batches(chunks: Iterable[Chunk], *, size: int, token_limit: int) -> Iterator[list[Chunk]]:
    """Batches of `size` chunks (spec B1); fewer of chunks that are huge, or when a token limit would stop them."""
    held: list[Chunk] = []
    tokens = length = 0
    for chunk in chunks:
        tokens, length = tokens + chunk.tokens, length + len(chunk.text)
        if len(held) == size or (held and (length > BATCH_CHARS or 0 < token_limit < tokens)):
            yield held
            held, tokens, length = [], chunk.tokens, len(chunk.text)
        held.append(chunk)
    if held:
        yield held


def _receive(job: ClaimedJob, pieces: Iterable[bytes], file: IO[bytes]) -> None:
    """Write the document to `file`. PAYLOAD_MISSING when what comes is not what was submitted."""
    digest, left = hashlib.sha256(), job.bytes
    for piece in pieces:
        digest.update(piece)
        file.write(piece)
        left -= len(piece)
        if left <= 0:
            break
    file.flush()
    if left or digest.hexdigest() != job.sha256:
        what = "no longer in the queue" if left == job.bytes else "not those that were submitted"
        raise JobFailedError(ErrorCode.PAYLOAD_MISSING, f"the document's bytes are {what}")


class _Spool:
    """Bytes in memory, or in an unnamed private file when they are many; wiped when closed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(folder))  # noqa: SIM115  closed by close()

    def close(self) -> None:
        """Overwrite and forget. What never left the memory is only forgotten."""
        with self._file as file:
            file.seek(0, os.SEEK_END)
            if file.tell() > SPOOL_BYTES:
                wipe(file)


class _Chunks(_Spool):
    """The chunks of a document: one a line, because no word holds a line's end."""

    def __init__(self, folder: Path, plan: ChunkPlan) -> None:
        super().__init__(folder)
        self._plan = plan

    def fill(self, lists: Iterable[list[str]]) -> int:
        """Cut the words that come in lists; how many there are. DOCUMENT_TOO_LARGE when a chunk is."""
        count = 0

        def counted() -> Iterator[list[str]]:
            nonlocal count
            for words in lists:
                count += len(words)
                yield words

        for chunk in self._plan.cut(chain.from_iterable(counted())):
            if len(chunk.text) > LONGEST_CHUNK_CHARS:
                raise JobFailedError(
                    ErrorCode.DOCUMENT_TOO_LARGE,
                    f"expected chunks of at most {LONGEST_CHUNK_CHARS} characters, got: {len(chunk.text)}",
                )
            # Lone surrogates (some PDFs) would be refused by one database or the other.
            self._file.write(chunk.text.encode("utf-8", "replace") + b"\n")
        return count

    def read(self) -> Iterator[Chunk]:
        """The chunks from the start."""
        self._file.seek(0)
        for ordinal, line in enumerate(self._file):
            yield Chunk(ordinal, line[:-1].decode(), self._plan.tokens(line.count(b" ") + 1))

    def __iter__(self) -> Iterator[ChunkRow]:
        return (ChunkRow(chunk.ordinal, chunk.tokens, chunk.text) for chunk in self.read())


class _Vectors(_Spool):
    """The vectors of a document, in the order in which they came."""

    _dimensions = 0

    def append(self, ordinal: int, vectors: Iterable[Vector]) -> None:
        """Add those of the chunks from `ordinal` on. EMBEDDING_BAD_RESPONSE when not all are of one length."""
        for place, vector in enumerate(vectors, start=ordinal):
            self._dimensions = self._dimensions or vector.dimensions
            if vector.dimensions != self._dimensions:
                raise JobFailedError(
                    ErrorCode.EMBEDDING_BAD_RESPONSE,
                    f"expected vectors of one length, got: {self._dimensions} and {vector.dimensions}",
                )
            self._file.write(_HEAD.pack(place, vector.dimensions) + vector.data)

    def __iter__(self) -> Iterator[VectorRow]:
        self._file.seek(0)
        while head := self._file.read(_HEAD.size):
            ordinal, dimensions = _HEAD.unpack(head)
            yield VectorRow(ordinal, dimensions, self._file.read(4 * dimensions))
