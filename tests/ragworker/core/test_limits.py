"""No window holds more than its limit, in Python and in Lua, and nothing leaves while Redis is away."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import pytest
import redis.asyncio
from core_parts import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from ragworker import limits
from ragworker.errors import ErrorCode, JobFailedError
from ragworker.limits import BatchGate, Departure, LocalLimiter, RedisLimiter, next_departure
from ragworker.connection import connect
from ragworker.queue import script_text
from ragworker.settings import EmbeddingSettings

pytestmark = pytest.mark.anyio


def assert_within(log: Sequence[Departure], *, window_ms: int, requests: int, token_limit: int) -> None:
    """In every window that starts with a departure, counts and tokens keep to the limits."""
    for i, first in enumerate(log):
        inside = [entry for entry in log[i:] if entry.at_ms <= first.at_ms + window_ms]
        assert len(inside) <= requests
        assert not token_limit or len(inside) == 1 or sum(entry.tokens for entry in inside) <= token_limit


arrivals = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 50)), min_size=1, max_size=80)


@settings(max_examples=60)
@given(arrivals, st.integers(1, 8), st.sampled_from([0, 50, 120]))
async def test_no_window_holds_more_than_the_limit(
    steps: list[tuple[int, int]], requests: int, token_limit: int
) -> None:
    """For any arrivals, request limit and token limit: departures in order, never early, never too many."""
    log: deque[Departure] = deque()
    left: list[Departure] = []
    now = 0
    for step, tokens in steps:
        now += step
        at_ms = next_departure(
            log, now_ms=now, window_ms=1000, requests=requests, tokens=tokens, token_limit=token_limit
        )
        assert at_ms >= now
        log.append(Departure(at_ms, tokens))
        left.append(log[-1])
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(left))
    assert_within(left, window_ms=1000, requests=requests, token_limit=token_limit)


@settings(max_examples=60)
@given(arrivals, st.integers(1, 8))
async def test_a_free_limit_never_delays(steps: list[tuple[int, int]], requests: int) -> None:
    """Who arrives when fewer than the limit left in the last window leaves at once."""
    log: deque[Departure] = deque()
    now = 0
    for step, tokens in steps:
        now += step
        recent = sum(entry.at_ms >= now - 1000 for entry in log)
        waits = bool(log) and log[-1].at_ms > now
        at_ms = next_departure(
            log, now_ms=now, window_ms=1000, requests=requests, tokens=tokens, token_limit=0
        )
        assert at_ms == now or recent >= requests or waits
        log.append(Departure(at_ms, tokens))


async def test_lua_agrees_with_python(client: redis.asyncio.Redis) -> None:
    """The script gives the waits that the pure function gives, for the same crowd at one moment."""
    script = client.register_script(script_text("limit"))
    prefix = f"{{rag:test-{secrets.token_hex(6)}}}:"
    log: deque[Departure] = deque()
    for number, tokens in enumerate([10, 20, 30, 40, 50] * 5):
        wait = await script(keys=[prefix], args=[f"m{number}", 60_000, 7, tokens, 130, 10**9])
        at_ms = next_departure(log, now_ms=0, window_ms=60_000, requests=7, tokens=tokens, token_limit=130)
        log.append(Departure(at_ms, tokens))
        # The script's clock runs on between calls; a wait only shrinks by that.
        assert at_ms - 5000 <= wait <= at_ms
    entries = await client.zrange(f"{prefix}limit:requests", 0, -1, withscores=True)
    weights = dict(await client.zrange(f"{prefix}limit:tokens", 0, -1, withscores=True))
    assert len(entries) == len(weights) == 25
    departures = [Departure(int(at), [10, 20, 30, 40, 50][int(name[1:]) % 5]) for name, at in entries]
    assert_within(departures, window_ms=60_000, requests=7, token_limit=130)


async def test_far_slot_is_not_reserved(client: redis.asyncio.Redis) -> None:
    """Beyond the longest reservation the caller is told to come back, and nothing is written."""
    script = client.register_script(script_text("limit"))
    prefix = f"{{rag:test-{secrets.token_hex(6)}}}:"
    assert await script(keys=[prefix], args=["a", 60_000, 1, 1, 0, 30_000]) == 0
    assert -30_001 <= await script(keys=[prefix], args=["b", 60_000, 1, 1, 0, 30_000]) < -20_000
    assert await client.zcard(f"{prefix}limit:requests") == 1


def small(**changes: float) -> EmbeddingSettings:
    values = {"rate_limit": 4, "rate_window_seconds": 0.3, **changes}
    return EmbeddingSettings(**values)


async def test_two_processes_share_one_limit(client: redis.asyncio.Redis) -> None:
    """Two limiters on one queue let 4 leave in any 0.3 s together, and the last leaves in time."""
    name, loop = f"test-{secrets.token_hex(6)}", asyncio.get_running_loop()
    pair = [RedisLimiter(client, queue=name, settings=small()) for _ in range(2)]
    departures: list[float] = []

    async def leave(limiter: RedisLimiter) -> None:
        await limiter.acquire(1)
        departures.append(loop.time())

    await asyncio.wait_for(asyncio.gather(*(leave(pair[n % 2]) for n in range(10))), 10)
    departures.sort()
    assert all(later - first > 0.3 for first, later in zip(departures, departures[4:], strict=False))


async def test_cancelled_caller_gives_its_slot_back(client: redis.asyncio.Redis) -> None:
    """A job that is cancelled while it waits for its turn leaves no hole in the line."""
    name = f"test-{secrets.token_hex(6)}"
    limiter = RedisLimiter(client, queue=name, settings=small(rate_limit=1, rate_window_seconds=30))
    await limiter.acquire(1)
    waiting = asyncio.create_task(limiter.acquire(1))
    key = f"{{rag:{name}}}:limit:requests"

    async def slots(number: int) -> bool:
        return int(await client.zcard(key)) == number

    await wait_until(lambda: slots(2), what="the second slot")
    waiting.cancel()
    await wait_until(lambda: slots(1), what="the slot to come back")


async def test_missed_slot_is_thrown_away(
    client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that comes too late for its slot (paused, busy) asks for another instead of leaving late."""
    name = f"test-{secrets.token_hex(6)}"
    limiter = RedisLimiter(client, queue=name, settings=small(rate_limit=100))
    real, slept = asyncio.sleep, []

    async def sleep_too_long(seconds: float) -> None:
        slept.append(seconds)
        await real(0.4 if len(slept) == 1 else seconds)

    monkeypatch.setattr(limits.asyncio, "sleep", sleep_too_long)
    await limiter.acquire(1)
    assert len(slept) == 2
    assert await client.zcard(f"{{rag:{name}}}:limit:requests") == 2


async def test_nothing_leaves_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis the limiter stays closed and in the end reports QUEUE_UNAVAILABLE."""
    monkeypatch.setattr(limits, "CLOSED_SECONDS", 0.2)
    limiter = RedisLimiter(connect("redis://127.0.0.1:1/0"), queue="none", settings=small())
    with pytest.raises(JobFailedError) as caught:
        await asyncio.wait_for(limiter.acquire(1), 10)
    assert caught.value.code is ErrorCode.QUEUE_UNAVAILABLE


async def test_local_limiter_keeps_the_promise_too() -> None:
    """Background jobs of one process: 4 in any 0.3 s."""
    limiter, loop = LocalLimiter(small()), asyncio.get_running_loop()
    departures: list[float] = []

    async def leave() -> None:
        await limiter.acquire(1)
        departures.append(loop.time())

    await asyncio.wait_for(asyncio.gather(*(leave() for _ in range(6))), 5)
    departures.sort()
    assert all(later - first > 0.3 for first, later in zip(departures, departures[4:], strict=False))


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
    assert most[0] <= 3
    assert most[1] <= 330
    assert gate.take_peak_pct() == 90.0
    assert (gate.take_peak_pct(), gate.used_pct) == (0.0, 0.0)


async def test_cancelled_waiter_does_not_block_the_gate() -> None:
    """Waiters that give up, before or in the instant of their turn, leave room for the others."""
    gate = BatchGate(concurrency=1, token_budget=1000)
    async with gate.hold(10):
        waiters = [asyncio.create_task(gate.hold(10).__aenter__()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
    # The first in line is gone; the second was admitted just now and is cancelled in the same instant.
    waiters[1].cancel()
    await asyncio.gather(*waiters[:2], return_exceptions=True)
    await asyncio.wait_for(waiters[2], 1)
