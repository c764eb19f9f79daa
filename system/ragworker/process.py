"""One worker process: `ragworker worker`. Signals in, exit out."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from contextlib import suppress

from ragworker.connection import connect
from ragworker.delivery import AWAY
from ragworker.handler import RagHandler
from ragworker.queue import Queue
from ragworker.settings import Settings
from ragworker.tracing import exporting
from ragworker.worker import Worker, new_worker_id


async def run_worker(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT. Logging must be configured."""
    client = connect(settings.redis_url)
    queue = Queue(client, name=settings.queue_name, settings=settings.queue)
    worker_id = new_worker_id()
    worker = Worker(
        queue, RagHandler(settings, client, worker=worker_id), settings=settings, worker_id=worker_id
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, worker.stop)
    try:
        await worker.run()
    finally:
        with suppress(*AWAY):
            await client.aclose()


def main(settings: Settings) -> int:
    """The process. Always ends, even when a thread is stuck in somebody's broken PDF."""
    with exporting(settings, service="ragworker-worker"):
        asyncio.run(run_worker(settings))
    if any(thread.name.startswith("ragworker") for thread in threading.enumerate()):
        # Python would join these threads; whatever they hold is swept by the next worker.
        logging.shutdown()
        os._exit(0)
    return 0
