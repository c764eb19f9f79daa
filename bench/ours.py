"""ragworker as a variant: its real Queue and Worker, with a handler that runs the shared body.

Settings are the defaults, but for the number of jobs at once (tuned, like the peers'), the log level WARNING, and
what the variant says (`options`: environment variables of ragworker).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from time import time_ns

from bench.peers.stage import STAGE, body_async
from ragworker.connection import connect
from ragworker.delivery import Delivery, Handler
from ragworker.job import Figures, NewJob
from ragworker.logs import configure_logging
from ragworker.queue import Queue
from ragworker.settings import Settings
from ragworker.worker import Worker

settings = Settings.load(
    {
        "REDIS_URL": STAGE.url,
        "RAG_WORKER_CONCURRENCY": str(STAGE.concurrency),
        "LOG_LEVEL": "WARNING",
        **(STAGE.options or {}),
    }
)
queues: list[Queue] = []


class Body(Handler):
    """Run the shared body; the document is its number and when it was submitted."""

    async def run(self, delivery: Delivery) -> Figures:
        """The job is done when the body is."""
        number, sent_ns = (delivery.job.payload or b"").split()
        await body_async(int(number), int(sent_ns))
        return Figures()


def new_job(n: int, sent_ns: int) -> NewJob:
    """The job of a number; its key is the number, so that each is work of its own."""
    return NewJob(str(n), "bench", "text/plain", b"%d %d" % (n, sent_ns))


async def open() -> None:
    """Connect."""
    queues.append(Queue(connect(STAGE.url), name=settings.queue_name, settings=settings.queue))


async def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    await queues[0].submit(new_job(n, sent_ns))


async def submit_many(numbers: Iterable[int]) -> None:
    """Hand in many."""
    await queues[0].submit_many([new_job(n, time_ns()) for n in numbers])


def work() -> None:
    """Run the worker in this process."""
    configure_logging(settings, service="bench", secrets=())
    asyncio.run(_work())


async def _work() -> None:
    await open()
    worker = Worker(queues[0], Body(), settings=settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()
