"""Where scenarios stand: the run's folder, its Redis, and the processes of one variant. Knows no scenario.

Every process has a session of its own and is ended with its group, by pid, also when the bench is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from bench.environments import ROOM, python_of
from bench.peers.stage import LINE_BYTES, VARIABLE, Stage
from bench.variants import Variant
from readiness.errors import HarnessFailure
from readiness.stack.processes import ManagedProcess, clean_environment, spawn
from readiness.stack.redis import RedisServer

POLL_SECONDS = 0.02
"""How often files are looked at: no more than a stat of each."""

HAND_IN_SECONDS = 120.0
"""The slowest producer hands in 4,000 jobs in about 2 s here."""

SETTLE_SECONDS = 10.0
"""How long Redis may take to end a rewrite of its append-only file before the next measurement."""


class UnmeasuredError(Exception):
    """A variant did not do what a scenario needs: there is no value, and the message says why."""


@dataclass(frozen=True, slots=True)
class Begun:
    """One line that a job wrote when it began or ended."""

    kind: bytes
    worker: int
    job: int
    sent_ns: int
    at_ns: int


class Stand:
    """One variant in one scenario: a folder of its own, an empty Redis, processes that end with it."""

    def __init__(self, run: Path, server: RedisServer, variant: Variant, name: str) -> None:
        self.variant = variant
        self.name = name
        self.out = run / "lines" / name
        self.client = redis.Redis.from_url(server.url, socket_timeout=SETTLE_SECONDS)
        self._run = run
        self._url = server.url
        self._processes: list[ManagedProcess] = []

    def __enter__(self) -> Stand:
        self.out.mkdir(parents=True)
        self._empty_redis()
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()
        with contextlib.suppress(redis.RedisError):
            self.client.flushall()
        self.client.close()

    def hand_in(self, *phases: dict[str, Any], **told: Any) -> list[dict[str, Any]]:
        """Run a producer to its end; what each phase took. UnmeasuredError when it fails."""
        self.wait_for(self.start("submit", phases=phases, **told), HAND_IN_SECONDS)
        results: list[dict[str, Any]] = json.loads((self.out / "submitted.json").read_text(encoding="utf-8"))
        return results

    def start(self, role: str, *, worker: int = 0, **told: Any) -> ManagedProcess:
        """Start a worker or a producer of the variant."""
        module = ["bench.peers", self.variant.module, role]
        return self.spawn(
            [python_of(self.variant.environment), "-m", *module], f"{role}{worker}", worker=worker, **told
        )

    def spawn(self, command: Sequence[str], label: str, **told: Any) -> ManagedProcess:
        """Start a process of this scenario, told the stage."""
        stage = Stage(
            **{
                "url": self._url,
                "out": str(self.out),
                "concurrency": self.variant.concurrency,
                "bulk": self.variant.bulk,
                "options": dict(self.variant.environ),
                **told,
            }
        )
        env = clean_environment({VARIABLE: json.dumps(dataclasses.asdict(stage))})
        process = spawn(self._run, f"{self.name}-{label}", command, env=env, cwd=ROOM.parent)
        self._processes.append(process)
        return process

    def spawn_ragworker(self) -> ManagedProcess:
        """Start the real worker, as its user would; its files stay in the scenario's folder."""
        env = {
            "REDIS_URL": self._url,
            "DATABASE_URL": f"sqlite:///{self.out / 'rag.db'}",
            "RAG_TEMP_DIR": str(self.out / "temporary"),
        }
        command = [sys.executable, "-m", "ragworker", "worker"]
        process = spawn(self._run, f"{self.name}-ragworker", command, env=clean_environment(env))
        self._processes.append(process)
        return process

    def wait_for(self, process: ManagedProcess, seconds: float) -> None:
        """Wait for a process to end well. UnmeasuredError when it does not."""
        self.until(lambda: process.poll() == 0, seconds, f"end of {process.name}")

    def until(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        """Poll until `true`. UnmeasuredError after `seconds`, or when a process of this scenario ended badly."""
        deadline = time.monotonic() + seconds
        while not true():
            for process in self._processes:
                if process.poll() not in (None, 0):
                    raise UnmeasuredError(
                        f"{process.name} ended with {process.poll()}. {process.tail_note()}"
                    )
            if time.monotonic() > deadline:
                tails = " ".join(process.tail_note() for process in self._processes[-1:])
                raise UnmeasuredError(f"{self.name}: no {what} within {seconds:g} s. {tails}")
            time.sleep(POLL_SECONDS)

    def kill(self, process: ManagedProcess) -> None:
        """SIGKILL the process and its whole group."""
        self._processes.remove(process)
        process.kill()

    def end_all(self) -> None:
        """Kill what this scenario started."""
        for process in self._processes:
            process.kill()
        self._processes.clear()

    def count(self) -> int:
        """Lines that all processes wrote so far."""
        return sum(path.stat().st_size for path in self._files()) // LINE_BYTES

    def lines(self) -> list[Begun]:
        """Every line, in no order."""
        found = []
        for path in self._files():
            worker = int(path.name.partition("-")[0])
            for line in path.read_bytes().splitlines():
                kind, job, sent_ns, at_ns = line.split()
                found.append(Begun(kind, worker, int(job), int(sent_ns), int(at_ns)))
        return found

    def forget_lines(self) -> None:
        """Count from nothing again (after a warm-up job)."""
        for path in self._files():
            path.write_bytes(b"")

    def redis_cpu_seconds(self) -> float:
        """CPU time that Redis has used."""
        info: Any = self.client.info("cpu")
        return float(info["used_cpu_sys"] + info["used_cpu_user"])

    def _files(self) -> Iterator[Path]:
        return self.out.glob("*.lines")

    def _empty_redis(self) -> None:
        self.client.flushall()
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            info: Any = self.client.info("persistence")
            if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
                return
            time.sleep(POLL_SECONDS)
        raise HarnessFailure(f"Redis still rewrites its append-only file after {SETTLE_SECONDS:g} s")


def memory_mb(process: ManagedProcess) -> float:
    """Resident memory of a process and its children; pages that they share count for each."""
    parent = psutil.Process(process.pid)
    return sum(each.memory_info().rss for each in (parent, *parent.children(recursive=True))) / 1e6
