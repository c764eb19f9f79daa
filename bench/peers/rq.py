"""RQ with SimpleWorker (no fork per job, its fastest), retries, no results. One job at a time by design."""

from __future__ import annotations

from collections.abc import Iterable
from time import time_ns

import redis
from rq import Queue, Retry, SimpleWorker

from bench.peers.stage import STAGE, body

connection = redis.Redis.from_url(STAGE.url)
queue = Queue("bench", connection=connection)
OPTIONS = {"retry": Retry(max=3), "result_ttl": 0}


def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    queue.enqueue(body, n, sent_ns, **OPTIONS)


def submit_many(numbers: Iterable[int]) -> None:
    """Hand in many in one pipeline."""
    queue.enqueue_many([Queue.prepare_data(body, (n, time_ns()), **OPTIONS) for n in numbers])


def work() -> None:
    """Run the worker in this process."""
    SimpleWorker([queue], connection=connection).work(logging_level="WARNING")
