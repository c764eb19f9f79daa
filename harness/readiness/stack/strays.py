"""The ledger of started processes, and the sweep that ends what a crashed run left behind.

`processes.jsonl` in a run folder has a line a child: pid, start, mark, and who started it. A pid alone proves
nothing, because numbers are reused; pid and start together do, and the mark in the environment does for
grandchildren. Starting and stopping is left to `processes`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import psutil

LEDGER = "processes.jsonl"

MARK = "READINESS_SPAWN"
"""Environment variable that a child and all its descendants carry: it tells ours from a stranger's."""

CREATE_TIME_SLACK_SECONDS = 2.0
"""A start is kept in ticks since boot; a clock step between two readings moves it by this at most."""

POLL_SECONDS = 0.02

SWEEP_WAIT_SECONDS = 5.0
"""How long killed strays may take to disappear."""


def note_child(run_dir: Path, pid: int, *, name: str, mark: str) -> None:
    """Append one child to the ledger, in one write, so that lines of several harness processes do not mix."""
    try:
        create_time = psutil.Process(pid).create_time()
    except psutil.Error:
        return  # already ended: nothing to sweep
    owner = psutil.Process()
    line = {
        "pid": pid,
        "create_time": create_time,
        "name": name,
        "mark": mark,
        "owner_pid": owner.pid,
        "owner_create_time": owner.create_time(),
    }
    ledger = os.open(run_dir / LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(ledger, json.dumps(line).encode() + b"\n")
    finally:
        os.close(ledger)


def sweep_stray(runs_dir: Path) -> int:
    """End what crashed runs under `runs_dir` left behind; returns how many processes that were.

    A process is ended only when the harness that started it is dead, and its pid and start are those written
    down (or, for a grandchild, its group and mark). Ledgers older than the machine's boot are not read.
    """
    oldest = psutil.boot_time() - CREATE_TIME_SLACK_SECONDS
    orphans = [
        line
        for ledger in runs_dir.glob(f"*/{LEDGER}")
        if ledger.stat().st_mtime >= oldest
        for line in _read(ledger)
        if not is_alive(line.owner_pid, line.owner_create_time)
    ]
    strays = _find(orphans) if orphans else []
    for stray in strays:
        with contextlib.suppress(psutil.Error):
            stray.kill()
    _await_end(strays)
    return len(strays)


def is_running(run_dir: Path) -> bool:
    """True while a harness process that started children of this run lives, other than the one that asks."""
    ledger = run_dir / LEDGER
    lines = _read(ledger) if ledger.exists() else []
    return any(
        is_alive(one.owner_pid, one.owner_create_time) and one.owner_pid != os.getpid() for one in lines
    )


def group_survives(group: int, mark: str) -> bool:
    """True when a living member of the process group carries `mark`: then it is the group we founded."""
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return any(_in_group(process, {group}, {mark}) for process in psutil.process_iter())


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the ledger; times are seconds since the epoch."""

    pid: int
    create_time: float
    mark: str
    owner_pid: int
    owner_create_time: float


def _read(ledger: Path) -> list[_Line]:
    """The lines of one ledger; a line torn by a crash is left out."""
    found = []
    for text in ledger.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            raw = json.loads(text)
            line = _Line(
                pid=int(raw["pid"]),
                create_time=float(raw["create_time"]),
                mark=str(raw["mark"]),
                owner_pid=int(raw["owner_pid"]),
                owner_create_time=float(raw["owner_create_time"]),
            )
            found.append(line)
    return found


def is_alive(pid: int, create_time: float) -> bool:
    """True while the process with this number and start (seconds since the epoch) lives."""
    try:
        process = psutil.Process(pid)
        return _started_at(process, create_time) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _find(orphans: Sequence[_Line]) -> list[psutil.Process]:
    by_pid = {line.pid: line for line in orphans}
    marks = {line.mark for line in orphans}
    return [
        process
        for process in psutil.process_iter()
        if (process.pid in by_pid and is_alive(process.pid, by_pid[process.pid].create_time))
        or _in_group(process, by_pid.keys(), marks)
    ]


def _await_end(strays: Sequence[psutil.Process]) -> None:
    """Wait until none runs. A zombie has ended: who reaps it is the business of its new parent."""
    deadline = time.monotonic() + SWEEP_WAIT_SECONDS
    while any(is_alive(stray.pid, stray.create_time()) for stray in strays):
        if time.monotonic() >= deadline:
            return
        time.sleep(POLL_SECONDS)


def _started_at(process: psutil.Process, create_time: float) -> bool:
    try:
        return abs(process.create_time() - create_time) <= CREATE_TIME_SLACK_SECONDS
    except psutil.Error:
        return False


def _in_group(process: psutil.Process, groups: AbstractSet[int], marks: AbstractSet[str]) -> bool:
    try:
        return os.getpgid(process.pid) in groups and process.environ().get(MARK) in marks
    except (psutil.Error, OSError):
        return False
