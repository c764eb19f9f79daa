"""One delivery of one job in a worker: run it, find out how it ended, say so in the log.

What is done with a job is a `Handler`'s; the loops that claim, settle and keep the lease are in `worker.py`. Knows
nothing of documents, SQL or embeddings.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import redis

from ragworker.cancellation import Cancellation
from ragworker.errors import ErrorCode, JobFailedError, LeaseLostError, WorkerCancellationError, classify
from ragworker.job import ClaimedJob, Figures, JobError, Outcome, OutcomeKind
from ragworker.logs import LateIds, get_logger
from ragworker.queue import Queue
from ragworker.retry import decide
from ragworker.settings import Settings

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


@dataclass(eq=False, slots=True)
class Delivery:
    """One job in one slot, and what is known about its end."""

    job: ClaimedJob
    queue: Queue
    worker_id: str
    cancellation: Cancellation = field(init=False)
    task: asyncio.Task[None] | None = None
    #: Set when this worker itself stops the task: `lost` reports nothing, `released` hands the job back.
    stopped: str = ""
    #: Heartbeats in a row that did not list this delivery.
    missed: int = 0

    def __post_init__(self) -> None:
        self.cancellation = Cancellation(self.job.cancel)

    async def document(self) -> AsyncIterator[bytes]:
        """The document in pieces, whole or up to where its bytes are gone; waits while Redis is away."""
        done = 0
        pieces = self.queue.document(self.job)

        async def take() -> bytes:
            nonlocal pieces
            try:
                return await anext(pieces, b"")
            except AWAY:
                # A generator that raised is over; another one goes on where it stood.
                pieces = self.queue.document(self.job, start=done)
                raise

        while piece := await patiently(take):
            yield piece
            done += len(piece)

    async def progressed(self, stage: str, done: int, total: int) -> None:
        """Tell listeners, and look for a cancel request: between any two batches (spec D1). Never fails."""
        with suppress(*AWAY):
            await self.queue.progress(self.job.job_id, stage, done, total)
            await look_for_cancellations(self.queue, [self])

    async def confirm(self) -> None:
        """Return when Redis says that the job is still ours. LeaseLostError when it says no."""
        if not await patiently(lambda: self.queue.holds(self.worker_id, self.job)):
            raise LeaseLostError("the lease ran out and the job was taken over")
        # The same look for a request that came during the last batch: what is cancelled is not committed.
        await patiently(lambda: look_for_cancellations(self.queue, [self]))

    def begin(self) -> None:
        """CancelledError when it was abandoned before it had a task."""
        if self.stopped:
            raise asyncio.CancelledError

    def abandon(self, why: str) -> None:
        """Stop the task: `lost` (nothing to report any more) or `released` (hand the job back)."""
        self.stopped = self.stopped or why
        if self.task is not None:
            self.task.cancel()


class Handler:
    """What a worker does with jobs. Every method but `run` may stay as it is."""

    async def prepare(self) -> None:
        """Called before the first claim, again and again until it succeeds."""

    def claimed(self, jobs: Sequence[ClaimedJob]) -> None:
        """Jobs were claimed together; each comes to `found` and `run` next."""

    async def found(self, job: ClaimedJob) -> Figures | None:
        """Shut former owners of the job out; its figures when one of them has done it."""
        return None

    async def run(self, delivery: Delivery) -> Figures:
        """Do the job. What it raises decides between retry and dead letter (`errors.classify`)."""
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """What to tell with each heartbeat."""
        return {}

    def take_stats(self) -> dict[str, float]:
        """Counters since the last call, to be added to the queue's."""
        return {}

    async def sweep(self) -> None:
        """Clean up after workers that died on this machine; called every few seconds."""

    async def close(self) -> None:
        """The worker ends."""


async def outcome_of(delivery: Delivery, handler: Handler, settings: Settings) -> Outcome | None:
    """Run a job; what to report, or None when it is no longer ours to report on."""
    job = delivery.job
    try:
        delivery.begin()
        figures = await handler.found(job)
        if figures is None:
            delivery.cancellation.check()
            figures = await handler.run(delivery)
        return Outcome(job.job_id, job.fence, OutcomeKind.DONE, figures=figures)
    except WorkerCancellationError:
        return Outcome(job.job_id, job.fence, OutcomeKind.CANCELLED)
    except LeaseLostError:
        logger.warning("lease.lost", extra={"fields": {"worker": delivery.worker_id, "fence": job.fence}})
        return None
    except asyncio.CancelledError:
        released = delivery.stopped == "released"
        return Outcome(job.job_id, job.fence, OutcomeKind.RELEASED) if released else None
    except Exception as error:
        log_failure(job, error)
        outcome = failure_outcome(job, error, settings)
        if outcome.kind is OutcomeKind.RETRY and await _cancelled(delivery):
            return Outcome(job.job_id, job.fence, OutcomeKind.CANCELLED)
        return outcome


def failure_outcome(job: ClaimedJob, error: BaseException, settings: Settings) -> Outcome:
    """Retry or dead letter: what follows from an attempt that ended with `error` (spec C1 to C4)."""
    failure = classify(error)
    decision = decide(
        failure.code,
        attempt=job.attempt,
        max_retries=settings.max_retries,
        base_seconds=settings.retry_base_seconds,
        retry_after_seconds=failure.retry_after_seconds,
    )
    kind = OutcomeKind.RETRY if decision.retry else OutcomeKind.DEAD
    reason = JobError(failure.code, failure.message)
    return Outcome(job.job_id, job.fence, kind, delay_ms=decision.delay_ms, error=reason)


async def _cancelled(delivery: Delivery) -> bool:
    """Whether a request came during the last attempt. A retry may be two minutes away; the request is not."""
    with suppress(*AWAY):
        await look_for_cancellations(delivery.queue, [delivery])
    return delivery.cancellation.reason is not None


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


def log_ends(ended: Sequence[tuple[Delivery, Outcome]], accepted: Sequence[bool]) -> None:
    """Say what became of deliveries, once Redis has it."""
    quiet = not logger.isEnabledFor(logging.INFO)
    for (delivery, outcome), taken in zip(ended, accepted, strict=True):
        if not (quiet and taken and _END_EVENTS[outcome.kind][1] <= logging.INFO):
            _log_end(delivery.job, outcome, accepted=taken)


def _log_end(job: ClaimedJob, outcome: Outcome, *, accepted: bool) -> None:
    duration_ms = max(0, time.time_ns() // 1_000_000 - job.created_ms)
    fields: dict[str, object] = {
        "outcome": outcome.kind.value,
        "attempt": job.attempt,
        "duration_ms": duration_ms,
    }
    if outcome.error is not None:
        fields |= {"code": outcome.error.code, "reason": outcome.error.message}
    with LateIds(job.ids):
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
    OutcomeKind.RETRY: ("job.retry_scheduled", logging.INFO),
    OutcomeKind.DEAD: ("job.dead_lettered", logging.ERROR),
    OutcomeKind.CANCELLED: ("job.cancelled", logging.INFO),
    OutcomeKind.RELEASED: ("job.released", logging.INFO),
}
