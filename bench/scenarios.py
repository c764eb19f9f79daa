"""What is done with a variant, and which figures come of it, with details for the record."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import crash
from bench.figures import Figure, drain_rate, percentile
from bench.stand import Stand, UnmeasuredError, memory_mb
from bench.variants import Scenario

WARM_JOBS = 50
"""Handed in before a producer is timed: connections, scripts and caches are there."""

LEAST_JOBS = 200
MORE = {"fifty": 2, "bulk": 4}
"""Faster ways to submit get more jobs, so that each is timed for long enough."""

RAW_JOBS = 20_000
DRAIN_SECONDS = 60.0
READY_SECONDS = 30.0
IDLE_SECONDS = 2.0
"""How long a worker has been idle when its memory is read."""

RATE = 100
RATED_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures by name, and details for the raw record."""

    figures: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


def raw(stand: Stand, _: int) -> Measured:
    """The limit of the client on this machine."""
    stand.wait_for(
        stand.spawn([sys.executable, "-m", "bench.raw"], "raw", phases=({"jobs": RAW_JOBS},)), DRAIN_SECONDS
    )
    return Measured(json.loads(Path(stand.out, "raw.json").read_text(encoding="utf-8")))


def submit(stand: Stand, jobs: int) -> Measured:
    """Jobs a second that one producer hands in: one after another, 50 at once, in bulk."""
    modes = {"one": Figure.SUBMIT_ONE}
    if stand.variant.asyncio:
        modes["fifty"] = Figure.SUBMIT_FIFTY
    if stand.variant.bulk:
        modes["bulk"] = Figure.SUBMIT_BULK
    phases = [{"mode": "one", "first": 1, "jobs": WARM_JOBS}]
    count = max(LEAST_JOBS, jobs // 2)
    for position, mode in enumerate(modes, start=1):
        phases.append({"mode": mode, "first": 1 + position * 1_000_000, "jobs": count * MORE.get(mode, 1)})
    results = stand.hand_in(*phases)[1:]
    return Measured({modes[done["mode"]]: done["jobs"] / done["seconds"] for done in results})


def drain_1(stand: Stand, jobs: int) -> Measured:
    """Jobs a second that one worker runs."""
    return _drain(stand, jobs, workers=1, figure=Figure.DRAIN_1)


def drain_2(stand: Stand, jobs: int) -> Measured:
    """The same with two; twice the jobs."""
    return _drain(stand, 2 * jobs, workers=2, figure=Figure.DRAIN_2)


def _drain(stand: Stand, jobs: int, *, workers: int, figure: Figure) -> Measured:
    jobs = max(LEAST_JOBS, round(jobs * stand.variant.share))
    stand.hand_in({"mode": "fill", "first": 1, "jobs": jobs})
    redis_before = stand.redis_cpu_seconds()
    for number in range(workers):
        stand.start("work", worker=number)
    stand.until(lambda: stand.count() >= jobs, DRAIN_SECONDS, f"end of {jobs} jobs")
    redis_us = (stand.redis_cpu_seconds() - redis_before) * 1e6 / jobs
    lines = stand.lines()
    if len({line.job for line in lines}) != jobs:
        raise UnmeasuredError(f"{stand.name}: {len(lines)} jobs were run, but not each of the {jobs}")
    try:
        rate = drain_rate((line.worker, line.job, line.at_ns) for line in lines)
    except ValueError as error:
        raise UnmeasuredError(f"{stand.name}: {error}") from None
    return Measured({figure: rate}, {"jobs": jobs, "redis_cpu_us_per_job": round(redis_us, 2)})


def latency(stand: Stand, _: int) -> Measured:
    """Milliseconds from submit to start at 100 jobs a second for 10 s, and the worker's memory before it."""
    worker = stand.start("work")
    stand.hand_in({"mode": "one", "first": 0, "jobs": 1})
    stand.until(lambda: stand.count() == 1, READY_SECONDS, "first job")
    time.sleep(IDLE_SECONDS)
    memory = memory_mb(worker)
    jobs = RATE * RATED_SECONDS
    stand.hand_in({"mode": "paced", "first": 1, "jobs": jobs, "rate": RATE})
    stand.until(lambda: stand.count() > jobs, READY_SECONDS, f"end of {jobs} jobs")
    waits_ms = [round((line.at_ns - line.sent_ns) / 1e6, 4) for line in stand.lines() if line.job]
    figures = {
        Figure.START_P50: percentile(waits_ms, 50),
        Figure.START_P99: percentile(waits_ms, 99),
        Figure.IDLE_RSS: memory,
    }
    return Measured(figures, {"waits_ms": waits_ms})


def idle(stand: Stand, _: int) -> Measured:
    """Memory of the real `ragworker worker`, idle."""
    worker = stand.spawn_ragworker()
    worker.wait_event("worker.ready", READY_SECONDS)
    time.sleep(IDLE_SECONDS)
    return Measured({Figure.IDLE_RSS: memory_mb(worker)})


RUN: dict[Scenario, Callable[[Stand, int], Measured]] = {
    Scenario.RAW: raw,
    Scenario.SUBMIT: submit,
    Scenario.DRAIN_1: drain_1,
    Scenario.DRAIN_2: drain_2,
    Scenario.LATENCY: latency,
    Scenario.IDLE: idle,
    Scenario.CRASH: lambda stand, _: Measured(*crash.measure(stand)),
}
