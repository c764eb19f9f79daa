"""Huey: two threads (its best), no results. Takes a job off its list before it runs it: at most once."""

from __future__ import annotations

from huey import RedisHuey

from bench.peers.stage import STAGE, body

queue = RedisHuey("bench", url=STAGE.url, results=False)


@queue.task(retries=3)
def job(n: int, sent_ns: int) -> None:
    """The shared body."""
    body(n, sent_ns)


def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    job(n, sent_ns)


def work() -> None:
    """Run the consumer in this process."""
    queue.create_consumer(workers=STAGE.concurrency, periodic=False).run()
