"""Redis dies, loses its last second, fails over: workers live on, and what was acknowledged is there."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis.asyncio
from core_parts import RedisServer, new_job, wait_until
from crash_parts import Stand, all_done, told, within, worker_of
from sentinels import Sentinels

from ragworker.connection import connect
from ragworker.queue import Queue

pytestmark = pytest.mark.anyio

AWAY = (redis.RedisError, OSError)


@dataclass
class Submitter:
    """Submits one job after another and notes which were acknowledged, and when; keeps on while Redis is away."""

    queue: Queue
    pause_seconds: float = 0.01
    acknowledged: dict[str, float] = field(default_factory=dict)
    running: bool = True

    async def run(self) -> None:
        number = 0
        while self.running:
            try:
                # A submit whose answer was lost is sent again under its key, as a client would.
                answer = await self.queue.submit(new_job(f"nap {number}"))
            except AWAY:
                await asyncio.sleep(0.05)
            else:
                self.acknowledged[answer.job_id] = time.time()
                number += 1
                await asyncio.sleep(self.pause_seconds)


async def first_effect_after(stand: Stand, moment: float, *, seconds: float) -> float:
    """How long after `moment` a job was done again."""

    async def again() -> bool:
        effects = stand.effects()
        return bool(effects) and effects[-1][3] / 1e9 > moment

    await wait_until(again, seconds=seconds, what="work to go on")
    return next(effect[3] / 1e9 for effect in stand.effects() if effect[3] / 1e9 > moment) - moment


async def known(queue: Queue, ids: list[str]) -> set[str]:
    """Which of these jobs Redis has."""
    async with queue._redis.pipeline(transaction=False) as pipe:
        for job_id in ids:
            pipe.exists(f"{queue.prefix}job:{job_id}")
        found = await pipe.execute()
    return {job_id for job_id, there in zip(ids, found, strict=True) if there}


@pytest.mark.parametrize("loss", ["process killed", "last second lost"])
async def test_redis_back_on_its_aof_goes_on_within_two_seconds(
    stand: Stand, own_redis: RedisServer, loss: str
) -> None:
    """Killed in mid-run and started on its AOF (everysec): the worker lives, what the AOF kept is done, once."""
    stand.environ["NAP_SECONDS"] = "0.02"
    client = connect(own_redis.url)
    queue = Queue(client, name=stand.environ["RAG_QUEUE"], settings=stand.settings.queue)
    await client.config_set("appendfsync", "everysec")
    process = stand.start()
    await worker_of(queue, process)
    submitter = Submitter(queue)
    submitting = asyncio.create_task(submitter.run())

    async def some(count: int = 60) -> bool:
        return len(stand.effects()) >= count

    await wait_until(some, seconds=30, what="the first jobs")
    sizes = {path: path.stat().st_size for path in aof_files(own_redis.folder)}
    await asyncio.sleep(1.0)  # the second that a power failure would cost
    own_redis.kill()
    acknowledged = list(submitter.acknowledged)
    if loss == "last second lost":
        for path, size in sizes.items():
            os.truncate(path, size)
    await asyncio.sleep(0.5)
    own_redis.start()
    answering = time.time()
    kept = await known(queue, acknowledged)
    back = await first_effect_after(stand, answering, seconds=10)
    submitter.running = False
    await submitting
    await all_done(queue, sorted(kept), seconds=30)
    # A job that Redis lost, but that had its effect before or is sent again, is in SQL once all the same.
    effects = Counter(effect[0] for effect in stand.effects())
    lost = set(acknowledged) - kept
    told(
        f"Redis back, {loss}",
        back_seconds=back,
        acknowledged=len(acknowledged),
        lost_by_aof=len(lost),
        again=stand.ran_again(),
    )
    assert set(effects.values()) == {1}
    assert kept <= effects.keys()
    assert process.poll() is None
    assert back <= within(2.0)
    if loss == "process killed":
        assert lost == set(), "the operating system has what Redis wrote"
    await client.aclose()


def aof_files(folder: Path) -> list[Path]:
    """The append-only file of Redis 6.2, or the newest part of that of Redis 7."""
    return [
        path for path in [*folder.glob("*.aof"), *folder.glob("appendonlydir/*.incr.aof")] if path.is_file()
    ]


@pytest.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[Sentinels]:
    """One master, two replicas, three Sentinels."""
    made = Sentinels(tmp_path / "sentinels")
    try:
        await made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("replicas", [0, 1])
async def test_failover_is_over_within_ten_seconds(
    sentinels: Sentinels, tmp_path: Path, replicas: int
) -> None:
    """The master is killed: worker and submitter go on with the next; with WAIT nothing acknowledged is lost."""
    environ = {"RAG_REDIS_WAIT_REPLICAS": str(replicas), "NAP_SECONDS": "0.02"}
    stand = Stand(tmp_path, sentinels.url, environ)
    client = connect(sentinels.url)
    queue = Queue(client, name=stand.environ["RAG_QUEUE"], settings=stand.settings.queue)
    try:
        process = stand.start()
        await worker_of(queue, process)
        submitter = Submitter(queue)
        submitting = asyncio.create_task(submitter.run())

        async def some() -> bool:
            return len(stand.effects()) >= 60

        await wait_until(some, seconds=30, what="the first jobs")
        killed = sentinels.kill_master()
        acknowledged = [job_id for job_id, at in submitter.acknowledged.items() if at <= killed]
        worker_back = await first_effect_after(stand, killed + 0.5, seconds=20) + 0.5

        async def acknowledges() -> bool:
            return max(submitter.acknowledged.values()) > killed + 0.5

        await wait_until(acknowledges, seconds=20, what="a submit to be acknowledged")
        submitter_back = next(at for at in submitter.acknowledged.values() if at > killed + 0.5) - killed
        submitter.running = False
        await submitting
        kept = await known(queue, list(submitter.acknowledged))
        await all_done(queue, sorted(kept), seconds=30)
        effects = Counter(effect[0] for effect in stand.effects())
        lost = submitter.acknowledged.keys() - kept - effects.keys()
        told(
            f"failover, WAIT for {replicas}",
            worker_back_seconds=worker_back,
            submitter_back_seconds=submitter_back,
            acknowledged_before=len(acknowledged),
            lost=len(lost),
            again=stand.ran_again(),
        )
        assert set(effects.values()) == {1}
        assert process.poll() is None
        assert worker_back <= within(10.0)
        assert submitter_back <= within(10.0)
        if replicas:
            assert lost == set()
    finally:
        stand.stop()
        await client.aclose()


@pytest.mark.parametrize("replicas", [0, 1])
async def test_what_no_replica_has_is_acknowledged_only_without_wait(
    sentinels: Sentinels, tmp_path: Path, replicas: int
) -> None:
    """Replicas that are behind when the master dies: without WAIT the loss is counted, with it nobody was told yes."""
    client = connect(sentinels.url)
    settings = Stand(tmp_path, sentinels.url, {"RAG_REDIS_WAIT_REPLICAS": str(replicas)}).settings
    queue = Queue(client, name="lagging", settings=settings.queue)
    try:
        before = [(await queue.submit(new_job(f"before {number}"))).job_id for number in range(20)]
        await sentinels.replicated()
        await sentinels.cut_off()
        answers = await asyncio.gather(
            *(queue.submit(new_job(f"lagging {number}")) for number in range(20)), return_exceptions=True
        )
        acknowledged = [answer.job_id for answer in answers if not isinstance(answer, BaseException)]
        sentinels.kill_master()
        await sentinels.promoted(seconds=20)
        kept = await known(queue, [*before, *acknowledged])
        told(
            f"lagging replicas, WAIT for {replicas}",
            acknowledged=len(acknowledged),
            lost=len(acknowledged) - len(kept) + 20,
        )
        assert set(before) <= kept
        assert len(acknowledged) == (0 if replicas else 20)
        assert (set(acknowledged) <= kept) == bool(replicas)
    finally:
        await client.aclose()
