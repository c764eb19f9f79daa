"""streaq: 20 jobs at once (its best), silent, results not kept, uvloop in the worker."""

from __future__ import annotations

from collections.abc import Iterable
from time import time_ns

from streaq import Worker

from bench.peers.stage import STAGE, body_async

worker = Worker(
    redis_url=STAGE.url,
    concurrency=STAGE.concurrency,
    anyio_kwargs={"use_uvloop": True},
    **({"idle_timeout": 5} if STAGE.crash else {}),
)


@worker.task(name="job", max_tries=3, silent=True, ttl=0)
async def job(n: int, sent_ns: int) -> None:
    """The shared body."""
    await body_async(n, sent_ns)


async def open() -> None:
    """Connect."""
    await worker.__aenter__()


async def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    await job.enqueue(n, sent_ns)


async def submit_many(numbers: Iterable[int]) -> None:
    """Hand in many in one pipeline."""
    await worker.enqueue_many([job.enqueue(n, time_ns()) for n in numbers])


async def close() -> None:
    """Disconnect."""
    await worker.__aexit__(None, None, None)


def work() -> None:
    """Run the worker in this process."""
    worker.run_sync()
