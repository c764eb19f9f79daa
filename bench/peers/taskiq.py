"""taskiq with its stream broker, which acknowledges; no results. Its command takes uvloop when it is there."""

from __future__ import annotations

import os
import sys

from taskiq_redis import RedisStreamBroker

from bench.peers.stage import STAGE, body_async

broker = RedisStreamBroker(
    STAGE.url, **({"idle_timeout": 5000, "unacknowledged_lock_timeout": 5} if STAGE.crash else {})
)


@broker.task(task_name="job", retry_on_error=True, max_retries=3)
async def job(n: int, sent_ns: int) -> None:
    """The shared body."""
    await body_async(n, sent_ns)


async def open() -> None:
    """Connect, and make the consumer group: a stream is read from where its group was made."""
    await broker.startup()


async def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    await job.kiq(n, sent_ns)


async def close() -> None:
    """Disconnect."""
    await broker.shutdown()


def work() -> None:
    """Become its command."""
    settings = ["--workers", "1", "--max-async-tasks", str(STAGE.concurrency), "--log-level", "WARNING"]
    command = [sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker", *settings]
    os.execv(sys.executable, command)  # noqa: S606 no shell is wanted
