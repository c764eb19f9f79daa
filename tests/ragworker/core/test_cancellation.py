"""Stopping a job where it waits."""

from __future__ import annotations

import asyncio
import gc

import pytest

from ragworker.cancellation import Cancellation
from ragworker.errors import WorkerCancellationError

pytestmark = pytest.mark.anyio


async def test_cancelled_work_ends_with_the_reason() -> None:
    """What waits is stopped, and the reason is raised."""
    cancellation, started = Cancellation(), asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    race = asyncio.ensure_future(cancellation.race(work()))
    await asyncio.wait_for(started.wait(), 5)
    cancellation.request("changed my mind")
    with pytest.raises(WorkerCancellationError, match="changed my mind"):
        await asyncio.wait_for(race, 5)


async def test_work_that_fails_while_it_is_stopped_is_not_reported_as_forgotten() -> None:
    """An exception raised on the way out is taken: the log has no "Task exception was never retrieved"."""
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(str(context["message"])))
    cancellation, started = Cancellation(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("on the way out")

    race = asyncio.ensure_future(cancellation.race(work()))
    await asyncio.wait_for(started.wait(), 5)
    cancellation.request("stop")
    with pytest.raises(WorkerCancellationError):
        await asyncio.wait_for(race, 5)
    del race
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert complaints == []
