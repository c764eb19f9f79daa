"""Put what the checks recorded for the time axis (faults and curves) into the run's series file.

Checks run in several processes and write `timeline` facts; the run gathers them once, when the checks are over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from readiness.evidence import read_all
from readiness.load.series import MAX_POINTS, Fault, Series, merge_series

RECOVERY_TIME = "time to recover"


def gather_timeline(run_dir: Path) -> None:
    """Merge every `timeline` fact of the run's evidence into evidence/raw/series.json; nothing when there is none."""
    found = list(_timelines(run_dir))
    faults = [fault for timeline in found for fault in timeline.get("faults", [])]
    series = [one for timeline in found for one in timeline.get("series", [])]
    moments = [float(fault["start_ms"]) for fault in faults]
    moments += [float(point[0]) for one in series for point in one["points"][:1]]
    if not moments:
        return
    zero = min(moments)
    windows = [_window(fault, zero=zero) for fault in faults]
    curves = [_curve(one, zero=zero) for one in series]
    recoveries = tuple((window.start, round(window.end - window.start, 3)) for window in windows)
    curves.append(Series(RECOVERY_TIME, "s", recoveries))
    merge_series(run_dir, curves, t0=datetime.fromtimestamp(zero / 1000, UTC), faults=windows)


def _timelines(run_dir: Path) -> Iterator[Mapping[str, Any]]:
    for file in read_all(run_dir).values():
        for record in file.records:
            timeline = record.data.get("timeline") if record.kind == "facts" else None
            if isinstance(timeline, Mapping):
                yield timeline


def _window(fault: Mapping[str, Any], *, zero: float) -> Fault:
    start, end = float(fault["start_ms"]), float(fault["end_ms"])
    return Fault(str(fault["name"]), round((start - zero) / 1000, 3), round((end - zero) / 1000, 3))


def _curve(one: Mapping[str, Any], *, zero: float) -> Series:
    points: Sequence[Sequence[float]] = one["points"][:MAX_POINTS]
    shifted = tuple((round((moment - zero) / 1000, 3), float(value)) for moment, value in points)
    return Series(str(one["name"]), str(one["unit"]), shifted)
