"""What a ragworker does with a job: shut former owners out, ingest the document, report what was done.

Puts the parts of the pipeline together: one `RagHandler` per worker, with its threads, database, embedding client and
private files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import redis.asyncio

from ragworker.delivery import Delivery, Handler
from ragworker.embedding import EmbeddingClient
from ragworker.ingest import Ingestor
from ragworker.job import ClaimedJob, Figures
from ragworker.limits import BatchGate, RedisLimiter
from ragworker.logs import get_logger
from ragworker.settings import Settings
from ragworker.stats import Stats
from ragworker.store import CommitResult, DocumentRow, Store
from ragworker.tempfiles import PrivateFiles, overwriting_proves

logger = get_logger(__name__)

Answer = TypeVar("Answer")


class RagHandler(Handler):
    """Ingests documents; `client` is the Redis of the queue, where the shared rate limit lives."""

    def __init__(self, settings: Settings, client: redis.asyncio.Redis, *, worker: str) -> None:
        self._settings = settings
        self._worker = worker
        self._stats = Stats()
        self._store = Store(settings.database_url, pool_size=settings.worker_concurrency + 1)
        self._threads = ThreadPoolExecutor(2 * settings.worker_concurrency + 4, "ragworker")
        self._gate = BatchGate(
            concurrency=settings.embedding.concurrency, token_budget=settings.memory_token_budget
        )
        self._files = PrivateFiles(settings.temp_dir, owner=worker)
        limiter = RedisLimiter(client, queue=settings.queue_name, settings=settings.embedding)
        self._embedder = EmbeddingClient(
            settings.embedding, stats=self._stats, threads=self._threads, limiter=limiter
        )
        self._ingestor = Ingestor(
            settings,
            store=self._store,
            embedder=self._embedder,
            gate=self._gate,
            files=self._files,
            threads=self._threads,
            stats=self._stats,
            worker=worker,
        )
        #: Fence -> the transaction that raised it, with what it found.
        self._fences: dict[int, asyncio.Future[dict[str, DocumentRow]]] = {}

    async def prepare(self) -> None:
        """Wipe what dead workers left, make missing tables."""
        await self.sweep()
        await self._in_thread(self._store.create_schema)
        fs, proves = await self._in_thread(lambda: overwriting_proves(self._files.folder))
        fields = {"worker": self._worker, "fs": fs, "overwriting_proves": proves}
        logger.info("tempfiles.folder", extra={"fields": fields})

    def claimed(self, jobs: Sequence[ClaimedJob]) -> None:
        """Shut the former owners of all these jobs out, in one SQL transaction; each job waits for it."""
        fences = [(job.job_id, job.fence) for job in jobs]
        raised = asyncio.ensure_future(self._in_thread(lambda: self._store.raise_fences(fences)))
        self._fences.update((job.fence, raised) for job in jobs)
        for job in jobs:
            if job.attempt == job.delivery == 1:
                self._stats.stage_took("queue_wait", max(0, time.time_ns() // 1_000_000 - job.queued_ms))

    async def found(self, job: ClaimedJob) -> Figures | None:
        """What a former owner committed before our fence shut it out. Embedding again would only cost."""
        row = (await asyncio.shield(self._fences.pop(job.fence))).get(job.job_id)
        fields = {
            "attempt": job.attempt,
            "delivery": job.delivery,
            "fence": job.fence,
            "worker": self._worker,
        }
        logger.info("job.claimed", extra={"fields": fields})
        if row is None:
            return None
        logger.info("job.found_committed", extra={"fields": {"fence": job.fence, "by_fence": row.fence}})
        cost = row.token_count * self._settings.embedding.price_per_million_tokens / 1e6
        return Figures(row.words, row.chunk_count, row.token_count, cost)

    async def run(self, delivery: Delivery) -> Figures:
        """Ingest the document."""
        result = await self._ingestor.run(delivery)
        figures, fence = result.figures, delivery.job.fence
        if result.commit is CommitResult.COMMITTED:
            fields = {"chunks": figures.chunks, "tokens": figures.tokens, "fence": fence}
            logger.info("job.committed", extra={"fields": fields})
        else:
            logger.info("job.found_committed", extra={"fields": {"fence": fence}})
        return figures

    def facts(self) -> dict[str, str]:
        """The largest share of the token budget since the last heartbeat."""
        return {"token_used_pct": f"{self._gate.take_peak_pct():.3f}"}

    def take_stats(self) -> dict[str, float]:
        """Figures of embedding requests and stages."""
        return self._stats.take()

    async def sweep(self) -> None:
        """Wipe the temporary files of workers that died."""
        swept = await self._in_thread(self._files.sweep)
        if swept:
            logger.warning("tempfiles.swept", extra={"fields": {"count": swept, "worker": self._worker}})

    async def close(self) -> None:
        """Close connections; threads that are stuck are left alone."""
        with suppress(Exception):
            await self._embedder.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
