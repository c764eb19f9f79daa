"""The worker process: claim jobs, run them, settle them, keep the lease, take over from the dead, stop in order.

Knows nothing of what a job is: that is its `Handler`'s. Five loops share the worker's state, all on one event loop;
whatever is heavy belongs into threads of the handler, so that the heartbeat is never late:

    claim        takes as many jobs as there are free slots; blocks in Redis while there is nothing (starts in ~1 ms)
    settle       reports everything that ended since its last call, in one script; a slot is free when it is reported
    heartbeat    every lease/3: renews the lease, flushes figures, compares what Redis says it holds
    take over    every 0.5 s: requeues the jobs of workers whose lease ran out; now and then sweeps their files
    cancel       every second: looks for cancel requests of all running jobs

What survives what:

    this process dies        its lease runs out; any worker requeues its jobs; fences keep a late commit out
    it is paused (SIGSTOP)   the same; when it wakes, the heartbeat shows which jobs it lost, and it drops them
    a claim's answer is lost the heartbeat lists a job that nobody here runs; it is given back
    a settle's answer lost   it is sent again and recognised
    Redis goes away          every loop backs off and comes back; running jobs go on to the point where they need
                             Redis (the rate limit, the confirmation before the commit) and wait there
    SQL goes away            jobs fail with STORE_UNAVAILABLE and are retried
    SIGTERM                  no new claims; jobs may finish for 10 s, the rest is handed back unblamed

A job is settled after its effect is committed, never before. Between the two a crash repeats the delivery, which
finds the effect in SQL. So a crash may run again at most what the worker held: as many jobs as it has slots.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from ragworker.cancellation import end_tasks
from ragworker.delivery import (
    AWAY,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Delivery,
    Handler,
    log_ends,
    look_for_cancellations,
    outcome_of,
    pause_about,
)
from ragworker.errors import ErrorCode, classify
from ragworker.job import ClaimedJob, Outcome, OutcomeKind
from ragworker.logs import LateIds, bind_context, get_logger
from ragworker.queue import Queue
from ragworker.settings import Settings
from ragworker.tracing import job_span

logger = get_logger(__name__)

#: A dead worker's jobs wait at most this long beyond its lease.
TAKE_OVER_SECONDS: Final = 0.5
TAKE_OVER_LIMIT: Final = 200

#: Spec D1 allows 5 s.
CANCEL_SECONDS: Final = 1.0

SWEEP_SECONDS: Final = 3.0

#: How long an idle worker blocks in Redis before it looks again by itself.
IDLE_SECONDS: Final = 1.0

#: Jobs may finish for this long after SIGTERM; Kubernetes' default grace period is 30 s.
STOP_SECONDS: Final = 10.0

#: Everything after that, the handing back included.
GOODBYE_SECONDS: Final = 3.0

#: Jobs in one claim and outcomes in one settle, at most: enough to make a round trip cheap.
BATCH_LIMIT: Final = 100

#: A batch takes a third of the slots: while this process works on one, Redis hands out the next and settles the last.
BATCHES: Final = 3


def new_worker_id() -> str:
    """A name that no other worker has."""
    return f"w{secrets.token_hex(6)}"


class Worker:
    """One worker. `run` returns when `stop` was called and everything is settled or handed back."""

    def __init__(
        self, queue: Queue, handler: Handler, *, settings: Settings, worker_id: str | None = None
    ) -> None:
        self.id = worker_id or new_worker_id()
        self.queue = queue
        self._handler = handler
        self._settings = settings
        self._batch = min(BATCH_LIMIT, -(-settings.worker_concurrency // BATCHES))
        self._active: dict[int, Delivery] = {}
        #: Those of the active that no task has taken up yet.
        self._waiting: deque[Delivery] = deque()
        self._ended: list[tuple[Delivery, Outcome]] = []
        self._strangers: dict[int, str] = {}
        self._claiming = False
        self._resting = False
        self._ready = False
        self._stopping = asyncio.Event()
        self._slot_freed = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._flush = 0
        self._unflushed: dict[str, float] = {}
        self._away: set[str] = set()

    # Life and death

    def stop(self) -> None:
        """Begin to stop: what SIGTERM does."""
        self._stopping.set()
        self._slot_freed.set()

    async def run(self) -> None:
        """Work until stopped. Does not raise for anything that Redis, SQL or the embedding API do."""
        try:
            if await self._until_stopped(self._prepare):
                await self._work()
        finally:
            await self._handler.close()

    async def _work(self) -> None:
        loops = {
            "heartbeat": (self._heartbeat, self._settings.queue.lease_seconds / 3),
            "take over": (self._take_over, TAKE_OVER_SECONDS),
            "sweep": (self._handler.sweep, SWEEP_SECONDS),
            "cancel": (self._look_at_all, CANCEL_SECONDS),
            "settle": (self._settle_when_ended, 0.0),
        }
        keepers = [
            asyncio.create_task(self._repeat(name, step, interval))
            for name, (step, interval) in loops.items()
        ]
        claiming = asyncio.create_task(self._repeat("claim", self._claim, 0))
        await self._stopping.wait()
        logger.info("worker.stopping", extra={"fields": {"worker": self.id, "active": len(self._active)}})
        if not self._claiming:
            claiming.cancel()
        # A claim that is under way is heard to its end: a job whose claim nobody noticed would wait for its lease.
        await asyncio.wait({claiming}, timeout=GOODBYE_SECONDS)
        await end_tasks({claiming}, seconds=GOODBYE_SECONDS)
        await self._rest()
        await self._finish_or_release()
        await end_tasks(keepers, seconds=GOODBYE_SECONDS)
        await self._say_goodbye()
        logger.info("worker.stopped", extra={"fields": {"worker": self.id}})

    async def _rest(self) -> None:
        """Be handed no more jobs, not even those that are given back, and give back what was handed unheard."""
        self._resting = True
        with suppress(TimeoutError, *AWAY):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self.queue.rest(self.id)
                await self._heartbeat()

    async def _finish_or_release(self) -> None:
        self._take_up(len(self._waiting))
        await asyncio.sleep(0)
        tasks = {delivery.task for delivery in self._active.values() if delivery.task}
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for delivery in list(self._active.values()):
            delivery.abandon("released")
        left = {delivery.task for delivery in self._active.values() if delivery.task}
        await end_tasks(left, seconds=GOODBYE_SECONDS)

    async def _say_goodbye(self) -> None:
        with suppress(TimeoutError, *AWAY):
            async with asyncio.timeout(GOODBYE_SECONDS):
                while self._ended:
                    await self._settle()
                await self._heartbeat()
                await self.queue.leave(self.id)

    # The loops' steps

    async def _claim(self) -> None:
        free = self._settings.worker_concurrency - len(self._active) - len(self._ended)
        if free <= 0:
            self._slot_freed.clear()
            await self._slot_freed.wait()
            return
        self._claiming = True
        try:
            jobs = await self.queue.claim(self.id, limit=min(free, self._batch))
            if jobs:
                self._start(jobs)
        finally:
            self._claiming = False
        if not jobs and not self._stopping.is_set():
            jobs = await self.queue.wait_for_work(self.id, IDLE_SECONDS)
            if jobs:
                self._start(jobs)

    def _start(self, jobs: list[ClaimedJob]) -> None:
        self._handler.claimed(jobs)
        for job in jobs:
            delivery = Delivery(job, self.queue, self.id)
            self._active[job.fence] = delivery
            self._waiting.append(delivery)
        self._take_up(1)

    def _take_up(self, tasks: int) -> None:
        """See that every delivery that waits is begun before anything else has its turn twice.

        A task costs more than a job that waits for nothing, so one task does such jobs one after the other. When it
        has to wait for something there are deliveries left at the loop's next turn: then two more tasks go on, then
        four, so that a batch of jobs that all wait is under way after a few turns.
        """
        for _ in range(min(tasks, len(self._waiting))):
            asyncio.create_task(self._deliver_waiting())  # noqa: RUF006  the loop holds it until it is a delivery's
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._take_up, 2 * tasks)

    async def _settle_when_ended(self) -> None:
        await self._has_ended.wait()
        await self._settle()
        if not self._ended:
            self._has_ended.clear()

    async def _settle(self) -> None:
        batch = self._ended[: self._batch]
        taken = await self.queue.settle(self.id, [outcome for _, outcome in batch])
        del self._ended[: len(batch)]
        self._slot_freed.set()
        log_ends(batch, taken)
        cancelled = [delivery.job for delivery, outcome in batch if outcome.kind is OutcomeKind.CANCELLED]
        if cancelled:
            await self.queue.close_requests(cancelled)

    async def _heartbeat(self) -> None:
        if not self._unflushed:
            self._unflushed = self._handler.take_stats()
            self._flush += 1
        facts = {
            "active": str(len(self._active)),
            "pid": str(os.getpid()),
            "host": socket.gethostname(),
            **self._handler.facts(),
        }
        held = await self.queue.renew(self.id, facts, stats=self._unflushed, flush=self._flush)
        self._unflushed = {}
        if not self._ready:
            self._ready = True
            known = {"worker": self.id, "pid": os.getpid(), "concurrency": self._settings.worker_concurrency}
            logger.info("worker.ready", extra={"fields": known | {"queue": self.queue.name}})
        await self._compare(held)

    async def _compare(self, held: dict[int, str]) -> None:
        """Drop what we run but no longer hold; give back what we hold but do not run.

        Each must show twice in a row: a claim or a settle that is under way while the heartbeat is answered looks
        the same for a moment; a worker that claims no more knows at once. A mistake would cost work, never
        correctness: fences see to that.
        """
        for fence, delivery in list(self._active.items()):
            delivery.missed = 0 if fence in held else delivery.missed + 1
            if delivery.missed > 1:
                with bind_context(job_id=delivery.job.job_id):
                    logger.warning("lease.lost", extra={"fields": {"worker": self.id, "fence": fence}})
                delivery.abandon("lost")
        known = self._active.keys() | {outcome.fence for _, outcome in self._ended}
        strangers = {fence: job_id for fence, job_id in held.items() if fence not in known}
        if not self._claiming:
            forgotten = [
                Outcome(job_id, fence, OutcomeKind.RELEASED)
                for fence, job_id in strangers.items()
                if fence in self._strangers or self._resting
            ]
            await self.queue.settle(self.id, forgotten)
        self._strangers = strangers

    async def _take_over(self) -> None:
        for taken in await self.queue.take_over(limit=TAKE_OVER_LIMIT):
            fields = {"from_worker": taken.worker, "worker": self.id}
            with bind_context(job_id=taken.job_id):
                logger.warning("lease.taken_over", extra={"fields": fields})
                if taken.dead:
                    fields["code"] = ErrorCode.WORKER_CRASHED
                    logger.error("job.dead_lettered", extra={"fields": fields})

    async def _look_at_all(self) -> None:
        await look_for_cancellations(self.queue, list(self._active.values()))

    # One job

    async def _deliver_waiting(self) -> None:
        task = asyncio.current_task()
        while self._waiting:
            delivery = self._waiting.popleft()
            delivery.task = task
            await self._deliver(delivery)
            if delivery.stopped:
                # The task was cancelled with it, perhaps once more in a moment: nothing else may be in it.
                return

    async def _deliver(self, delivery: Delivery) -> None:
        job = delivery.job
        try:
            with LateIds(job.ids), job_span(job) as running:
                outcome = await outcome_of(delivery, self._handler, self._settings)
                if running:
                    running.set({"rag.outcome": outcome.kind.value if outcome else "lost"})
                    if outcome is not None and outcome.error is not None:
                        running.fail(outcome.error.code)
            if outcome is not None:
                self._ended.append((delivery, outcome))
                self._has_ended.set()
        finally:
            del self._active[job.fence]
            self._slot_freed.set()

    # What the loops stand on

    async def _repeat(self, name: str, step: Callable[[], Awaitable[None]], interval_seconds: float) -> None:
        """Do `step` for ever. Nothing that it raises ends the loop: Redis away is waited out, the rest is logged."""
        pause = FIRST_PAUSE_SECONDS
        while not (name == "claim" and self._stopping.is_set()):
            try:
                await step()
            except AWAY as error:
                if name not in self._away:
                    fields = {"step": name, "error": type(error).__name__, "reason": str(error)[:200]}
                    logger.warning("redis.lost", extra={"fields": fields})
                self._away.add(name)
                pause = await pause_about(pause)
            except Exception:
                logger.exception("worker.step_failed", extra={"fields": {"step": name}})
                await pause_about(LONGEST_PAUSE_SECONDS)
            else:
                if name in self._away:
                    self._away.discard(name)
                    logger.info("redis.back", extra={"fields": {"step": name}})
                pause = FIRST_PAUSE_SECONDS
                await asyncio.sleep(interval_seconds)

    async def _prepare(self) -> None:
        pause, failed = FIRST_PAUSE_SECONDS, False
        while True:
            try:
                await self._handler.prepare()
            except Exception as error:
                if not failed:
                    logger.warning("store.lost", extra={"fields": {"reason": classify(error).message}})
                failed = True
                pause = await pause_about(pause)
            else:
                return

    async def _until_stopped(self, work: Callable[[], Awaitable[None]]) -> bool:
        task, stopping = asyncio.ensure_future(work()), asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for pending in (task, stopping):
            pending.cancel()
        return task.done() and not task.cancelled()
