"""Where the causes of `test_errors.py` happen: a folder, an embedding API, a Redis to spoil, and the real pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import redis.asyncio
from core_parts import EmbeddingServer, RedisServer

from ragworker.cancellation import Cancellation
from ragworker.connection import connect
from ragworker.embedding import EmbeddingClient
from ragworker.ingest import Ingestor
from ragworker.job import ClaimedJob, NewJob
from ragworker.limits import BatchGate, RedisLimiter
from ragworker.queue import Queue
from ragworker.rows import about
from ragworker.settings import EmbeddingSettings, QueueSettings, Settings
from ragworker.stats import Stats
from ragworker.store import Store
from ragworker.tempfiles import PrivateFiles

#: No message may quote it.
DOCUMENT = b"zebra two three"


@dataclass
class Place:
    """Where things go wrong: a folder, an embedding API, and a Redis that the cause may spoil."""

    folder: Path
    api: EmbeddingServer
    redis_server: RedisServer

    @property
    def redis(self) -> redis.asyncio.Redis:
        return connect(self.redis_server.url)

    @contextmanager
    def redis_cli(self) -> Iterator[redis.Redis]:
        with closing(redis.Redis(port=self.redis_server.port)) as client:
            yield client

    def queue(self, *, max_deliveries: int = 20) -> Queue:
        settings = QueueSettings(lease_seconds=0.3, max_deliveries=max_deliveries)
        return Queue(self.redis, name="errors", settings=settings)

    async def ingest(
        self,
        document: bytes,
        *,
        media_type: str = "text/plain",
        arrives: bytes | None = None,
        folder: Path | None = None,
        database: str = "",
    ) -> None:
        """The real pipeline on one document, of which `arrives` is what comes out of the queue."""
        settings = Settings(embedding=EmbeddingSettings(url=self.api.url, timeout_seconds=0.5))
        store = Store(database or f"sqlite:///{self.folder / 'rag.db'}")
        store.create_schema()
        threads, stats = ThreadPoolExecutor(4), Stats()
        limiter = RedisLimiter(self.redis, queue="errors", settings=settings.embedding)
        embedder = EmbeddingClient(settings.embedding, stats=stats, threads=threads, limiter=limiter)
        ingestor = Ingestor(
            settings,
            store=store,
            embedder=embedder,
            gate=BatchGate(concurrency=3, token_budget=100_000),
            files=PrivateFiles(folder or self.folder / "tmp", owner="w1"),
            threads=threads,
            stats=stats,
            worker="w1",
        )
        try:
            await ingestor.run(Delivered(document, media_type, document if arrives is None else arrives))
        finally:
            await embedder.close()
            threads.shutdown()
            store.close()

    async def answered(self, status: int, *, body: object = None, **headers: str) -> None:
        """A document whose embedding request is answered by this."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.api.answer = lambda _: (status, named, {} if body is None else body)
        await self.ingest(DOCUMENT)


class Delivered:
    """A delivery that nobody cancels and nobody takes over."""

    def __init__(self, document: bytes, media_type: str, arrives: bytes) -> None:
        digest = hashlib.sha256(document).hexdigest()
        self.job = ClaimedJob(
            "job-1", 1, 1, 1, about(NewJob("n", "n", media_type, document), sha256=digest).encode()
        )
        self.cancellation = Cancellation()
        self._arrives = arrives

    async def progressed(self, stage: str, done: int, total: int) -> None:
        pass

    async def confirm(self) -> None:
        pass

    async def document(self) -> AsyncIterator[bytes]:
        if self._arrives:
            yield self._arrives
