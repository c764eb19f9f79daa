"""A worker process whose jobs nap and then have an effect: `python nap_worker.py`, settings from the environment.

NAP_FOLDER has `log` (a line B when a body begins: what a crash runs again shows there) and `effects.db` (one
transaction an effect, under the rule of the product's store: not twice, not under an old fence). NAP_SECONDS is how
long a nap is; a job named `poison` kills its process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from ragworker.connection import connect
from ragworker.delivery import Delivery, Handler
from ragworker.job import ClaimedJob, Figures
from ragworker.logs import configure_logging
from ragworker.queue import Queue
from ragworker.settings import Settings
from ragworker.worker import Worker, new_worker_id

SCHEMA = """
create table if not exists effects (job_id text, fence integer, worker text, at_ns integer);
create table if not exists fences (job_id text primary key, fence integer);
"""


class Naps(Handler):
    """Naps; afterwards one effect."""

    def __init__(self, folder: Path, worker: str, seconds: float) -> None:
        self._log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._database = sqlite3.connect(folder / "effects.db", isolation_level=None, timeout=20)
        self._database.execute("pragma journal_mode = wal")
        # A killed process loses nothing without it; only a power failure would.
        self._database.execute("pragma synchronous = off")
        self._database.executescript(SCHEMA)
        self._worker, self._seconds = worker, seconds

    def claimed(self, jobs: Sequence[ClaimedJob]) -> None:
        """Shut former owners out."""
        raised = (
            "insert into fences values (?, ?) on conflict do update set fence = max(fence, excluded.fence)"
        )
        self._database.execute("begin immediate")
        self._database.executemany(raised, [(job.job_id, job.fence) for job in jobs])
        self._database.execute("commit")

    async def run(self, delivery: Delivery) -> Figures:
        """Nap, then the effect, unless somebody else had it or is about to."""
        job = delivery.job
        os.write(
            self._log, f"B {job.job_id} {job.fence} {self._worker} {os.getpid()} {time.time_ns()}\n".encode()
        )
        if job.name == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(self._seconds)
        effect = (
            "insert into effects select ?1, ?2, ?3, ?4 where not exists (select 1 from effects where job_id = ?1) "
            "and not exists (select 1 from fences where job_id = ?1 and fence > ?2)"
        )
        self._database.execute(effect, (job.job_id, job.fence, self._worker, time.time_ns()))
        return Figures()


async def main() -> None:
    """Work until SIGTERM."""
    settings = Settings.load(os.environ)
    configure_logging(settings, service="ragworker-worker")
    client = connect(settings.redis_url)
    queue = Queue(client, name=settings.queue_name, settings=settings.queue)
    name = new_worker_id()
    naps = Naps(Path(os.environ["NAP_FOLDER"]), name, float(os.environ["NAP_SECONDS"]))
    worker = Worker(queue, naps, settings=settings, worker_id=name)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()
    await client.aclose()


if __name__ == "__main__":
    asyncio.run(main())
