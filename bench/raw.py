"""The raw limit: redis.asyncio alone on a stream, in batches of 100; one connection, 84-byte bodies, no job body.

A process of its own, like every variant: `python -m bench.raw`, told by BENCH_STAGE. Writes raw.json: jobs a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import redis.asyncio

from bench.peers.stage import STAGE

BATCH = 100
BODY = b"x" * 84
STREAM, GROUP, CONSUMER = "raw", "bench", "one"


async def measure(jobs: int) -> dict[str, float]:
    """Enqueue `jobs`, then read, acknowledge and delete them."""
    async with redis.asyncio.Redis.from_url(STAGE.url, single_connection_client=True) as client:
        await client.xgroup_create(STREAM, GROUP, mkstream=True)
        began = time.perf_counter()
        for _ in range(jobs // BATCH):
            pipe = client.pipeline(transaction=False)
            for _ in range(BATCH):
                pipe.xadd(STREAM, {b"body": BODY})
            await pipe.execute()
        enqueued = time.perf_counter()
        left = jobs // BATCH * BATCH
        while left:
            answer = await client.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=BATCH)
            ids = [entry_id for _, entries in _streams(answer) for entry_id, _ in entries]
            pipe = client.pipeline(transaction=False)
            pipe.xack(STREAM, GROUP, *ids)
            pipe.xdel(STREAM, *ids)
            await pipe.execute()
            left -= len(ids)
        consumed = time.perf_counter()
    return {"raw_enqueue_per_s": jobs / (enqueued - began), "raw_consume_per_s": jobs / (consumed - enqueued)}


def _streams(answer: object) -> list[tuple[object, list[tuple[object, object]]]]:
    # A dictionary in newer clients, a list of pairs in older ones.
    return list(answer.items()) if isinstance(answer, dict) else list(answer)  # type: ignore[call-overload] # untyped client


if __name__ == "__main__":
    figures = asyncio.run(measure(sum(phase["jobs"] for phase in STAGE.phases)))
    Path(STAGE.out, "raw.json").write_text(json.dumps(figures), encoding="utf-8")
