"""Crash: 200 jobs of 50 ms, 8 at once; half-way the whole process group of a worker is killed with jobs in mid-body.

Once a new worker is started at once, once another one has been running all along. A job's `E` line stands for its
effect: a job without one was lost, with two it had its effect twice. A file cannot refuse a second effect; ragworker's
SQL transaction does, which this scenario does not use (tests/ragworker has the crash suite on the real store).
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import Any

from bench.peers.stage import ENDED, STARTED
from bench.stand import Stand, UnmeasuredError

JOBS = 200
BODY_SECONDS = 0.05
AT_ONCE = 8
WINDOW_SECONDS = 20.0
UP_SECONDS = 30.0
TRICKLE_FIRST = 1_000_000
TRICKLE_RATE = 5


def measure(stand: Stand) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and details of both ways."""
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for way in ("new", "running"):
        found = _once(stand, way)
        details[way] = found
        figures[f"crash_{way}_lost"] = found["lost"]
        if found["seconds"] is not None:
            figures[f"crash_{way}_s"] = found["seconds"]
        figures[f"crash_{way}_again"] = found["again"]
        figures[f"crash_{way}_twice"] = found["twice"]
    return figures, details


def _once(stand: Stand, way: str) -> dict[str, Any]:
    stand.client.flushall()
    stand.forget_lines()
    told = {"concurrency": AT_ONCE, "body_seconds": BODY_SECONDS, "crash": True}
    stand.hand_in({"mode": "one", "first": 1, "jobs": JOBS}, **told)
    workers = [stand.start("work", worker=number, **told) for number in range(2 if way == "running" else 1)]
    stand.until(
        lambda: _ends(stand) >= JOBS // 2 and len(_busy(stand)) == len(workers),
        UP_SECONDS,
        "half of the jobs",
    )
    stand.kill(workers[0])
    killed_ns = time.time_ns()
    if way == "new":
        workers.append(stand.start("work", worker=1, **told))
    if stand.variant.trickle:
        jobs = int(TRICKLE_RATE * WINDOW_SECONDS)
        phase = {"mode": "paced", "first": TRICKLE_FIRST, "jobs": jobs, "rate": TRICKLE_RATE}
        stand.start("submit", worker=9, phases=(phase,), **told)
    with contextlib.suppress(UnmeasuredError):
        stand.until(lambda: _ends(stand) >= JOBS, WINDOW_SECONDS, "end of all jobs")
    found = _counted(stand, killed_ns)
    stand.end_all()
    return found


def _counted(stand: Stand, killed_ns: int) -> dict[str, Any]:
    lines = [line for line in stand.lines() if 0 < line.job < TRICKLE_FIRST]
    started = Counter(line.job for line in lines if line.kind == STARTED)
    ended: dict[int, int] = {}
    for line in lines:
        if line.kind == ENDED:
            ended[line.job] = min(line.at_ns, ended.get(line.job, line.at_ns))
    twice = Counter(line.job for line in lines if line.kind == ENDED)
    lost = JOBS - len(ended)
    return {
        "lost": lost,
        "again": sum(count > 1 for count in started.values()),
        "twice": sum(count > 1 for count in twice.values()),
        "seconds": None if lost else (max(ended.values()) - killed_ns) / 1e9,
        "killed_after_jobs": sum(at < killed_ns for at in ended.values()),
    }


def _ends(stand: Stand) -> int:
    return len({line.job for line in stand.lines() if line.kind == ENDED and 0 < line.job < TRICKLE_FIRST})


def _busy(stand: Stand) -> set[int]:
    return {line.worker for line in stand.lines()}
