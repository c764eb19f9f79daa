"""Celery, acknowledging late, no results: one parent and one prefork child; prefetch 4 is its faster setting."""

from __future__ import annotations

import celery

from bench.peers.stage import STAGE, body

app = celery.Celery("bench", broker=STAGE.url)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1 if STAGE.crash else 4,
    broker_connection_retry_on_startup=True,
)
if STAGE.crash:
    # Both sweep options are new in kombu; with the visibility timeout alone it takes 100 s.
    app.conf.broker_transport_options = {
        "visibility_timeout": 5,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }


@app.task(name="job", max_retries=3)
def job(n: int, sent_ns: int) -> None:
    """The shared body."""
    body(n, sent_ns)


def submit(n: int, sent_ns: int) -> None:
    """Hand in one job."""
    job.delay(n, sent_ns)


def work() -> None:
    """Run the worker in this process."""
    quiet = ["--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(
        ["worker", "--pool=prefork", f"--concurrency={STAGE.concurrency}", f"-n=w{STAGE.worker}@%h", *quiet]
    )
