"""One process of `rate_limit.py`: wants to send all the time, through the real limiter and client, until SIGTERM.

Its last line says how it went: {"longest_wait": seconds, "ends": {"ok" or an error code: how often}}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from ragworker.connection import connect
from ragworker.embedding import EmbeddingClient
from ragworker.errors import ErrorCode, JobFailedError
from ragworker.limits import RedisLimiter
from ragworker.settings import EmbeddingSettings
from ragworker.stats import Stats


class _TimedLimiter(RedisLimiter):
    """The real limiter, which also remembers the longest wait."""

    longest_seconds = 0.0

    async def acquire(self, tokens: int) -> float:
        asked = time.monotonic()
        leave_by = await super().acquire(tokens)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - asked)
        return leave_by


async def press(options: argparse.Namespace) -> None:
    """Want to send all the time until SIGTERM; then say on stdout how it went."""
    settings = EmbeddingSettings(
        url=options.embedding,
        api_key=options.key,
        rate_limit=options.limit,
        rate_window_seconds=options.window,
        concurrency=options.concurrency,
    )
    client = connect(options.redis_url)
    limiter = _TimedLimiter(client, queue="bench", settings=settings)
    ends: Counter[str] = Counter()

    async def send() -> None:
        while True:
            try:
                await embedder.embed(["one two three"], tokens=4)
            except JobFailedError as failure:
                ends[failure.code] += 1
                if failure.code is not ErrorCode.RATE_LIMITED:
                    await asyncio.sleep(0.1)
            else:
                ends["ok"] += 1

    with ThreadPoolExecutor(1) as threads:
        embedder = EmbeddingClient(settings, stats=Stats(), threads=threads, limiter=limiter)
        lanes = [asyncio.ensure_future(send()) for _ in range(options.concurrency)]
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        while lanes:  # again and again, because the Redis client can lose a cancellation
            for lane in lanes:
                lane.cancel()
            _, left = await asyncio.wait(lanes, timeout=0.1)
            lanes = list(left)
        await embedder.close()
    await client.aclose()
    sys.stdout.write(json.dumps({"longest_wait": limiter.longest_seconds, "ends": ends}) + "\n")


def main() -> None:
    """Read the options, press."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--redis-url", "--embedding", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--limit", type=int, required=True)
    parser.add_argument("--window", type=float, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    asyncio.run(press(parser.parse_args()))


if __name__ == "__main__":
    main()
