"""What the raw log of a load run says: samples, counts, and whether the generator may be believed. Pure.

Two rules keep a broken system from looking fast. A request without a proper answer counts with the deadline
that it was given, because its caller never got what it asked for. A job that did not end as done counts as
`NEVER_SECONDS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from readiness.load.plan import REQUEST_SECONDS
from readiness.load.rawlog import Line

NEVER_SECONDS = 3600.0
"""Stands for "did not end": above every target, and JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class Request:
    """One API request: seconds after the start, how long it took, whether its answer was proper."""

    name: str
    at: float
    duration_ms: float
    status: int
    problem: str

    @property
    def sample_ms(self) -> float:
        """What it counts as: its duration, or the deadline when it has no proper answer."""
        return max(self.duration_ms, REQUEST_SECONDS * 1000) if self.problem else self.duration_ms


@dataclass(frozen=True, slots=True)
class JobSeen:
    """One submission as its client saw it. `seconds` from submission to the news of its end; None: none
    came.
    """

    at: float
    late_ms: float
    job_id: str
    state: str
    seconds: float | None
    server_ms: float | None

    @property
    def done(self) -> bool:
        """True when it was accepted and ended as done."""
        return self.state == "done" and self.seconds is not None

    @property
    def sample_seconds(self) -> float:
        """What it counts as: its duration, or `NEVER_SECONDS`."""
        return self.seconds if self.done and self.seconds is not None else NEVER_SECONDS


@dataclass(frozen=True, slots=True)
class StreamSeen:
    """One event stream. `outcome` is ended, refused, silent, broken or cut; only ended is clean."""

    at: float
    duration_ms: float
    outcome: str
    heartbeats: int
    problem: str


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """A raw log, read. `orderly` is True when the generator wrote its last line itself."""

    requests: tuple[Request, ...]
    jobs: tuple[JobSeen, ...]
    streams: tuple[StreamSeen, ...]
    ticks_ms: tuple[float, ...]
    dropped: int
    due: int
    lines_cut: int
    cpu_seconds: float
    busy_seconds: float
    started_wall: float
    orderly: bool
    clock_backwards: int = 0

    @property
    def not_done(self) -> int:
        """Submissions that did not end as done: refused, dead, cancelled or never ended."""
        return sum(not job.done for job in self.jobs)

    @property
    def unclean_streams(self) -> int:
        """Streams that did not end with their `end` event."""
        return sum(stream.outcome != "ended" for stream in self.streams)

    @property
    def failed_requests(self) -> int:
        """Requests without a proper answer."""
        return sum(bool(request.problem) for request in self.requests)

    @property
    def cpu_share(self) -> float:
        """The generator's CPU time as a share of one core, while it ran."""
        return self.cpu_seconds / self.busy_seconds if self.busy_seconds > 0 else 0.0


def read_figures(lines: Iterable[Line]) -> LoadFigures:
    """Sort the lines of a raw log into figures. Times become seconds after the `start` line."""
    by_kind: dict[str, list[Line]] = {}
    for line in lines:
        by_kind.setdefault(_text(line, "kind"), []).append(line)
    start: Line = by_kind.get("start", [{}])[0]
    stop: Line | None = by_kind.get("stop", [None])[-1]
    zero = _number(start, "at")
    ticks = by_kind.get("tick", [])
    return LoadFigures(
        requests=tuple(_request(line, zero) for line in by_kind.get("request", [])),
        jobs=tuple(_job(line, zero) for line in by_kind.get("job", [])),
        streams=tuple(_stream(line, zero) for line in by_kind.get("stream", [])),
        ticks_ms=tuple(_number(line, "late_ms") for line in ticks),
        dropped=len(by_kind.get("dropped", [])),
        due=int(_number(start, "due")),
        lines_cut=int(_number(stop, "cut")) if stop else 0,
        cpu_seconds=_number(ticks[-1], "cpu_seconds") - _number(ticks[0], "cpu_seconds") if ticks else 0.0,
        busy_seconds=_number(ticks[-1], "at") - _number(ticks[0], "at") if ticks else 0.0,
        started_wall=_number(start, "wall"),
        orderly=stop is not None,
        clock_backwards=_backwards(by_kind),
    )


def _backwards(by_kind: Mapping[str, Sequence[Line]]) -> int:
    """How many times went backwards: ticks before the one before, ends before beginnings."""
    moments = [_number(tick, "at") for tick in by_kind.get("tick", [])]
    ends = [
        _number(job, "ended") < _number(job, "at")
        for job in by_kind.get("job", [])
        if isinstance(job.get("ended"), int | float)
    ]
    timed = [*by_kind.get("request", []), *by_kind.get("stream", [])]
    earlier = (after < before for before, after in pairwise(moments))
    return sum(earlier) + sum(ends) + sum(_number(line, "duration_ms") < 0 for line in timed)


def why_unbelievable(figures: LoadFigures) -> str:
    """Why this run left nothing to judge, because its generator broke; "" when it ran to its end.

    Whether a generator that did was late, starved or too light is the judge's (judge/validity.py, by `validity`).
    """
    found = (
        (not figures.orderly, "the load generator died before its end"),
        (not figures.requests, "the load generator sent no request"),
        (figures.lines_cut > 0, f"{figures.lines_cut} lines did not fit into the raw log"),
    )
    return next((sentence for holds, sentence in found if holds), "")


def validity(figures: LoadFigures) -> dict[str, object]:
    """What the generator shows of itself, for the rules by which the judge believes it or not."""
    return {
        "planned": figures.due,
        "made": len(figures.jobs),
        "late_ms_p99": round(percentile([job.late_ms for job in figures.jobs], 0.99), 3),
        "wake_late_ms_p95": round(percentile(figures.ticks_ms, 0.95), 3),
        "cpu_share": round(figures.cpu_share, 4),
        "clock_backwards": figures.clock_backwards,
    }


def percentile(values: Sequence[float], q: float) -> float:
    """The q-quantile by nearest rank: the smallest value that at least a share q does not exceed. 0.0 of
    nothing.
    """
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def _request(line: Line, zero: float) -> Request:
    problem = line.get("exception")
    return Request(
        name=_text(line, "name"),
        at=_number(line, "at") - zero,
        duration_ms=_number(line, "duration_ms"),
        status=int(_number(line, "status")),
        problem=str(problem) if problem else "",
    )


def _job(line: Line, zero: float) -> JobSeen:
    at = _number(line, "at")
    ended = line.get("ended")
    server = line.get("server_ms")
    return JobSeen(
        at=at - zero,
        late_ms=max(0.0, at - _number(line, "planned")) * 1000,
        job_id=_text(line, "job_id"),
        state=_text(line, "state"),
        seconds=ended - at if isinstance(ended, int | float) else None,
        server_ms=float(server) if isinstance(server, int | float) else None,
    )


def _stream(line: Line, zero: float) -> StreamSeen:
    return StreamSeen(
        at=_number(line, "at") - zero,
        duration_ms=_number(line, "duration_ms"),
        outcome=_text(line, "outcome"),
        heartbeats=int(_number(line, "heartbeats")),
        problem=str(line.get("exception") or ""),
    )


def _text(line: Line, key: str) -> str:
    value = line.get(key)
    return value if isinstance(value, str) else ""


def _number(line: Line, key: str) -> float:
    value = line.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
