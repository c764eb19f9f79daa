"""A master, two replicas and three Sentinels on the loopback, for one scenario. Ends with the scene.

What Sentinel promises: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/. Replication is
asynchronous, so an acknowledged write may be lost in a failover unless its writer waited for a replica (WAIT).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import redis

from readiness.errors import HarnessFailure
from readiness.faults.act import Scene
from readiness.stack.binaries import embedded_redis_program, find_program
from readiness.stack.ports import LOOPBACK, free_port
from readiness.stack.processes import ManagedProcess, clean_environment, spawn

SERVICE = "readiness"
SERVERS = SENTINELS = 3
DOWN_AFTER_MS = 1500
FAILOVER_TIMEOUT_MS = 5000
START_SECONDS = 20.0
ASK_SECONDS = 2.0
POLL_SECONDS = 0.05


class Sentinels:
    """The six processes. `url` is what the target gets."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._folder = scene.folder / "sentinels"
        self._ports = [free_port() for _ in range(SERVERS + SENTINELS)]
        self._servers: dict[int, ManagedProcess] = {}
        self.first_master = self._ports[0]

    @property
    def url(self) -> str:
        """By the Sentinels, as the target's settings have it."""
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self._ports[SERVERS:])
        return f"sentinel://{hosts}/{SERVICE}"

    def start(self) -> None:
        """Start all; return when replicas are in step and Sentinels agree. HarnessFailure when they do not."""
        for port in self._ports[:SERVERS]:
            self.start_server(port, replica_of=None if port == self.first_master else self.first_master)
        self._until(lambda: self.replicas(self.first_master) == SERVERS - 1, "two replicas in step")
        program = find_program("redis-sentinel", "valkey-sentinel")
        if program is None:
            raise HarnessFailure("expected redis-sentinel on PATH; `apt install redis-sentinel` adds it")
        for port in self._ports[SERVERS:]:
            file = self._folder / f"sentinel-{port}" / "sentinel.conf"
            file.parent.mkdir(parents=True)
            file.write_text(
                f"port {port}\nbind {LOOPBACK}\ndir {file.parent}\n"
                f"sentinel monitor {SERVICE} {LOOPBACK} {self.first_master} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT_MS}\n",
                encoding="utf-8",
            )
            self._spawn(f"sentinel-{port}", [str(program), str(file)])
        self._until(self._agree, "three Sentinels that know each other")

    def start_server(self, port: int, *, replica_of: int | None) -> None:
        """Start one server on its own data, as master or replica, and wait for PONG."""
        program = find_program("redis-server", "valkey-server") or embedded_redis_program()
        if program is None:
            raise HarnessFailure("expected a redis-server, found none")
        data = self._folder / f"redis-{port}"
        data.mkdir(parents=True, exist_ok=True)
        options = {"port": str(port), "bind": LOOPBACK, "dir": str(data), "appendonly": "yes", "save": ""}
        options |= {"repl-diskless-sync-delay": "0", "repl-timeout": "5"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        of = ["--replicaof", f"{LOOPBACK} {replica_of}"] if replica_of else []
        self._servers[port] = self._spawn(f"redis-{port}", [str(program), *words, *of])
        self._until(lambda: bool(self._ask(port, "PING")), f"PONG on port {port}")

    def server(self, port: int) -> ManagedProcess:
        """The process that listens on this port."""
        return self._servers[port]

    def master(self) -> int:
        """The port of the server that a majority of the Sentinels calls master; 0 while they do not agree."""
        votes = [self._named_by(port) for port in self._ports[SERVERS:]]
        best = max(set(votes), key=votes.count)
        return best if votes.count(best) > SENTINELS // 2 else 0

    def role(self, port: int) -> str:
        """ "master", "slave" or "" for a server that does not answer."""
        answer = self._ask(port, "ROLE")
        return _word(answer[0]) if isinstance(answer, list) and answer else ""

    def replicas(self, port: int) -> int:
        """How many replicas are in step with this server (WAIT)."""
        with contextlib.suppress(redis.RedisError), self._client(port) as client:
            client.set("readiness:in-step", "1")
            return int(cast("int", client.wait(SERVERS - 1, 200)))
        return 0

    def ask_for_failover(self) -> None:
        """SENTINEL FAILOVER: a change of masters that was planned."""
        self._ask(self._ports[SERVERS], "SENTINEL", "FAILOVER", SERVICE)

    def _agree(self) -> bool:
        for port in self._ports[SERVERS:]:
            facts = self._ask(port, "SENTINEL", "MASTER", SERVICE)
            if isinstance(facts, dict):  # RESP3
                facts = [item for pair in facts.items() for item in pair]
            flat = [_word(item) for item in facts or ()]
            known = dict(zip(flat[::2], flat[1::2], strict=True))
            if known.get("num-other-sentinels") != "2" or known.get("num-slaves") != "2":
                return False
        return True

    def _named_by(self, sentinel: int) -> int:
        answer = self._ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(_word(answer[1])) if isinstance(answer, list) and len(answer) == 2 else 0

    def _ask(self, port: int, *words: str) -> Any:
        with contextlib.suppress(redis.RedisError, OSError), self._client(port) as client:
            connection: Any = client.connection_pool.get_connection()
            connection.send_command(*words)
            return connection.read_response()  # as it comes: redis-py shapes SENTINEL's answers by version
        return None

    def _client(self, port: int) -> redis.Redis:
        return redis.Redis(LOOPBACK, port, socket_timeout=ASK_SECONDS, socket_connect_timeout=ASK_SECONDS)

    def _spawn(self, name: str, argv: list[str]) -> ManagedProcess:
        process = spawn(self._scene.run_dir, f"{self._scene.name}-{name}", argv, env=clean_environment())
        self._scene.cleanup.callback(process.kill)
        return process

    def _until(self, look: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not look():
            if time.monotonic() >= deadline:
                raise HarnessFailure(f"Sentinels: expected within {START_SECONDS:g} s: {what}")
            time.sleep(POLL_SECONDS)


def _word(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def folder_of(data: Path) -> Path:
    """Where a Redis server with multi-part append-only files keeps them (7.0 and newer), else `data` (6.2)."""
    parts = data / "appendonlydir"
    return parts if parts.is_dir() else data
