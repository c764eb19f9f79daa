"""Deliveries side by side in one worker: those that wait for nothing share a task, the others must not notice."""

from __future__ import annotations

import asyncio

import fakeredis
import pytest
from core_parts import new_job, wait_until

from ragworker.delivery import Delivery, Handler, outcome_of
from ragworker.job import Figures, OutcomeKind
from ragworker.logs import current_context
from ragworker.queue import Queue
from ragworker.settings import QueueSettings, Settings
from ragworker.worker import Worker

pytestmark = pytest.mark.anyio

WAITING, AT_ONCE = 20, 40


class Mixed(Handler):
    """Two jobs of three end at once, the third ones only when all of them are under way."""

    def __init__(self) -> None:
        self.together = asyncio.Barrier(WAITING)
        self.runs = 0
        self.ids: list[tuple[str | None, str]] = []
        self.tasks: set[asyncio.Task[object] | None] = set()

    async def run(self, delivery: Delivery) -> Figures:
        """Wait with the others, or not at all."""
        self.runs += 1
        if self.runs % 3 == 0:
            self.tasks.add(asyncio.current_task())
            async with asyncio.timeout(5):
                await self.together.wait()
        self.ids.append((current_context().get("job_id"), delivery.job.job_id))
        return Figures()


@pytest.fixture
def queue() -> Queue:
    """A queue in memory."""
    return Queue(fakeredis.FakeAsyncRedis(), name="deliveries", settings=QueueSettings())


async def test_jobs_that_wait_are_all_under_way_beside_jobs_that_do_not(queue: Queue) -> None:
    """One batch: each waiting job has a task and log ids of its own, and none keeps another from starting."""
    handler = Mixed()
    await queue.submit_many([new_job(key=f"{n}") for n in range(WAITING + AT_ONCE)])
    worker = Worker(queue, handler, settings=Settings(worker_concurrency=3 * (WAITING + AT_ONCE)))
    running = asyncio.create_task(worker.run())

    async def all_ran() -> bool:
        return len(handler.ids) == WAITING + AT_ONCE

    await wait_until(all_ran, seconds=10, what="some job never began")
    assert len(handler.tasks) == WAITING
    assert all(logged == job_id for logged, job_id in handler.ids)
    worker.stop()
    await asyncio.wait_for(running, 10)
    assert (await queue.gauges()).stats["finished:done"] == WAITING + AT_ONCE


@pytest.mark.parametrize(("why", "kind"), [("released", OutcomeKind.RELEASED), ("lost", None)])
async def test_delivery_abandoned_before_it_began_does_not_run(
    queue: Queue, why: str, kind: OutcomeKind | None
) -> None:
    """It is handed back, or nothing is said of it; the handler never sees it."""
    handler = Mixed()
    await queue.submit(new_job(key="1"))
    (job,) = await queue.claim("w", limit=1)
    delivery = Delivery(job, queue, "w")
    delivery.abandon(why)
    outcome = await outcome_of(delivery, handler, Settings())
    assert (outcome.kind if outcome else None) is kind
    assert handler.runs == 0
