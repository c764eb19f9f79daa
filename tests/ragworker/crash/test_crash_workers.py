"""Worker processes are killed, frozen and poisoned: every job is done, none twice, and soon."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from core_parts import EmbeddingServer, RedisServer, ended, make_lane, new_job, submit, wait_until
from crash_parts import (
    KILLS,
    Stand,
    all_done,
    hand_in,
    held_by,
    kill_group,
    percentile,
    told,
    within,
    worker_of,
)

from ragworker.connection import connect
from ragworker.job import JobState
from ragworker.queue import Queue
from ragworker.worker import TAKE_OVER_LIMIT

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue(stand: Stand) -> AsyncIterator[Queue]:
    """The stand's queue, as a submitter sees it."""
    client = connect(stand.redis_url)
    yield Queue(client, name=stand.environ["RAG_QUEUE"], settings=stand.settings.queue)
    await client.aclose()


def no_loss(stand: Stand, ids: list[str], kills: int) -> None:
    """One effect of each job, and no more bodies begun again than the killed workers had slots."""
    assert Counter(effect[0] for effect in stand.effects()) == Counter(ids)
    assert stand.ran_again() <= kills * stand.settings.worker_concurrency


@pytest.mark.parametrize("other", ["running", "started at once"])
async def test_killed_half_way_all_is_done_within_five_seconds(
    stand: Stand, queue: Queue, other: str
) -> None:
    """200 jobs of 50 ms, 8 at once, the process group killed half-way, default settings: nothing lost or done twice."""
    victim = stand.start()
    workers = [await worker_of(queue, victim)]
    if other == "running":
        await worker_of(queue, stand.start())
    ids = await hand_in(queue, 200)
    await wait_until(lambda: half_done(stand), seconds=30, what="half of the jobs")
    killed = kill_group(victim)
    held = await held_by(queue, workers[0])
    if other != "running":
        stand.start()
    await all_done(queue, ids, seconds=20)
    took = stand.effects()[-1][3] / 1e9 - killed
    told(f"200 jobs, killed half-way, another {other}", seconds=took, held=len(held), again=stand.ran_again())
    no_loss(stand, ids, kills=1)
    assert took <= within(5.0)


@pytest.mark.parametrize("other", ["running", "started at once"])
async def test_killed_half_way_every_document_is_committed_once(
    own_redis: RedisServer, embedding: EmbeddingServer, tmp_path: Path, other: str
) -> None:
    """The same with the real worker: 200 documents, an embedding API of 50 ms, default settings."""
    defaults = {"RAG_LEASE_SECONDS": "", "RAG_RETRY_BASE_SECONDS": "", "RAG_WORKER_CONCURRENCY": "8"}
    lane = make_lane(tmp_path, own_redis.url, embedding, **defaults)
    embedding.delay_seconds = 0.05
    client = connect(own_redis.url)
    queue = Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)
    try:
        victim = lane.start_worker()
        await worker_of(queue, victim)
        if other == "running":
            await worker_of(queue, lane.start_worker())
        ids = await submit(queue, 200, words=100)

        async def half_committed() -> bool:
            return bool(lane.rows("select count(*) >= 100 from commit_log")[0][0])

        await wait_until(half_committed, seconds=60, what="half of the documents")
        victim.kill()
        killed = time.time()
        if other != "running":
            lane.start_worker()
        took = await all_done(queue, ids, seconds=20) - killed
        told(
            f"200 documents, killed half-way, another {other}", seconds=took, requests=len(embedding.requests)
        )
        assert Counter(row[0] for row in lane.rows("select job_id from commit_log")) == Counter(ids)
        assert len(embedding.requests) <= 200 + lane.settings.worker_concurrency
        assert took <= within(5.0)
    finally:
        lane.stop()
        await client.aclose()


async def half_done(stand: Stand) -> bool:
    return len(stand.effects()) >= 100


async def test_killed_again_and_again_every_job_is_recovered(stand: Stand, queue: Queue) -> None:
    """Busy workers killed at random moments, each replaced: what they held is done soon, all is done once."""
    seed = int(os.environ.get("RAG_CRASH_SEED", time.time_ns() % 10**6))
    told("kills at random moments", kills=KILLS, seed=seed)
    draw = random.Random(seed)
    alive = {await worker_of(queue, process): process for process in [stand.start(), stand.start()]}
    ids: list[str] = []
    recoveries: list[float] = []
    for _ in range(KILLS):
        ids += await hand_in(queue, 120)
        victim = draw.choice(list(alive))
        await asyncio.sleep(draw.uniform(0.0, 0.3))
        await wait_until(lambda name=victim: held_by(queue, name), seconds=20, what="the victim to be busy")
        process = alive.pop(victim)
        killed = kill_group(process)
        held = await held_by(queue, victim)
        fresh = stand.start()
        await all_done(queue, held, seconds=20)
        done = {effect[0]: effect[3] / 1e9 for effect in stand.effects()}
        recoveries.append(max((done[job_id] - killed for job_id in held), default=0.0))
        alive[await worker_of(queue, fresh)] = fresh
    await all_done(queue, ids, seconds=60)
    no_loss(stand, ids, kills=KILLS)
    assert all(process.poll() is None for process in alive.values())
    shares = {f"P{share * 100:.0f}": percentile(recoveries, share) for share in (0.5, 0.95)}
    told("recovery in s", kills=KILLS, **shares, max=max(recoveries), jobs=len(ids), again=stand.ran_again())
    assert max(recoveries) <= within(5.0)


async def test_many_stuck_jobs_are_taken_over_as_fast_as_few(stand: Stand, queue: Queue) -> None:
    """200 jobs under a dead worker come back as soon as 8 do: one call of one script moves them all."""
    took, calls = {}, {}
    await worker_of(queue, stand.start(NAP_SECONDS="0.001"))
    for count in (8, 200):
        await queue.pause()
        ids = await hand_in(queue, count)
        await queue.resume()
        # The jobs of a worker that is no more: it claimed them and was never heard of again.
        claimed = [job.job_id for job in await queue.claim(f"dead-{count}", limit=count)]
        before = (await queue.gauges()).stats.get("taken_over", 0)
        at = time.monotonic()

        async def moved(before: float = before, claimed: list[str] = claimed) -> bool:
            return (await queue.gauges()).stats.get("taken_over", 0) - before == len(claimed)

        await wait_until(moved, seconds=10, what="the take-over")
        took[count] = time.monotonic() - at
        await all_done(queue, ids, seconds=20)
        calls[count] = len(claimed)
    told(
        "stuck jobs taken over, s after the last claim",
        **{f"{calls[count]} jobs": took[count] for count in took},
    )
    assert calls[200] <= TAKE_OVER_LIMIT
    assert took[200] <= took[8] + within(1.0)


async def test_frozen_worker_that_wakes_up_has_no_effect(
    own_redis: RedisServer, embedding: EmbeddingServer, tmp_path: Path
) -> None:
    """Stopped past its lease in mid-request, it wakes before the next owner is done: its commit is refused."""
    lane = make_lane(tmp_path, own_redis.url, embedding, RAG_WORKER_CONCURRENCY="1", RAG_LEASE_SECONDS="1")
    embedding.delay_seconds = 1.0
    client = connect(own_redis.url)
    queue = Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)

    async def asked(times: int) -> bool:
        return len(embedding.requests) == times

    async def refused() -> bool:
        return any(line["message"] in ("lease.lost", "job.outcome_refused") for line in lane.log_lines())

    try:
        frozen = lane.start_worker()
        (job_id,) = await submit(queue, 1)
        await wait_until(lambda: asked(1), seconds=20, what="the first worker to be in mid-request")
        os.kill(frozen.pid, signal.SIGSTOP)
        embedding.delay_seconds = 8.0
        lane.start_worker()
        await wait_until(lambda: asked(2), seconds=20, what="the second worker to be in mid-request")
        os.kill(frozen.pid, signal.SIGCONT)
        await wait_until(refused, seconds=5, what="the frozen worker to be refused")
        assert lane.rows("select * from commit_log") == []
        view = (await ended(queue, [job_id]))[job_id]
        assert (view.state, view.deliveries) == (JobState.DONE, 2)
        fence = await client.hget(f"{queue.prefix}job:{job_id}", "fence")
        assert lane.rows("select job_id, fence from commit_log") == [(job_id, int(fence))]
        assert frozen.poll() is None
    finally:
        lane.stop()
        await client.aclose()


async def test_poison_ends_as_a_dead_letter(stand: Stand, queue: Queue) -> None:
    """A job that kills its worker each time is dead after RAG_MAX_DELIVERIES, with its history; the rest is done."""
    stand.environ |= {"RAG_MAX_DELIVERIES": "3", "RAG_LEASE_SECONDS": "0.5", "RAG_WORKER_CONCURRENCY": "2"}
    queue = Queue(queue._redis, name=queue.name, settings=stand.settings.queue)
    ids = await hand_in(queue, 10)
    poison = (await queue.submit(replace(new_job(), name="poison"))).job_id
    deadline, started = time.monotonic() + 60, 0
    while (view := await queue.get(poison)) is None or not view.state.terminal:
        assert time.monotonic() < deadline, view
        if not stand.processes or stand.processes[-1].poll() is not None:
            stand.start()
            started += 1
        await asyncio.sleep(0.01)
    assert (view.state, view.deliveries, view.attempt) == (JobState.DEAD, 3, 1)
    assert view.error is not None
    assert view.error.code == "WORKER_CRASHED"
    await all_done(queue, ids, seconds=20)
    told("poison", workers_killed=3, workers_started=started)
    assert Counter(effect[0] for effect in stand.effects()) == Counter(ids)
