"""The rate limit and the ledger over real processes, told by the embedding API's own log (spec B2, B4)."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from core_parts import Lane, ended, missing_redis, redis_binaries, submit, wait_until

from ragworker.queue import Queue
from ragworker.worker import Worker

BENCH = Path(__file__).parents[3] / "bench" / "rate_limit.py"


def pressed(fault: str, *, seconds: float) -> dict[str, Any]:
    """Four processes that always want to send, 50 in any 3 s: the figures of `bench/rate_limit.py`."""
    binaries = redis_binaries()
    if not binaries:
        missing_redis("any")
    minutes, binary = str(seconds / 60), next(iter(binaries.values()))
    words = [
        "--minutes",
        minutes,
        "--limit",
        "50",
        "--window",
        "3",
        "--fault",
        fault,
        "--redis",
        binary,
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, str(BENCH), *words],
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["processes"] == 4
    assert found["most_in_any_window"] <= 50, found
    return found


def test_four_processes_use_the_limit_and_never_more() -> None:
    """Nearly all of what windows of 3 s and their slack can have, shared evenly; nobody waits for long."""
    found = pressed("none", seconds=16)
    # 3 of every 3.5 s are 86 %; a slot that a busy machine misses is lost.
    assert found["utilisation"] > 0.75, found
    assert found["fairness"] > 0.6, found
    assert found["longest_wait_seconds"] < 8, found


def test_redis_that_lost_its_last_second_lets_no_more_leave() -> None:
    """Redis is killed in a burst and comes back without the last second of its log."""
    found = pressed("restart", seconds=16)
    assert found["requests"] > 100, found


def test_stopped_process_sends_nothing_late() -> None:
    """A process that was stopped on its way to the API asks for another turn when it goes on."""
    found = pressed("stop", seconds=15)
    assert found["requests"] > 150, found


def test_refusing_api_sees_few_requests_and_the_rate_comes_back() -> None:
    """429 to everybody for a while: 4 processes with 12 lanes send a handful, and afterwards come back."""
    found = pressed("refuse", seconds=30)
    # Those in flight when it began, then one after each pause of 1, 2, 4 s and a few beside it.
    assert 1 <= found["answered_429"] <= 30, found
    assert found["requests_after_refusal"] > 40, found


@pytest.mark.anyio
async def test_tokens_and_cost_are_counted_once_per_paid_request(
    lane: Lane, lane_queue: Queue, start: list[Worker]
) -> None:
    """Over retries and several jobs: what the API answered by 200 is in the ledger, and nothing else."""
    answers = iter([500, 200, 429, 200, 500])

    def answer(inputs: list[str]) -> tuple[int, dict[str, str], object]:
        status = next(answers, 200)
        if status == 200:
            paid.append(sum(math.ceil(len(text.split()) * 1.3) for text in inputs))
            return lane.embedding.vectors(inputs)
        return status, {"Retry-After": "0.1"}, {}

    paid: list[int] = []
    lane.embedding.answer = answer
    views = await ended(lane_queue, await submit(lane_queue, 3))
    assert sum(view.attempt for view in views.values()) == 6

    async def all_counted() -> bool:
        stats = (await lane_queue.gauges()).stats
        return stats.get("embedding_requests:200") == len(paid)

    await wait_until(all_counted, what="the heartbeat to flush")
    stats = (await lane_queue.gauges()).stats
    assert stats["embedding_tokens"] == sum(paid)
    price = lane.settings.embedding.price_per_million_tokens
    assert stats["embedding_cost_usd"] == pytest.approx(sum(paid) * price / 1e6)
    assert (stats["embedding_requests:500"], stats["embedding_requests:429"]) == (2, 1)
