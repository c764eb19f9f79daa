"""The series that a run recorded, as evidence/raw/series.json holds them. Drawing is render/charts.py's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: points are (seconds since t0, value)."""

    name: str
    unit: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class FaultBand:
    """A fault on the time axis, in seconds since t0."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Charts:
    """What evidence/raw/series.json holds."""

    t0: str = ""
    series: tuple[Series, ...] = ()
    faults: tuple[FaultBand, ...] = ()
