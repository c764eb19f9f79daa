"""What a worker or a producer is told, and the job body that all queues share.

The runner says everything in one environment variable, BENCH_STAGE, a JSON object with the fields of `Stage`. The body
appends one line to a file of its process with one write(2), so that a line is there or not, also after SIGKILL:

    S 00000017 <ns when it was submitted> <ns when it began>       every line is LINE_BYTES long, so that the runner
    E 00000017 <ns when it was submitted> <ns when it ended>       counts lines with stat(2) alone

`E` lines are written only when the body takes time (the crash scenario): they stand for the effect of the job.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from typing import Any

VARIABLE = "BENCH_STAGE"
LINE_BYTES = 51
STARTED, ENDED = b"S", b"E"


@dataclass(frozen=True, slots=True)
class Stage:
    """One process' part in a scenario."""

    url: str
    """The Redis of the run."""
    out: str
    """Folder for lines and results."""
    worker: int = 0
    """Which worker this is; part of the name of its file."""
    concurrency: int = 1
    """Jobs at once."""
    bulk: int = 100
    """Jobs in one bulk submit."""
    body_seconds: float = 0.0
    """How long a job takes; 0 is a no-op job."""
    crash: bool = False
    """Take the settings with which this queue recovers soonest."""
    phases: tuple[dict[str, Any], ...] = ()
    """What a producer does, in order; see produce.py."""
    options: dict[str, Any] | None = None
    """Settings of this variant alone, e.g. environment variables of ours."""


def read_stage() -> Stage:
    """The stage as the runner told it; without one (a tool imports the module) an empty stage."""
    told = json.loads(os.environ.get(VARIABLE, '{"url": "redis://127.0.0.1:0/0", "out": "."}'))
    return Stage(**{**told, "phases": tuple(told.get("phases", ()))})


STAGE = read_stage()
_files: dict[int, int] = {}


def note(kind: bytes, n: int, sent_ns: int) -> None:
    """Append one line. A forked child gets a file of its own."""
    pid = os.getpid()
    file = _files.get(pid)
    if file is None:
        name = f"{STAGE.out}/{STAGE.worker}-{pid}.lines"
        file = _files[pid] = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.write(file, b"%s %08d %019d %019d\n" % (kind, n, sent_ns, time.time_ns()))


def body(n: int, sent_ns: int) -> None:
    """The job, for queues that run functions."""
    note(STARTED, n, sent_ns)
    if STAGE.body_seconds:
        time.sleep(STAGE.body_seconds)
        note(ENDED, n, sent_ns)


async def body_async(n: int, sent_ns: int) -> None:
    """The same job, for queues that run coroutines."""
    note(STARTED, n, sent_ns)
    if STAGE.body_seconds:
        await asyncio.sleep(STAGE.body_seconds)
        note(ENDED, n, sent_ns)
