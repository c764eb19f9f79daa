"""One delivery of one job in a worker: run it, find out how it ended, say so in the log.

The loops that claim, settle and keep the lease are in `worker.py`; what the job does is in `ingest.py`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import redis

from ragworker.errors import ErrorCode, JobFailedError, LeaseLostError, WorkerCancellationError, classify
from ragworker.ingest import Cancellation, Ingestor, failure_outcome
from ragworker.job import ClaimedJob, Figures, Outcome, OutcomeKind
from ragworker.logs import bind_context, get_logger
from ragworker.queue import Queue
from ragworker.settings import Settings
from ragworker.store import CommitResult, DocumentRow

logger = get_logger(__name__)

#: A running job waits this long for Redis to come back before it counts as failed.
PATIENCE_SECONDS: Final = 120.0

#: Pauses while Redis is away: short at first, because most outages are restarts.
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0

#: Innermost frames of an unforeseen failure that are logged.
FRAMES_LOGGED: Final = 8

#: What Redis' absence looks like.
AWAY: Final = (redis.RedisError, OSError)

Answer = TypeVar("Answer")

#: The transaction that raises the fences of a batch of claims, and finds which of them are committed already.
Fences = asyncio.Future[dict[str, DocumentRow]]


@dataclass(eq=False)
class Delivery:
    """One job in one slot, and what is known about its end."""

    job: ClaimedJob
    queue: Queue
    worker_id: str
    cancellation: Cancellation = field(default_factory=Cancellation)
    task: asyncio.Task[None] | None = None
    #: Set when this worker itself stops the task: `lost` reports nothing, `released` hands the job back.
    stopped: str = ""
    #: Heartbeats in a row that did not list this delivery.
    missed: int = 0

    async def progressed(self, stage: str, done: int, total: int) -> None:
        """Tell listeners, and look for a cancel request: between any two batches (spec D1)."""
        with suppress(*AWAY):
            await self.queue.progress(self.job.job_id, {"stage": stage, "done": done, "total": total})
            await look_for_cancellations(self.queue, [self])

    async def confirm(self) -> None:
        """Return when Redis says that the job is still ours. LeaseLostError when it says no."""
        if not await patiently(lambda: self.queue.holds(self.worker_id, self.job)):
            raise LeaseLostError("the lease ran out and the job was taken over")
        # The same look for a request that came during the last batch: what is cancelled is not committed.
        await patiently(lambda: look_for_cancellations(self.queue, [self]))

    @property
    def log_ids(self) -> AbstractContextManager[None]:
        """The ids that the API gave the job, for every line logged inside the block (spec G2)."""
        return job_ids(self.job)

    def abandon(self, why: str) -> None:
        """Stop the task: `lost` (nothing to report any more) or `released` (hand the job back)."""
        self.stopped = self.stopped or why
        if self.task is not None:
            self.task.cancel()


class JobRunner:
    """Runs deliveries; one per worker."""

    def __init__(self, settings: Settings, *, queue: Queue, ingestor: Ingestor) -> None:
        self._settings = settings
        self._queue = queue
        self._ingestor = ingestor

    async def outcome(self, delivery: Delivery, fences: Fences) -> Outcome | None:
        """Run the job; what to report, or None when it is no longer ours to report on."""
        job = delivery.job
        try:
            return await self._run(delivery, fences)
        except WorkerCancellationError:
            return Outcome(job.job_id, job.fence, OutcomeKind.CANCELLED)
        except LeaseLostError:
            return None
        except asyncio.CancelledError:
            released = delivery.stopped == "released"
            return Outcome(job.job_id, job.fence, OutcomeKind.RELEASED) if released else None
        except Exception as error:
            log_failure(job, error)
            outcome = failure_outcome(job, error, self._settings)
            if outcome.kind is OutcomeKind.RETRY and await self._cancelled(delivery):
                return Outcome(job.job_id, job.fence, OutcomeKind.CANCELLED)
            return outcome

    async def _cancelled(self, delivery: Delivery) -> bool:
        """Whether a request came during the last attempt. A retry may be two minutes away; the request is not."""
        with suppress(*AWAY):
            await look_for_cancellations(self._queue, [delivery])
        return delivery.cancellation.reason is not None

    async def _run(self, delivery: Delivery, fences: Fences) -> Outcome:
        job = delivery.job
        committed = await asyncio.shield(fences)
        if job.job_id in committed:
            # A former owner did it before our fence shut it out. Embedding again would only cost, and a cancel
            # request came too late.
            return self._found(job, committed[job.job_id])
        # A list, so that nobody here keeps the document in memory while its chunks are embedded.
        *document, reason = await patiently(lambda: self._queue.fetch(job))
        if reason is not None:
            delivery.cancellation.request(reason)
        result = await self._ingestor.run(delivery, document.pop())
        if result.commit is CommitResult.COMMITTED:
            fields = {"chunks": result.figures.chunks, "tokens": result.figures.tokens, "fence": job.fence}
            logger.info("job.committed", extra={"fields": fields})
        else:
            logger.info("job.found_committed", extra={"fields": {"fence": job.fence}})
        return Outcome(job.job_id, job.fence, OutcomeKind.DONE, figures=result.figures)

    def _found(self, job: ClaimedJob, row: DocumentRow) -> Outcome:
        logger.info("job.found_committed", extra={"fields": {"fence": job.fence, "by_fence": row.fence}})
        cost = row.token_count * self._settings.embedding.price_per_million_tokens / 1e6
        figures = Figures(row.words, row.chunk_count, row.token_count, cost)
        return Outcome(job.job_id, job.fence, OutcomeKind.DONE, figures=figures)


async def look_for_cancellations(queue: Queue, deliveries: Sequence[Delivery]) -> None:
    """Pass on the cancel requests of these deliveries."""
    if not deliveries:
        return
    reasons = await queue.cancelled_among([delivery.job for delivery in deliveries])
    for delivery in deliveries:
        if delivery.job.fence in reasons:
            delivery.cancellation.request(reasons[delivery.job.fence])


async def patiently(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Call until Redis answers. QUEUE_UNAVAILABLE when it does not for two minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await call()
        except AWAY as error:
            if time.monotonic() > deadline:
                raise JobFailedError(
                    ErrorCode.QUEUE_UNAVAILABLE, f"Redis did not answer for {PATIENCE_SECONDS:g} s"
                ) from error
            pause = await pause_about(pause)


async def pause_about(seconds: float) -> float:
    """Sleep about `seconds`, jittered so that workers do not come back in step; the next pause."""
    await asyncio.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
    return min(2 * seconds, LONGEST_PAUSE_SECONDS)


async def end_tasks(tasks: set[asyncio.Task[None]], *, seconds: float) -> None:
    """Cancel tasks until they have ended, at most for `seconds`.

    Once is not enough: one that meets an answer on its way in can get lost in the Redis client (39 of 300 tries
    with redis-py 8.1.0).
    """
    deadline = time.monotonic() + seconds
    while tasks and time.monotonic() < deadline:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=0.1)


def log_failure(job: ClaimedJob, error: Exception) -> None:
    """Say that an attempt failed. Never the text of a foreign exception: it may quote the document."""
    failure = classify(error)
    fields: dict[str, object] = {"code": failure.code, "reason": failure.message, "attempt": job.attempt}
    if failure.code is ErrorCode.TEMPORARY_FAILURE:
        # What nobody foresaw: the way to it is needed, the exception's own words are not safe.
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES_LOGGED:]
        fields["where"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        fields["error"] = type(error).__qualname__
    logger.warning("job.failed", extra={"fields": fields})


def job_ids(job: ClaimedJob) -> AbstractContextManager[None]:
    """Bind the ids of a job to what is logged in the block."""
    return bind_context(
        request_id=job.request_id,
        trace_id=job.trace_id,
        correlation_id=job.correlation_id,
        user_id=job.user_id,
        job_id=job.job_id,
    )


def log_end(job: ClaimedJob, outcome: Outcome, *, accepted: bool) -> None:
    """Say what became of a delivery, once Redis has it."""
    duration_ms = max(0, time.time_ns() // 1_000_000 - job.created_ms)
    fields: dict[str, object] = {
        "outcome": outcome.kind.value,
        "attempt": job.attempt,
        "duration_ms": duration_ms,
    }
    if outcome.error is not None:
        fields |= {"code": outcome.error.code, "reason": outcome.error.message}
    with job_ids(job):
        if not accepted:
            logger.warning("job.outcome_refused", extra={"fields": fields | {"fence": outcome.fence}})
        elif outcome.kind is OutcomeKind.RETRY:
            logger.info("job.retry_scheduled", extra={"fields": fields | {"delay_ms": outcome.delay_ms}})
        else:
            event, level = _END_EVENTS[outcome.kind]
            logger.log(level, event, extra={"fields": fields})
            if outcome.kind is not OutcomeKind.RELEASED:
                logger.info("job.finished", extra={"fields": fields})


_END_EVENTS: Final = {
    OutcomeKind.DONE: ("job.settled", logging.DEBUG),
    OutcomeKind.DEAD: ("job.dead_lettered", logging.ERROR),
    OutcomeKind.CANCELLED: ("job.cancelled", logging.INFO),
    OutcomeKind.RELEASED: ("job.released", logging.INFO),
}
