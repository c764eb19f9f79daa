"""Hold embedding requests back until they may leave: rate limits (spec B2, B2b) and what is in flight (B3, B5).

The promise: in no window of `rate_window_seconds` do more than `rate_limit` requests leave, whatever the number
of processes. The log of departures lives in Redis on Redis' clock (`lua/limit.lua`). A request departs a little
after its slot; if that lateness varied freely, slots spaced correctly could still bunch on the wire. So slots are
spaced by the window plus SLACK_SECONDS, and a slot that could not be used within half the slack (a busy process, a
pause) is thrown away: any lateness between 0 and the slack keeps the promise, and half of it is left for the
network. When Redis cannot be asked, nothing leaves.

A reservation is for one departure: nobody polls, nobody stampedes when the window moves, and whoever asked first
leaves first.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import redis
import redis.asyncio

from ragworker.errors import ErrorCode, JobFailedError
from ragworker.queue import script_text
from ragworker.settings import EmbeddingSettings

#: Lateness between a slot and its departure that never breaks the promise.
SLACK_SECONDS: Final = 0.5

#: A caller waits this long for its turn and then reports RATE_LIMITED, so that its job gives others room.
LONGEST_WAIT_SECONDS: Final = 600.0

#: Slots are not reserved further ahead; beyond that one asks again later.
LONGEST_RESERVATION_SECONDS: Final = 120.0

#: While Redis is away a caller keeps asking for this long, then reports QUEUE_UNAVAILABLE.
CLOSED_SECONDS: Final = 60.0

#: In-flight batches hold at most this share of the token budget: below the 35 % of the SLA (H5).
TOKEN_SHARE: Final = 0.33


class Limiter(Protocol):
    """Lets one embedding request leave at a time that keeps the promise."""

    async def acquire(self, tokens: int) -> None:
        """Return when a request of `tokens` tokens may leave, at once. JobFailedError when it never may."""
        ...


@dataclass(frozen=True, slots=True)
class Departure:
    """One entry of the log: when (ms) and how heavy (tokens)."""

    at_ms: int
    tokens: int


def next_departure(
    log: deque[Departure], *, now_ms: int, window_ms: int, requests: int, tokens: int, token_limit: int
) -> int:
    """The earliest moment (ms) for one more departure; what `lua/limit.lua` computes. `log` is in time order.

    Entries at least a window old are dropped from `log`. `token_limit` 0 means none.
    """
    while log and log[0].at_ms <= now_ms - window_ms:
        log.popleft()
    at_ms = max(now_ms, log[-1].at_ms) if log else now_ms
    if len(log) >= requests:
        at_ms = max(at_ms, log[-requests].at_ms + window_ms + 1)
    total = tokens
    for entry in reversed(log) if token_limit else ():
        total += entry.tokens
        if total > token_limit:
            return max(at_ms, entry.at_ms + window_ms + 1)
    return at_ms


class RedisLimiter:
    """The limit shared by all processes of a queue."""

    def __init__(self, client: redis.asyncio.Redis, *, queue: str, settings: EmbeddingSettings) -> None:
        self._prefix = f"{{rag:{queue}}}:"
        self._redis = client
        self._settings = settings
        self._script: Any = client.register_script(script_text("limit"))
        self._window_ms = round((settings.rate_window_seconds + SLACK_SECONDS) * 1000)
        self._returns: set[asyncio.Task[None]] = set()

    async def acquire(self, tokens: int) -> None:
        """See Limiter. QUEUE_UNAVAILABLE after a minute without Redis, RATE_LIMITED after ten without a slot."""
        started = answered = time.monotonic()
        pause = 0.05
        while time.monotonic() - started < LONGEST_WAIT_SECONDS:
            member, asked = secrets.token_hex(8), time.monotonic()
            try:
                wait = await self._reserve(member, tokens) / 1000
            except asyncio.CancelledError:
                # The answer was not heard, but the slot may be taken.
                self._return_slot(member, tokens)
                raise
            except (redis.RedisError, OSError) as error:
                if time.monotonic() - answered > CLOSED_SECONDS:
                    raise JobFailedError(
                        ErrorCode.QUEUE_UNAVAILABLE,
                        "the rate limit in Redis cannot be read: nothing may leave",
                    ) from error
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
                pause = min(2 * pause, 2.0)
                continue
            answered, pause = time.monotonic(), 0.05
            if wait < 0:
                # The line is longer than may be reserved: come back when it has moved, not all at once.
                await asyncio.sleep(min(-wait, 5.0) * random.uniform(0.5, 1.0))  # noqa: S311  jitter
                continue
            if await self._wait(member, tokens, wait, asked):
                return
        raise JobFailedError(
            ErrorCode.RATE_LIMITED, f"no slot below the rate limit in {LONGEST_WAIT_SECONDS:g} s"
        )

    async def _reserve(self, member: str, tokens: int) -> float:
        settings = self._settings
        longest_ms = round(LONGEST_RESERVATION_SECONDS * 1000)
        args = (member, self._window_ms, settings.rate_limit, tokens, settings.token_limit, longest_ms)
        return float(await self._script(keys=[self._prefix], args=args))

    async def _wait(self, member: str, tokens: int, wait: float, asked: float) -> bool:
        """Sleep until the slot; False when it was missed. A cancelled caller gives its slot back."""
        try:
            # Counted from the answer, so never early; the script ran after `asked`, so late is seen for sure.
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            self._return_slot(member, tokens)
            raise
        return time.monotonic() - (asked + wait) <= SLACK_SECONDS / 2

    def _return_slot(self, member: str, tokens: int) -> None:
        task = asyncio.create_task(self._give_back(member, tokens))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    async def _give_back(self, member: str, tokens: int) -> None:
        try:
            await self._redis.zrem(f"{self._prefix}limit:requests", member)
            await self._redis.zrem(f"{self._prefix}limit:tokens", f"{member}:{tokens}")
        except (redis.RedisError, OSError):
            pass  # a slot is wasted; the promise holds


class LocalLimiter:
    """The same promise for one process, without Redis: for background jobs."""

    def __init__(self, settings: EmbeddingSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._window_ms = round((settings.rate_window_seconds + SLACK_SECONDS) * 1000)
        self._log: deque[Departure] = deque()

    async def acquire(self, tokens: int) -> None:
        """See Limiter. Never fails."""
        while True:
            now_ms = round(self._clock() * 1000)
            at_ms = next_departure(
                self._log,
                now_ms=now_ms,
                window_ms=self._window_ms,
                requests=self._settings.rate_limit,
                tokens=tokens,
                token_limit=self._settings.token_limit,
            )
            self._log.append(Departure(at_ms, tokens))
            await asyncio.sleep((at_ms - now_ms) / 1000)
            if self._clock() - at_ms / 1000 <= SLACK_SECONDS / 2:
                return


class BatchGate:
    """What one process holds in flight: at most `concurrency` batches (B3) and a share of the token budget (H5)."""

    def __init__(self, *, concurrency: int, token_budget: int) -> None:
        self._concurrency = concurrency
        self._budget = token_budget
        self._ceiling = max(1, int(token_budget * TOKEN_SHARE))
        self._batches = 0
        self._tokens = 0
        self._peak = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, tokens: int) -> AsyncIterator[None]:
        """Wait, in line, until a batch of `tokens` may be held; hold it for the block. One always fits."""
        await self._enter(tokens)
        try:
            yield
        finally:
            self._leave(tokens)

    async def _enter(self, tokens: int) -> None:
        if not self._line and self._fits(tokens):
            self._book(tokens)
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append((tokens, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # Admitted in the same instant in which it was cancelled: the place goes to the next.
                self._leave(tokens)
            else:
                self._line.remove((tokens, turn))
                self._admit()
            raise

    def _leave(self, tokens: int) -> None:
        self._batches -= 1
        self._tokens -= tokens
        self._admit()

    def _admit(self) -> None:
        while self._line and self._fits(self._line[0][0]):
            tokens, turn = self._line.popleft()
            if not turn.cancelled():
                self._book(tokens)
                turn.set_result(None)

    def _book(self, tokens: int) -> None:
        self._batches += 1
        self._tokens += tokens
        self._peak = max(self._peak, self._tokens)

    @property
    def used_pct(self) -> float:
        """Tokens held now, in percent of the budget."""
        return 100 * self._tokens / self._budget

    def take_peak_pct(self) -> float:
        """The most that was held since the last call, in percent of the budget."""
        peak, self._peak = self._peak, self._tokens
        return 100 * peak / self._budget

    def _fits(self, tokens: int) -> bool:
        return self._batches == 0 or (
            self._batches < self._concurrency and self._tokens + tokens <= self._ceiling
        )
