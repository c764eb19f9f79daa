"""A master, two replicas and three Sentinels on loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis.asyncio
from core_parts import free_port, missing_redis, redis_binaries

from ragworker.connection import connect

SERVICE = "mymaster"

#: Sentinels call a silent master dead after this; the failover takes about as long again.
DOWN_AFTER_MS = 2000

START_SECONDS = 20.0


class Sentinels:
    """Processes of one small cluster; `start`, then `url`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [free_port() for _ in range(6)]
        self._servers: list[subprocess.Popen[bytes]] = []
        self._sentinels: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports[3:])
        return f"sentinel://{hosts}/{SERVICE}"

    async def start(self) -> None:
        binary = redis_binaries().get("local")
        if binary is None or shutil.which("redis-sentinel") is None:
            missing_redis("local")
        master = self._ports[0]
        for number, port in enumerate(self._ports[:3]):
            options = ["--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""]
            of = ["--replicaof", f"127.0.0.1 {master}"] if number else []
            self._servers.append(self._process(f"redis-{number}", [binary, *options, *of]))
        await self._until(self.replicated, "replicas")
        for number, port in enumerate(self._ports[3:]):
            folder = self._folder / f"sentinel-{number}"
            folder.mkdir(parents=True)
            config = folder / "sentinel.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {SERVICE} 5000\n"
            )
            self._sentinels.append(self._process(folder.name, ["redis-sentinel", str(config)]))
        await self._until(self._agreed, "the Sentinels to know each other")

    def kill_master(self) -> float:
        """SIGKILL to the master; the moment."""
        self._servers[0].kill()
        at = time.time()
        self._servers[0].wait(10)
        return at

    async def replicated(self) -> None:
        """Raises while a replica has not all that the master has."""
        client = redis.asyncio.Redis(port=self._ports[0])
        try:
            await client.set("replicated", "1")
            if await client.wait(2, 1000) < 2:
                raise redis.ConnectionError("not yet")
        finally:
            await client.aclose()

    async def cut_off(self) -> None:
        """Both replicas stay behind from now on: they greet the master with a password that it does not have."""
        for port in self._ports[1:3]:
            await self._configure(port, masterauth="wrong")
        client = redis.asyncio.Redis(port=self._ports[0])
        try:
            await client.execute_command("CLIENT", "KILL", "TYPE", "replica")

            async def alone() -> None:
                if (await client.info("replication"))["connected_slaves"]:
                    raise redis.ConnectionError("not yet")

            await self._until(alone, "the replicas to be cut off")
        finally:
            await client.aclose()

    async def _configure(self, port: int, **options: str) -> None:
        client = redis.asyncio.Redis(port=port)
        try:
            for name, value in options.items():
                await client.config_set(name, value)
        finally:
            await client.aclose()

    async def promoted(self, *, seconds: float) -> None:
        """Return when another server is the master."""

        async def another() -> None:
            client = connect(self.url)
            try:
                await client.set("promoted", "1")
            finally:
                await client.aclose()

        await self._until(another, "a new master", seconds=seconds)

    def stop(self) -> None:
        for process in [*self._sentinels, *self._servers]:
            if process.poll() is None:
                process.kill()
            process.wait(10)

    async def _agreed(self) -> None:
        for port in self._ports[3:]:
            client = redis.asyncio.Redis(port=port, decode_responses=True)
            try:
                known = await client.execute_command("SENTINEL", "MASTER", SERVICE)
            finally:
                await client.aclose()
            facts = known if isinstance(known, dict) else dict(zip(known[::2], known[1::2], strict=True))
            if int(facts["num-other-sentinels"]) < 2 or int(facts["num-slaves"]) < 2:
                raise redis.ConnectionError("not yet")

    async def _until(
        self, works: Callable[[], Awaitable[None]], what: str, *, seconds: float = START_SECONDS
    ) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                await works()
            except (redis.RedisError, OSError) as error:
                if time.monotonic() > deadline:
                    pytest.fail(f"not within {seconds} s: {what} ({error})")
                await asyncio.sleep(0.05)
            else:
                return

    def _process(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=os.environ)
