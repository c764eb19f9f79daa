"""Hold embedding requests back until they may leave: rate limits (spec B2, B2b) and what is in flight (B3, B5).

The promise: in no window of `rate_window_seconds` do more than `rate_limit` requests leave, whatever the number
of processes. The log of departures lives in Redis on Redis' clock (`lua/limit.lua`). A request departs a little
after its slot; if that lateness varied freely, slots spaced correctly could still bunch on the wire. So slots are
spaced by the window plus SLACK_SECONDS, and a slot that could not be used within half the slack (a busy or stopped
process, a slow connection) is exchanged: any lateness between 0 and the slack keeps the promise, and half of it is
left for the network. A slot is for one departure: nobody polls, nobody stampedes when the window moves, and
whoever asked first leaves first.

When Redis cannot be asked, nothing leaves. After a crash of Redis or a failover, what may be missing from the log
is assumed to have left: up to 15 s worth of the limit, or the whole limit when there is no append-only file. Two
masters at once (a partition without `min-replicas-to-write`) keep the promise each for itself only.

When the API refuses all the same (429, or 503 with Retry-After), all processes slow down together: nothing leaves
for as long as it asked, or for 1, 2, 4 ... 16 s; then one request goes ahead of the others; and half the limit is
admitted, down to 1/32 of it, of which an eighth comes back per window without refusals. Refusals of requests that
left before a decrease do not decrease again. This is additive increase, multiplicative decrease as TCP has it (RFC
5681, 3.1), which makes many senders share what there is; with a pause of at least a round trip, as
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/ asks. The configured limit is
never exceeded.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import redis
import redis.asyncio

from ragworker.errors import ErrorCode, JobFailedError
from ragworker.logs import get_logger
from ragworker.queue import script_text
from ragworker.settings import EmbeddingSettings

logger = get_logger(__name__)

#: Lateness between a slot and its arrival at the API that never breaks the promise.
SLACK_SECONDS: Final = 0.5

#: A caller waits this long for its turn and then reports RATE_LIMITED, so that its job gives others room.
LONGEST_WAIT_SECONDS: Final = 600.0

#: While Redis is away a caller keeps asking for this long, then reports QUEUE_UNAVAILABLE.
CLOSED_SECONDS: Final = 60.0

#: No single answer of the API closes the limit for longer; then one request finds out.
LONGEST_PAUSE_SECONDS: Final = 120.0

#: In-flight batches hold at most this share of the token budget: below the 35 % of the SLA (H5).
TOKEN_SHARE: Final = 0.33


class RedisLimiter:
    """The limit shared by all processes of a queue; on an in-process Redis, that of this process."""

    def __init__(self, client: redis.asyncio.Redis, *, queue: str, settings: EmbeddingSettings) -> None:
        self._prefix = f"{{rag:{queue}}}:"
        self._redis = client
        self._settings = settings
        self._script: Any = client.register_script(script_text("limit"))
        self._returns: set[asyncio.Task[Any]] = set()

    async def acquire(self, tokens: int) -> float:
        """Wait until a request of `tokens` tokens may leave; the moment of time.monotonic() until which it may.

        JobFailedError: QUEUE_UNAVAILABLE after a minute without Redis, RATE_LIMITED when its turn is ten away.
        """
        member = f"{secrets.token_hex(8)}:{tokens}"
        try:
            return await self._turn(member)
        except BaseException:
            # The slot that may be there goes back; if that fails it is wasted, and the promise holds.
            task = asyncio.ensure_future(self._give_back(member))
            self._returns.add(task)
            task.add_done_callback(self._returns.discard)
            raise

    async def slow_down(self, *, sent: float, retry_after_seconds: float | None) -> None:
        """The API refused a request that left at `sent` (time.monotonic()). Never fails: the next one will tell."""
        sent_ms = round((time.monotonic() - sent) * 1000)
        pause_ms = -1.0
        if retry_after_seconds is not None:
            pause_ms = round(min(retry_after_seconds, LONGEST_PAUSE_SECONDS) * 1000)
        with suppress(redis.RedisError, OSError):
            admitted, closed_ms = await self._run("slow", sent_ms, pause_ms)
            if admitted:
                fields = {"admitted": admitted, "limit": self._settings.rate_limit, "closed_ms": closed_ms}
                logger.warning("limit.slowed", extra={"fields": fields})

    async def _turn(self, member: str) -> float:
        late_ms = round(SLACK_SECONDS * 500)
        answered = time.monotonic()
        deadline = answered + LONGEST_WAIT_SECONDS
        pause, wait = 0.05, 0.0
        while (asked := time.monotonic()) + wait < deadline:
            try:
                wait_ms, lost = await self._run("leave", member, late_ms, self._settings.token_limit)
            except (redis.RedisError, OSError) as error:
                if asked - answered > CLOSED_SECONDS:
                    message = "the rate limit in Redis cannot be read: nothing may leave"
                    raise JobFailedError(ErrorCode.QUEUE_UNAVAILABLE, message) from error
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
                pause, wait = min(2 * pause, 2.0), 0.0
                continue
            answered, pause, wait = time.monotonic(), 0.05, wait_ms / 1000
            if lost:
                logger.warning("limit.redis_changed", extra={"fields": {"assumed_sent": lost}})
            # The script ran after `asked`, so late is seen for sure.
            leave_by = asked + wait + SLACK_SECONDS / 2
            if wait > 0 and answered + wait < deadline:
                await asyncio.sleep(wait)
            elif wait <= 0 and answered <= leave_by:
                return leave_by
        raise JobFailedError(
            ErrorCode.RATE_LIMITED,
            f"no slot below the rate limit in {LONGEST_WAIT_SECONDS:g} s",
            retry_after_seconds=wait,
        )

    async def _run(self, what: str, *args: str | float) -> tuple[int, int]:
        settings = self._settings
        window_ms = round((settings.rate_window_seconds + SLACK_SECONDS) * 1000)
        longest_ms = round(LONGEST_WAIT_SECONDS * 1000)
        args = (what, window_ms, settings.rate_limit, longest_ms, *args)
        first, second = await self._script(keys=[self._prefix], args=args)
        return int(first), int(second)

    async def _give_back(self, member: str) -> None:
        with suppress(redis.RedisError, OSError):
            await self._redis.zrem(f"{self._prefix}limit:requests", member)


class BatchGate:
    """What one process holds in flight: at most `concurrency` batches (B3) and a share of the token budget (H5)."""

    def __init__(self, *, concurrency: int, token_budget: int) -> None:
        self._concurrency = concurrency
        self._budget = token_budget
        self._ceiling = max(1, int(token_budget * TOKEN_SHARE))
        self._batches = self._tokens = self._peak = 0
        self._line = asyncio.Lock()
        self._room = asyncio.Event()

    @asynccontextmanager
    async def hold(self, tokens: int) -> AsyncIterator[None]:
        """Wait, in line, until a batch of `tokens` may be held; hold it for the block. One always fits."""
        async with self._line:  # fair: only the first in line looks for room
            while self._batches and not (
                self._batches < self._concurrency and self._tokens + tokens <= self._ceiling
            ):
                self._room.clear()
                await self._room.wait()
            self._batches += 1
            self._tokens += tokens
            self._peak = max(self._peak, self._tokens)
        try:
            yield
        finally:
            self._batches -= 1
            self._tokens -= tokens
            self._room.set()

    @property
    def used_pct(self) -> float:
        """Tokens held now, in percent of the budget."""
        return 100 * self._tokens / self._budget

    def take_peak_pct(self) -> float:
        """The most that was held since the last call, in percent of the budget."""
        peak, self._peak = self._peak, self._tokens
        return 100 * peak / self._budget
