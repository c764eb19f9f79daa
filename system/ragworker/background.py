"""Run jobs inside the API process: when USE_DURABLE_WORKER is off, or Redis is away (spec A2).

The very same queue, worker and handler as the durable ones, on a Redis that lives in this process' memory (fakeredis,
which runs the same Lua scripts). So both modes have one behaviour: states, retries, dead letters, events, figures.
What it does not promise: jobs die with the process, and the rate limit is this process' own, because the shared one
lives in the real Redis.

Effects happen once, even beside a durable worker. Job ids are made from the work's name, so a submit that reached
Redis, lost its answer and fell back to here meets its twin in SQL: whoever commits second is told so. Fences here come
from a counter that reaches the clock, as everywhere, so the two sides' fences stay comparable.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from fakeredis import FakeAsyncRedis

from ragworker.handler import RagHandler
from ragworker.job import NewJob, Submitted
from ragworker.logs import get_logger
from ragworker.queue import Queue
from ragworker.settings import Settings
from ragworker.worker import Worker, new_worker_id

logger = get_logger(__name__)

#: Jobs waiting, and bytes of unfinished documents: memory is all they have.
MOST_WAITING: Final = 1000
MOST_BYTES: Final = 256 * 1024 * 1024

#: Finished jobs that can still be asked about.
MOST_FINISHED: Final = 1000

#: Running jobs may end for this long when the process stops.
CLOSE_SECONDS: Final = 5.0


class BackgroundFullError(Exception):
    """Too many jobs wait already; the caller should answer 503."""


class Background:
    """The in-process queue and its worker, which starts with the first job; `close` at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = FakeAsyncRedis()
        kept = replace(settings.queue, history_count=MOST_FINISHED, wait_replicas=0)
        self.queue = Queue(self._client, name=settings.queue_name, settings=kept, mode="background")
        self._worker: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        #: Bytes of documents by job, of those that may be unfinished.
        self._held: dict[str, int] = {}

    async def submit(self, new: NewJob) -> Submitted:
        """Accept a job or find the one that does the same work. BackgroundFullError when there is no room."""
        waiting = (await self.queue.gauges()).queue_length
        if waiting >= MOST_WAITING or await self._bytes_held() + len(new.payload) > MOST_BYTES:
            raise BackgroundFullError(f"{waiting} jobs are waiting already")
        if self._task is None:
            self._start()
        submitted = await self.queue.submit(new)
        if not submitted.duplicate:
            self._held[submitted.job_id] = len(new.payload)
        return submitted

    async def close(self) -> None:
        """Finish running jobs within a bound, then stop; waiting ones are lost, as promised above."""
        if self._worker is not None and self._task is not None:
            await self.queue.pause()
            self._worker.stop()
            await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
            self._task.cancel()
        lost = (await self.queue.gauges()).unfinished
        if lost:
            logger.warning("background.jobs_lost", extra={"fields": {"count": lost}})
        await self._client.aclose()

    def _start(self) -> None:
        worker_id = new_worker_id()
        handler = RagHandler(self._settings, self._client, worker=worker_id)
        self._worker = Worker(self.queue, handler, settings=self._settings, worker_id=worker_id)
        self._task = asyncio.create_task(self._worker.run())

    async def _bytes_held(self) -> int:
        """Bytes of unfinished documents; looks at jobs only when the bound seems near."""
        if sum(self._held.values()) > MOST_BYTES // 2:
            for job_id in list(self._held):
                view = await self.queue.get(job_id)
                if view is None or view.state.terminal:
                    del self._held[job_id]
        return sum(self._held.values())
