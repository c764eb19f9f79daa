"""What this machine can do for fault injection, found by trying it once, harmlessly. Changes nothing that stays."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from readiness.stack.binaries import embedded_redis_program, find_program

PROBE_SECONDS = 5.0
FAKETIME_PATHS = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")


class Machine:
    """The machine of now. Each need is looked for at most once."""

    def missing(self, need: str) -> str:
        """Why this machine lacks `need`; "" when it has it. An unknown need is a defect of the act: KeyError."""
        return _found(need)


@cache
def _found(need: str) -> str:
    return PROBES[need]()


def libfaketime() -> Path | None:
    """The library that shifts a process' clock."""
    for pattern in FAKETIME_PATHS:
        found = sorted(Path("/").glob(pattern.removeprefix("/")))
        if found:
            return found[0]
    return None


def _redis_server() -> str:
    if find_program("redis-server", "valkey-server") or embedded_redis_program():
        return ""
    return "needs a real redis-server; `apt install redis-server` adds it"


def _program(name: str, package: str) -> Callable[[], str]:
    def ask() -> str:
        return "" if find_program(name) else f"needs {name}; `apt install {package}` adds it"

    return ask


def _namespaces() -> str:
    """Network namespaces of our own: tried with `unshare -n`."""
    return _tried(["unshare", "--net", "true"], "needs network namespaces (root, or user namespaces)")


def _iptables() -> str:
    return _tried(["iptables", "-L", "-n"], "needs iptables and root; `apt install iptables` adds it")


def _mount() -> str:
    """A private mount namespace with a tmpfs in it."""
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return _tried(command, "needs the right to mount a tmpfs (root)")


def _faketime() -> str:
    return "" if libfaketime() else "needs libfaketime; `apt install faketime` adds it"


def _cgroup(controller: str) -> Callable[[], str]:
    def ask() -> str:
        folder = Path("/sys/fs/cgroup") / controller
        writable = folder.is_dir() and os.access(folder / "cgroup.procs", os.W_OK)
        return "" if writable else f"needs the cgroup v1 controller {controller}, writable (root)"

    return ask


def _prlimit() -> str:
    if sys.platform != "linux":
        return "needs Linux (prlimit)"
    return "" if resource.getrlimit(resource.RLIMIT_NOFILE)[1] else "needs limits of open files"


def _signals() -> str:
    return "" if os.name == "posix" else "needs POSIX signals"


def _tried(command: list[str], why: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{why}; {command[0]}: {error}"
    if done.returncode == 0:
        return ""
    told = " ".join(done.stderr.decode(errors="replace").split())[:120]
    return f"{why}; {command[0]}: {told}"


PROBES: Mapping[str, Callable[[], str]] = {
    "redis-server": _redis_server,
    "signals": _signals,
    "namespaces": _namespaces,
    "iptables": _iptables,
    "mount": _mount,
    "libfaketime": _faketime,
    "prlimit": _prlimit,
    "cgroup-cpu": _cgroup("cpu"),
    "cgroup-memory": _cgroup("memory"),
    "cc": _program("cc", "gcc"),
    "redis-sentinel": _program("redis-sentinel", "redis-sentinel"),
}
"""Need -> a question that answers why it is missing."""
