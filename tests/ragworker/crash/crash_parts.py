"""Worker processes that are killed, and the witnesses of what they did; `conftest.py` makes fixtures of them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from core_parts import new_job

from ragworker.job import JobState
from ragworker.queue import Queue
from ragworker.settings import Settings

NAP_WORKER = Path(__file__).with_name("nap_worker.py")

#: How often a worker is killed at a random moment: a few in CI, 59 for the 95th percentile.
KILLS = int(os.environ.get("RAG_CRASH_KILLS", "5"))


def within(seconds: float) -> float:
    """A bound that holds on a machine which is not busy, stretched by how far it is."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def told(name: str, **figures: object) -> None:
    """Figures to quote, for `pytest -s`."""
    words = ", ".join(
        f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in figures.items()
    )
    print(f"\ncrash: {name}: {words} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)]


@dataclass
class Stand:
    """One queue, its worker processes, and what they left behind."""

    folder: Path
    redis_url: str
    environ: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.environ = {
            "REDIS_URL": self.redis_url,
            "RAG_QUEUE": f"crash-{secrets.token_hex(6)}",
            "RAG_WORKER_CONCURRENCY": "8",
            "NAP_FOLDER": str(self.folder),
            "NAP_SECONDS": "0.05",
            **self.environ,
        }

    @property
    def settings(self) -> Settings:
        return Settings.load(self.environ)

    def start(self, program: Sequence[str] = (str(NAP_WORKER),), **environ: str) -> subprocess.Popen[bytes]:
        """A worker in a process group of its own."""
        with (self.folder / f"worker-{len(self.processes)}.log").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, *program],
                env={**os.environ, **self.environ, **environ},
                stderr=stderr,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                kill_group(process)

    # Witnesses

    def effects(self) -> list[tuple[str, int, str, int]]:
        """Every effect, in order: job id, fence, worker, ns."""
        if not (self.folder / "effects.db").exists():
            return []
        with closing(sqlite3.connect(self.folder / "effects.db", timeout=20)) as database:
            try:
                return list(database.execute("select * from effects order by at_ns"))
            except sqlite3.OperationalError:  # the first worker has not made the table yet
                return []

    def began(self) -> list[tuple[str, int]]:
        """Every body that began: job id, process id."""
        log = self.folder / "log"
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        return [(line.split()[1], int(line.split()[4])) for line in lines]

    def ran_again(self) -> int:
        """Bodies that began beyond the first of their job."""
        return sum(count - 1 for count in Counter(job_id for job_id, _ in self.began()).values())

    def logged(self, event: str) -> list[dict[str, object]]:
        """Lines of all workers' logs with this event."""
        found = []
        for log in sorted(self.folder.glob("worker-*.log")):
            lines = [line for line in log.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
            found += [line for line in map(json.loads, lines) if line["message"] == event]
        return found


def kill_group(process: subprocess.Popen[bytes]) -> float:
    """SIGKILL to a worker and all that it started; the moment."""
    os.killpg(process.pid, signal.SIGKILL)
    at = time.time()
    process.wait(10)
    return at


async def hand_in(queue: Queue, count: int, *, name: str = "nap") -> list[str]:
    """Jobs with a key each."""
    answers = await queue.submit_many(new_job(f"{name}-{secrets.token_hex(4)}-{n}") for n in range(count))
    return [answer.job_id for answer in answers]


async def worker_of(queue: Queue, process: subprocess.Popen[bytes], *, seconds: float = 20) -> str:
    """The name of the worker in a process, once it has said so."""
    client, deadline = queue._redis, time.monotonic() + seconds
    while time.monotonic() < deadline:
        async for key in client.scan_iter(match=f"{queue.prefix}workers:*"):
            if await client.hget(key, "pid") == str(process.pid).encode():
                return key.decode().removeprefix(f"{queue.prefix}workers:")
        await asyncio.sleep(0.01)
    raise AssertionError(f"process {process.pid} did not come up within {seconds} s")


async def held_by(queue: Queue, worker: str) -> list[str]:
    """Ids of the jobs that a worker holds."""
    return [job_id.decode() for job_id in await queue._redis.hkeys(f"{queue.prefix}claimed:{worker}")]


async def all_done(queue: Queue, ids: Iterable[str], *, seconds: float) -> float:
    """The moment at which the last of these jobs was done; fails when that takes longer than `seconds`."""
    deadline, left = time.monotonic() + seconds, list(ids)
    while True:
        async with queue._redis.pipeline(transaction=False) as pipe:
            for job_id in left:
                pipe.hget(f"{queue.prefix}job:{job_id}", "state")
            states = await pipe.execute()
        left = [job_id for job_id, state in zip(left, states, strict=True) if state != JobState.DONE.encode()]
        if not left:
            return time.time()
        assert time.monotonic() < deadline, f"{len(left)} jobs not done within {seconds} s: {set(states)}"
        await asyncio.sleep(0.01)
