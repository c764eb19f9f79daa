"""Curves for the report: what the system showed once a second during the load, and what the raw log adds up
to.

`SeriesRecorder` samples from outside, in a thread: the API's /metrics, and the memory of the processes that
it is given. `merge_series` writes evidence/raw/series.json, joining what an earlier step of the run wrote.
Judges nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil

from readiness.checking.exposition import parse
from readiness.load.figures import LoadFigures, percentile

SERIES_FILE = Path("evidence") / "raw" / "series.json"
SAMPLE_SECONDS = 0.5
"""Twice a second: fine enough for a twelve-second chart, and a scrape costs the API about 2 ms."""

SCRAPE_SECONDS = 1.0
"""A scrape that takes longer leaves a gap in the curve: no data is drawn as no data."""

MAX_POINTS = 7200
"""An hour of samples; later ones are left out so that memory and report stay small."""

GAUGES: tuple[tuple[str, str, str], ...] = (
    ("queue depth", "jobs", "rag_queue_length"),
    ("active jobs", "jobs", "worker_active_jobs"),
    ("open event streams", "streams", "sse_connections_open"),
    ("memory token use", "%", "memory_token_used_pct"),
    ("dead letters", "jobs", "rag_dlq_entries"),
)
"""Curve, unit, metric."""

MACHINE = "machine CPU"
"""All cores and all processes: tells a slow system from a machine that others kept busy."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One curve; points are (seconds after the beginning, value)."""

    name: str
    unit: str
    points: tuple[Point, ...]

    def shifted(self, seconds: float) -> Series:
        """The same curve against a beginning that is `seconds` earlier."""
        return Series(
            self.name, self.unit, tuple((round(at + seconds, 3), value) for at, value in self.points)
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on the time axis: from its injection until the system had recovered, in seconds."""

    name: str
    start: float
    end: float


class SeriesRecorder:
    """Samples from `start` to `stop`. `pids` is asked each time: workers come and go."""

    def __init__(self, *, metrics_url: str, pids: Callable[[], Sequence[int]]) -> None:
        self._url = metrics_url
        self._pids = pids
        self._points: dict[tuple[str, str], list[Point]] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="series-recorder", daemon=True)
        self._zero = time.monotonic()
        self.t0 = datetime.now(UTC)
        self.missed = 0
        self.longest_gap_seconds = 0.0  # between two looks; what the target took to answer is not in it

    def start(self) -> None:
        """Begin to sample."""
        self._zero = time.monotonic()
        self.t0 = datetime.now(UTC)
        self._thread.start()

    def stop(self) -> None:
        """End sampling. Doing it twice is harmless."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * SCRAPE_SECONDS + 1)

    def mean(self, name: str) -> float | None:
        """The mean of one curve so far; None without a point."""
        values = [value for one in self.series() if one.name == name for _, value in one.points]
        return sum(values) / len(values) if values else None

    def series(self) -> list[Series]:
        """The curves so far, gauges first."""
        return [Series(name, unit, tuple(points)) for (name, unit), points in list(self._points.items())]

    def _run(self) -> None:
        psutil.cpu_percent()  # the first call only begins to measure
        with httpx.Client(timeout=SCRAPE_SECONDS) as client:
            looked = time.monotonic()
            while not self._done.is_set():
                self.longest_gap_seconds = max(self.longest_gap_seconds, time.monotonic() - looked)
                self._sample_metrics(client)
                looked = time.monotonic()
                self._sample_memory()
                self._add(MACHINE, "%", psutil.cpu_percent())
                self._done.wait(SAMPLE_SECONDS)

    def _sample_metrics(self, client: httpx.Client) -> None:
        try:
            answer = client.get(self._url)
            answer.raise_for_status()
            shown = parse(answer.text)
        except (httpx.HTTPError, ValueError):
            self.missed += 1
            return
        for name, unit, metric in GAUGES:
            values = shown.values(metric)
            if values:
                self._add(name, unit, sum(values))

    def _sample_memory(self) -> None:
        for number, pid in enumerate(self._pids(), start=1):
            try:
                resident = psutil.Process(pid).memory_info().rss
            except psutil.Error:
                continue  # it has ended: its curve ends here
            self._add(f"worker {number} memory", "MB", round(resident / 1e6, 2))

    def _add(self, name: str, unit: str, value: float) -> None:
        points = self._points.setdefault((name, unit), [])
        if len(points) < MAX_POINTS:
            points.append((round(time.monotonic() - self._zero, 3), value))


def load_series(figures: LoadFigures) -> list[Series]:
    """The curves of the load itself, one point a second, against the generator's start."""
    requests = _by_second((request.at, request.sample_ms) for request in figures.requests)
    failed = _by_second((request.at, 1.0) for request in figures.requests if request.problem)
    broken = _by_second((stream.at, 1.0) for stream in figures.streams if stream.outcome != "ended")
    arrivals = _by_second((job.at, 1.0) for job in figures.jobs)
    ended = _by_second((job.at + job.seconds, 1.0) for job in figures.jobs if job.seconds is not None)
    last = max([*requests, *arrivals, *ended], default=-1)
    seconds = range(last + 1)

    def count(of: Mapping[int, Sequence[float]]) -> tuple[Point, ...]:
        return tuple((float(second), float(len(of.get(second, ())))) for second in seconds)

    def at_rank(q: float) -> tuple[Point, ...]:
        return tuple((float(s), round(percentile(requests[s], q), 3)) for s in seconds if s in requests)

    return [
        Series("arrivals", "jobs/s", count(arrivals)),
        Series("jobs ended", "jobs/s", count(ended)),
        Series("job duration", "s", durations(figures)),
        Series("API response P50", "ms", at_rank(0.5)),
        Series("API response P95", "ms", at_rank(0.95)),
        Series("failed requests", "1/s", count(failed)),
        Series("broken streams", "1/s", count(broken)),
    ]


def durations(figures: LoadFigures) -> tuple[Point, ...]:
    """One point a finished job: when it ended, and how long it took in seconds."""
    ended = ((job.at + job.seconds, job.seconds) for job in figures.jobs if job.seconds is not None)
    return tuple((round(at, 3), round(took, 4)) for at, took in sorted(ended)[:MAX_POINTS])


def merge_series(
    run_dir: Path, series: Iterable[Series], *, t0: datetime, faults: Iterable[Fault] = ()
) -> None:
    """Write curves and faults into the run's series file; those of earlier steps stay.

    Times are seconds since `t0`; the file keeps the `t0` of whoever wrote first, so what comes later is shifted.
    """
    path = run_dir / SERIES_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    zero = datetime.fromisoformat(known["t0"]) if known else t0
    shift = (t0 - zero) / timedelta(seconds=1)
    added = [one.shifted(shift) for one in series if one.points]
    body = {
        "t0": zero.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "series": [
            *known.get("series", []),
            *({"name": one.name, "unit": one.unit, "points": [list(p) for p in one.points]} for one in added),
        ],
        "faults": [
            *known.get("faults", []),
            *({"name": one.name, "start": one.start + shift, "end": one.end + shift} for one in faults),
        ],
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(body, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _by_second(pairs: Iterable[tuple[float, float]]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for at, value in pairs:
        found.setdefault(max(0, int(at)), []).append(value)
    return found
