"""arq: polls every 10 ms, 20 jobs at once (its best), keeps no results, uvloop in the worker."""

from __future__ import annotations

from typing import Any

import uvloop
from arq import create_pool, func
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker

from bench.peers.stage import STAGE, body_async

settings = RedisSettings.from_dsn(STAGE.url)
pools: list[ArqRedis] = []


async def job(_: dict[str, Any], n: int, sent_ns: int) -> None:
    """The shared body."""
    await body_async(n, sent_ns)


async def open() -> None:
    """Connect."""
    pools.append(await create_pool(settings))


async def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    await pools[0].enqueue_job("job", n, sent_ns)


async def close() -> None:
    """Disconnect."""
    await pools[0].aclose()


def work() -> None:
    """Run the worker in this process. Its claim on a job lasts `job_timeout` and 10 s more."""
    uvloop.install()
    Worker(
        [func(job, name="job")],
        redis_settings=settings,
        max_jobs=STAGE.concurrency,
        poll_delay=0.01,
        keep_result=0,
        log_results=False,
        **({"job_timeout": 5} if STAGE.crash else {}),
    ).run()
