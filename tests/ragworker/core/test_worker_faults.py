"""Whole workers: killed, paused, stopped, cancelled, without Redis; every job has one effect and none is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from core_parts import (
    EmbeddingServer,
    Lane,
    RedisServer,
    ended,
    live_workers,
    make_lane,
    new_job,
    owners,
    submit,
    wait_until,
)

from ragworker import worker as worker_module
from ragworker.connection import connect
from ragworker.delivery import Delivery, Handler
from ragworker.handler import RagHandler
from ragworker.job import Figures, JobState
from ragworker.queue import Queue
from ragworker.worker import Worker

pytestmark = pytest.mark.anyio


class Held(Handler):
    """Jobs that run until the test lets them go on."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def run(self, delivery: Delivery) -> Figures:
        """Wait for the test."""
        self.began.set()
        await self.go_on.wait()
        return Figures()


async def test_killed_workers_lose_and_repeat_nothing(lane: Lane, lane_queue: Queue) -> None:
    """Workers killed with SIGKILL in the middle of jobs: every job is done, every effect is there once."""
    lane.embedding.delay_seconds = 0.2
    alive = {process.pid: process for process in [lane.start_worker() for _ in range(4)]}
    ids: list[str] = []
    for round_number in range(3):
        ids += await submit(lane_queue, 12, name=f"round {round_number}")
        busy: list[int] = []

        async def somebody_is_busy(found: list[int] = busy, ids: tuple[str, ...] = tuple(ids)) -> bool:
            pids = {
                line["worker"]: line["pid"] for line in lane.log_lines() if line["message"] == "worker.ready"
            }
            found[:] = [pid for owner in await owners(lane_queue, ids) if (pid := pids.get(owner)) in alive]
            return bool(found)

        await wait_until(somebody_is_busy, seconds=20, what="a worker to hold jobs")
        victim = alive.pop(busy[0])
        victim.kill()
        victim.wait(10)
    views = await ended(lane_queue, ids)
    assert [process.poll() for process in alive.values()] == [None]
    assert {view.state for view in views.values()} == {JobState.DONE}
    effects = Counter(row[0] for row in lane.rows("select job_id from commit_log"))
    assert effects == Counter(ids)
    assert max(view.deliveries for view in views.values()) >= 2
    assert {view.attempt for view in views.values()} == {1}
    assert (await lane_queue.gauges()).stats["committed"] == len(ids)


async def test_paused_worker_cannot_repeat_an_effect(lane: Lane, lane_queue: Queue) -> None:
    """A worker paused past its lease wakes up: its job was done by another, its own outcome counts for nothing."""
    lane.embedding.delay_seconds = 0.5
    paused = lane.start_worker()
    ids = await submit(lane_queue, 3)

    async def asked() -> bool:
        return len(lane.embedding.requests) >= 3

    await wait_until(asked, seconds=10, what="the first worker to be in the middle of its jobs")
    os.kill(paused.pid, signal.SIGSTOP)
    other = lane.start_worker()
    views = await ended(lane_queue, ids)
    os.kill(paused.pid, signal.SIGCONT)
    assert {view.deliveries for view in views.values()} == {2}
    more = await submit(lane_queue, 5, words=100)
    await ended(lane_queue, more)
    assert Counter(row[0] for row in lane.rows("select job_id from commit_log")) == Counter({*ids, *more})
    assert paused.poll() is other.poll() is None

    async def noticed() -> bool:
        return any(line["message"] in ("lease.lost", "job.outcome_refused") for line in lane.log_lines()) or (
            sum(line["message"] == "job.finished" for line in lane.log_lines()) == len({*ids, *more})
        )

    await wait_until(noticed, what="the paused worker to see what it lost")


async def test_temp_file_of_a_killed_worker_is_swept(lane: Lane, lane_queue: Queue) -> None:
    """A worker killed while it reads a document leaves a file; the next worker wipes it and finishes the job."""
    text = b"*a* [b](c) | d\n\n" * 40_000
    await lane_queue.submit(replace(new_job("big", payload=text), name="big.md", media_type="text/markdown"))
    victim = lane.start_worker()

    async def holds_a_file() -> bool:
        return lane.settings.temp_dir.is_dir() and any(lane.settings.temp_dir.iterdir())

    await wait_until(holds_a_file, seconds=10, what="the worker to hold a file")
    victim.kill()
    victim.wait(10)
    left = {path.name for path in lane.settings.temp_dir.iterdir()}
    assert left
    lane.start_worker()

    async def swept() -> bool:
        return not left & {path.name for path in lane.settings.temp_dir.iterdir()}

    await wait_until(swept, seconds=10, what="the file to be swept")


async def test_claim_whose_answer_was_lost_is_given_back(
    lane: Lane, lane_queue: Queue, start: list[Worker]
) -> None:
    """A job that Redis says this worker holds, but that it never heard of, is back in line within two heartbeats."""

    async def ready() -> bool:
        return (await lane_queue.gauges()).workers == 1

    await wait_until(ready, what="the first heartbeat")
    await lane_queue.pause()
    (job_id,) = await submit(lane_queue, 1)
    # As if the worker's own claim had lost its answer: made in its name in the moment in which the pause ends.
    claims = []

    async def claimed() -> bool:
        await lane_queue.resume()
        claims.extend(await lane_queue.claim(start[0].id, limit=1))
        return bool(claims)

    await wait_until(claimed, what="the claim")
    view = (await ended(lane_queue, [job_id]))[job_id]
    assert (view.state, view.deliveries, view.attempt) == (JobState.DONE, 1, 1)
    assert "released" in [entry.event for entry in view.history]
    assert len(lane.rows("select * from commit_log")) == 1


async def test_stopped_worker_hands_back_what_it_cannot_finish(
    lane: Lane, lane_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace period running jobs are back at the front, unblamed, and the worker is gone from Redis."""
    monkeypatch.setattr(worker_module, "STOP_SECONDS", 0.1)
    lane.embedding.delay_seconds = 5.0
    client = connect(lane.settings.redis_url)
    handler = RagHandler(lane.settings, client, worker="w-stopped")
    made = Worker(lane_queue, handler, settings=lane.settings, worker_id="w-stopped")
    running = asyncio.create_task(made.run())
    (job_id,) = await submit(lane_queue, 1)

    async def asked() -> bool:
        return bool(lane.embedding.requests)

    await wait_until(asked, what="the job to run")
    made.stop()
    await asyncio.wait_for(running, 5)
    view = await lane_queue.get(job_id)
    assert view is not None
    assert (view.state, view.attempt, view.deliveries) == (JobState.QUEUED, 1, 1)
    assert view.history[-1].event == "released"
    assert await live_workers(lane_queue, client) == set()
    await client.aclose()


async def test_stopping_worker_is_handed_nothing(lane: Lane, lane_queue: Queue) -> None:
    """A worker with free slots that finishes its last job takes no new one, which waits for somebody else."""
    handler = Held()
    made = Worker(lane_queue, handler, settings=lane.settings, worker_id="w-stopping")
    running = asyncio.create_task(made.run())
    (first,) = await submit(lane_queue, 1)
    await asyncio.wait_for(handler.began.wait(), 5)

    async def waits_for_more() -> bool:
        return await lane_queue._redis.zscore(f"{lane_queue.prefix}idle", "w-stopping") is not None

    await wait_until(waits_for_more, what="the worker to wait for more")
    made.stop()

    async def rests() -> bool:
        return not await waits_for_more()

    await wait_until(rests, what="the worker to rest")
    (second,) = await submit(lane_queue, 1, name="second")
    handler.go_on.set()
    await asyncio.wait_for(running, 10)
    views = [await lane_queue.get(job_id) for job_id in (first, second)]
    assert [(view.state, view.deliveries) for view in views if view] == [("done", 1), ("queued", 0)]


async def test_sigterm_finishes_running_jobs(lane: Lane, lane_queue: Queue) -> None:
    """SIGTERM: the running job is finished and committed, the process ends with status 0."""
    lane.embedding.delay_seconds = 0.5
    process = lane.start_worker()
    (job_id,) = await submit(lane_queue, 1)

    async def asked() -> bool:
        return bool(lane.embedding.requests)

    await wait_until(asked, seconds=10, what="the job to run")
    process.terminate()
    assert await asyncio.to_thread(process.wait, 10) == 0
    view = await lane_queue.get(job_id)
    assert view is not None
    assert view.state is JobState.DONE
    assert all("message" in line for line in lane.log_lines())
    finished = [line for line in lane.log_lines() if line["message"] == "job.finished"]
    assert [(line["job_id"], line["trace_id"]) for line in finished] == [(job_id, "trace-" + "0" * 32)]


async def test_redis_killed_and_back_loses_nothing(
    tmp_path: Path, own_redis_server: RedisServer, embedding: EmbeddingServer
) -> None:
    """Redis is killed in the middle and comes back on its data: the same workers finish every job, once."""
    lane = make_lane(tmp_path, own_redis_server.url, embedding)
    embedding.delay_seconds = 0.05
    client = connect(own_redis_server.url)
    queue = Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)
    try:
        processes = [lane.start_worker() for _ in range(2)]
        ids = await submit(queue, 30)

        async def some_done() -> bool:
            return (await queue.gauges()).stats.get("committed", 0) >= 5

        await wait_until(some_done, seconds=20, what="the first jobs")
        await client.config_set("appendfsync", "always")
        own_redis_server.kill()
        await asyncio.sleep(0.5)
        own_redis_server.start()
        views = await ended(queue, ids)
        assert {view.state for view in views.values()} == {JobState.DONE}
        assert Counter(row[0] for row in lane.rows("select job_id from commit_log")) == Counter(ids)
        assert all(process.poll() is None for process in processes)
    finally:
        lane.stop()
        await client.aclose()
