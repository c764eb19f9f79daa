"""The ledger of containers, and the sweep that removes what a crashed run left behind when even its keeper died.

`containers.jsonl` in a run folder has a line before a container is made and one after it was removed. Docker is
only asked when a ledger has one without an end whose owner is dead.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from readiness.stack.strays import is_alive

LEDGER = "containers.jsonl"


def note_container(run_dir: Path, name: str) -> None:
    """Write down that we are about to make a container of this name."""
    owner = psutil.Process()
    line = {"name": name, "owner_pid": owner.pid, "owner_create_time": owner.create_time()}
    _append(run_dir / LEDGER, line)


def note_end(run_dir: Path, name: str) -> None:
    """Write down that it is gone."""
    _append(run_dir / LEDGER, {"name": name, "ended": True})


def sweep_containers(runs_dir: Path) -> int:
    """Remove containers whose owner is dead; how many that were. Without Docker nothing happens."""
    left = [
        (ledger, name)
        for ledger in runs_dir.glob(f"*/{LEDGER}")
        for name, owner in _unended(ledger).items()
        if not is_alive(*owner)
    ]
    if not left:
        return 0
    try:
        # Imported here: most runs have no container.
        from readiness.stack.container import remove_named  # noqa: PLC0415 - see above
    except ImportError:
        return 0
    removed = 0
    for ledger, name in left:
        with contextlib.suppress(Exception):  # no daemon now: the next start asks again
            removed += remove_named(name)
            note_end(ledger.parent, name)
    return removed


def _unended(ledger: Path) -> dict[str, tuple[int, float]]:
    """Container -> pid and start of its owner, of those that nobody wrote the end of. Torn lines are left out."""
    owners: dict[str, tuple[int, float]] = {}
    for text in ledger.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = json.loads(text)
            if line.get("ended"):
                owners.pop(str(line["name"]), None)
            else:
                owners[str(line["name"])] = (int(line["owner_pid"]), float(line["owner_create_time"]))
    return owners


def _append(ledger: Path, line: Mapping[str, object]) -> None:
    """One write, so that lines of several processes do not mix."""
    opened = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(opened, json.dumps(line).encode() + b"\n")
    finally:
        os.close(opened)
