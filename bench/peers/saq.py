"""SAQ: 50 jobs at once (its best), no results. Three attempts: with its default of one a dead worker's jobs end."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from saq import Queue, Worker

from bench.peers.stage import STAGE, body_async

queue = Queue.from_url(STAGE.url, name="bench", max_concurrent_ops=50)
OPTIONS: dict[str, Any] = {"retries": 3, "ttl": -1, **({"timeout": 5} if STAGE.crash else {})}


async def job(_: dict[str, Any], *, n: int, sent_ns: int) -> None:
    """The shared body."""
    await body_async(n, sent_ns)


async def open() -> None:
    """Connect."""
    await queue.connect()


async def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    await queue.enqueue("job", n=n, sent_ns=sent_ns, **OPTIONS)


async def close() -> None:
    """Disconnect."""
    await queue.disconnect()


def work() -> None:
    """Run the worker in this process."""
    uvloop.install()
    asyncio.run(_work())


async def _work() -> None:
    timers = {"timers": {"sweep": 2}} if STAGE.crash else {}
    worker: Worker[Any] = Worker(queue, [("job", job)], concurrency=STAGE.concurrency, **timers)
    await worker.start()
