"""Say where a run comes from: commit, dirty tree, versions, machine. Reads git and the operating system only."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

GIT_DEADLINE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Provenance:
    """What was examined, and on which machine. ``commit`` is "unknown" outside a git checkout."""

    commit: str
    dirty: bool
    python: str
    platform: str
    cpu_count: int
    memory_bytes: int


def gather(folder: Path) -> Provenance:
    """Return the provenance of ``folder``; never raises for a missing git."""
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return Provenance(
        commit=commit or "unknown",
        dirty=bool(status),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu_count=os.cpu_count() or 1,
        memory_bytes=int(psutil.virtual_memory().total),
    )


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_DEADLINE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
