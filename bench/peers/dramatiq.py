"""Dramatiq: one process; its best number of threads was 20."""

from __future__ import annotations

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.stage import STAGE, body

broker = RedisBroker(
    url=STAGE.url, **({"heartbeat_timeout": 5000, "maintenance_chance": 1_000_000} if STAGE.crash else {})
)
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="job", max_retries=3)
def job(n: int, sent_ns: int) -> None:
    """The shared body."""
    body(n, sent_ns)


def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    job.send(n, sent_ns)


def work() -> None:
    """Become its command."""
    settings = ["--processes", "1", "--threads", str(STAGE.concurrency)]
    os.execv(sys.executable, [sys.executable, "-m", "dramatiq", __name__, *settings])  # noqa: S606 no shell is wanted
