"""The limiter keeps its promise over cancellations, late answers and crashes of Redis; what is in flight is bounded."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
from core_parts import RedisServer, missing_redis, redis_binaries, wait_until

from ragworker import limits
from ragworker.connection import connect
from ragworker.errors import ErrorCode, JobFailedError
from ragworker.limits import BatchGate, RedisLimiter
from ragworker.queue import script_text
from ragworker.settings import EmbeddingSettings

pytestmark = pytest.mark.anyio

PREFIX = "{rag:test}:"
LATE_MS = 250
LONGEST_MS = 600_000


def small(**changes: float) -> EmbeddingSettings:
    values: dict[str, Any] = {"rate_limit": 4, "rate_window_seconds": 0.3, **changes}
    return EmbeddingSettings(**values)


def most_in_any(times: list[float], seconds: float) -> int:
    return max(sum(at <= other < at + seconds for other in times) for at in times)


async def test_two_processes_share_one_limit(client: redis.asyncio.Redis) -> None:
    """Two limiters on one queue let 4 leave in any 0.3 s together, and the last leaves in time."""
    name = f"test-{secrets.token_hex(6)}"
    pair = [RedisLimiter(client, queue=name, settings=small()) for _ in range(2)]
    departures: list[float] = []

    async def leave(limiter: RedisLimiter) -> None:
        leave_by = await limiter.acquire(1)
        departures.append(time.monotonic())
        assert departures[-1] <= leave_by <= departures[-1] + limits.SLACK_SECONDS / 2

    await asyncio.wait_for(asyncio.gather(*(leave(pair[n % 2]) for n in range(10))), 15)
    assert most_in_any(departures, 0.3) <= 4


async def test_refusal_told_to_one_slows_the_other(client: redis.asyncio.Redis) -> None:
    """A 429 that one process saw closes the limit for all, and says so once."""
    name = f"test-{secrets.token_hex(6)}"
    one, other = (RedisLimiter(client, queue=name, settings=small(rate_limit=100)) for _ in range(2))
    await one.acquire(1)
    refused = time.monotonic()
    await one.slow_down(sent=refused, retry_after_seconds=0.7)
    await asyncio.wait_for(other.acquire(1), 10)
    assert time.monotonic() - refused >= 0.69


async def test_cancelled_caller_gives_its_slot_back(client: redis.asyncio.Redis) -> None:
    """A job that is cancelled while it waits for its turn leaves no hole in the line."""
    name = f"test-{secrets.token_hex(6)}"
    limiter = RedisLimiter(client, queue=name, settings=small(rate_limit=1, rate_window_seconds=30))
    key = f"{{rag:{name}}}:limit:requests"
    await limiter.acquire(1)
    waiting = asyncio.create_task(limiter.acquire(1))

    async def slots(number: int) -> bool:
        return int(await client.zcard(key)) == number

    await wait_until(lambda: slots(2), what="the second slot")

    async def given_back() -> bool:
        waiting.cancel()  # again and again: the Redis client can lose a cancellation
        return await slots(1)

    await wait_until(given_back, what="the slot to come back")
    await asyncio.gather(waiting, return_exceptions=True)


async def test_answer_that_came_too_late_is_no_leave(
    client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped while Redis answered asks again instead of leaving late."""
    limiter = RedisLimiter(client, queue=f"test-{secrets.token_hex(6)}", settings=small(rate_limit=100))
    await limiter.acquire(1)
    real, asked = limiter._run, 0

    async def slow_run(what: str, *args: str | float) -> tuple[int, int]:
        nonlocal asked
        asked += 1
        answer = await real(what, *args)
        if asked == 1:
            await asyncio.sleep(0.4)
        return answer

    monkeypatch.setattr(limiter, "_run", slow_run)
    leave_by = await limiter.acquire(1)
    assert (asked, leave_by >= time.monotonic()) == (2, True)


async def test_nothing_leaves_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis the limiter stays closed and in the end reports QUEUE_UNAVAILABLE."""
    monkeypatch.setattr(limits, "CLOSED_SECONDS", 0.2)
    limiter = RedisLimiter(connect("redis://127.0.0.1:1/0"), queue="none", settings=small())
    with pytest.raises(JobFailedError) as caught:
        await asyncio.wait_for(limiter.acquire(1), 10)
    assert caught.value.code is ErrorCode.QUEUE_UNAVAILABLE


async def test_line_that_is_too_long_is_rate_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn beyond the longest wait is reported with the wait, so that the job comes back when it may succeed."""
    monkeypatch.setattr(limits, "LONGEST_WAIT_SECONDS", 5.0)
    limiter = RedisLimiter(
        fakeredis.FakeAsyncRedis(), queue="q", settings=small(rate_limit=1, rate_window_seconds=60)
    )
    await limiter.acquire(1)
    with pytest.raises(JobFailedError) as caught:
        await asyncio.wait_for(limiter.acquire(1), 5)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    assert 55 < (caught.value.retry_after_seconds or 0) <= 60.6


# Redis crashes


@pytest.fixture(params=["wheel", "local"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A real server of each kind, which the test may kill."""
    binary = redis_binaries().get(request.param)
    if binary is None:
        missing_redis(request.param)
    made = RedisServer(str(binary), tmp_path / "redis")
    made.start()
    yield made
    made.kill()


async def all_written(client: redis.asyncio.Redis) -> None:
    """While its file is being synced Redis puts writes off, for up to two seconds."""

    async def written() -> bool:
        return not (await client.info("persistence"))["aof_buffer_length"]

    await wait_until(written, seconds=15, what="the append-only file to have all")


@pytest.fixture
async def old_log(server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of a server that is `limit:state`'s run, with one entry in the log of 1000 a minute."""
    made = connect(server.url)
    await RedisLimiter(made, queue="test", settings=EmbeddingSettings()).acquire(1)
    await made.delete(f"{PREFIX}limit:requests")
    await all_written(made)
    yield made
    await made.aclose()


async def entries(client: redis.asyncio.Redis) -> int:
    await RedisLimiter(client, queue="test", settings=EmbeddingSettings()).acquire(1)
    return int(await client.zcard(f"{PREFIX}limit:requests"))


async def test_same_redis_is_believed(old_log: redis.asyncio.Redis) -> None:
    """No crash, no assumption."""
    assert await entries(old_log) == 1


async def test_lost_tail_is_assumed_to_have_left(server: RedisServer, old_log: redis.asyncio.Redis) -> None:
    """After a restart the log has what the lost seconds can have held, once; and the limit is open at once."""
    server.kill()
    server.start()
    asked = time.monotonic()
    assert await entries(old_log) == 248 + 1
    assert time.monotonic() - asked < 1.5, "expected nobody to wait for what was assumed"
    assert await entries(old_log) == 248 + 2


async def test_replica_that_was_promoted_is_another_redis(
    server: RedisServer, old_log: redis.asyncio.Redis, tmp_path: Path
) -> None:
    """After a failover the new master's log may lack what was not replicated yet: the same assumption."""
    replica = RedisServer(server.binary, tmp_path / "replica")
    replica.start()
    client = connect(replica.url)
    try:
        await client.execute_command("REPLICAOF", "127.0.0.1", str(server.port))

        async def caught_up() -> bool:
            return bool(await client.exists(f"{PREFIX}limit:state"))

        await wait_until(caught_up, seconds=15, what="the replica to have the log")
        server.kill()
        await client.execute_command("REPLICAOF", "NO", "ONE")
        assert await entries(client) == 248 + 1
    finally:
        await client.aclose()
        replica.kill()


async def test_nothing_is_assumed_when_the_newest_slot_is_yet_to_come(
    server: RedisServer, old_log: redis.asyncio.Redis
) -> None:
    """What was lost came after the newest entry that was kept; if that has not left, nor has it."""
    seconds, _ = await old_log.time()
    await old_log.zadd(f"{PREFIX}limit:requests", {"future:1": (int(seconds) + 3) * 1000})
    await all_written(old_log)
    server.kill()
    server.start()
    assert await entries(old_log) == 2


async def test_redis_without_append_only_file_is_closed_for_a_window(
    server: RedisServer, old_log: redis.asyncio.Redis
) -> None:
    """It may have lost the whole log: nothing leaves until what had left is a window old."""
    server.kill()
    server.start("--appendonly", "no")
    script = old_log.register_script(script_text("limit"))
    args = ["leave", 60_500, 1000, LONGEST_MS, "a:1", LATE_MS, 0]
    wait, lost = await script(keys=[PREFIX], args=args)
    assert 50_000 < wait <= 60_500
    assert lost == 1000


# What is in flight


async def test_gate_bounds_batches_and_tokens() -> None:
    """At most three batches and a third of the budget are held; a batch above it is let in alone; peaks are seen."""
    gate = BatchGate(concurrency=3, token_budget=1000)
    most = [0, 0]
    held: list[int] = []

    async def work(tokens: int) -> None:
        async with gate.hold(tokens):
            held.append(tokens)
            most[:] = [max(most[0], len(held)), max(most[1], sum(held) if len(held) > 1 else 0)]
            await asyncio.sleep(0.001)
            held.remove(tokens)

    await asyncio.wait_for(asyncio.gather(*(work(tokens) for tokens in [100, 150, 200, 900, 50] * 8)), 5)
    assert most[0] == 3
    assert 200 <= most[1] <= 330
    assert gate.take_peak_pct() == 90.0
    assert (gate.take_peak_pct(), gate.used_pct) == (0.0, 0.0)


async def test_gate_is_fair() -> None:
    """A large batch is not passed by small ones that would fit beside what is held."""
    gate = BatchGate(concurrency=3, token_budget=1000)
    order: list[int] = []

    async def work(tokens: int) -> None:
        async with gate.hold(tokens):
            order.append(tokens)
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asyncio.gather(*(work(tokens) for tokens in [200, 300, 10, 20])), 5)
    assert order == [200, 300, 10, 20]


async def test_cancelled_waiter_does_not_block_the_gate() -> None:
    """Waiters that give up, before or in the instant of their turn, leave room for the others."""
    gate = BatchGate(concurrency=1, token_budget=1000)
    async with gate.hold(10):
        waiters = [asyncio.create_task(gate.hold(10).__aenter__()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
    # The first in line is gone; the second may be admitted just now and is cancelled in the same instant.
    waiters[1].cancel()
    await asyncio.gather(*waiters[:2], return_exceptions=True)
    await asyncio.wait_for(waiters[2], 1)
