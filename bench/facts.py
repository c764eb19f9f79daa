"""What a result stands on: the machine, the commit, the version of everything that was measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import psutil

from bench.environments import ROOM, python_of
from bench.variants import Variant

_LIST = (
    "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
)
_TOLD = (
    "redis",
    "hiredis",
    "uvloop",
    "celery",
    "kombu",
    "rq",
    "dramatiq",
    "saq",
    "huey",
    "streaq",
    "coredis",
    "arq",
)
_TOLD_PREFIX = "taskiq"
SECONDS = 30.0


def gather(variants: Iterable[Variant], *, redis_version: str) -> dict[str, Any]:
    """Facts for the record; nothing here can fail a run but a broken environment."""
    environments = sorted({variant.environment for variant in variants})
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _output(["git", "-C", str(ROOM), "rev-parse", "HEAD"]),
        "uncommitted_changes": bool(_output(["git", "-C", str(ROOM), "status", "--porcelain"])),
        "machine": {
            "system": platform.platform(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "load_average_before": os.getloadavg(),
        },
        "python": platform.python_version(),
        "redis_server": redis_version,
        "redis_settings": {"appendonly": "yes", "appendfsync": "everysec", "save": ""},
        "versions": {name or "repository": _versions(name) for name in environments},
    }


def busy_note(known: dict[str, Any]) -> str:
    """A warning when others kept the machine busy at the start of the run; "" when not."""
    load, cores = known["machine"]["load_average_before"][0], known["machine"]["cores"]
    if load <= cores / 2:
        return ""
    return f"The machine was busy before the run (load {load:.1f} on {cores} cores): trust ratios of many rounds only."


def _versions(environment: str) -> dict[str, str]:
    told: dict[str, str] = json.loads(_output([python_of(environment), "-c", _LIST]) or "{}")
    return {
        name: version
        for name, version in sorted(told.items())
        if name in _TOLD or name.startswith(_TOLD_PREFIX)
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(
                (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""
            )
    except OSError:
        return platform.processor()


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
