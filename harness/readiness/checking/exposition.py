"""Read a Prometheus exposition text as plainly as possible: types, and the value of each series.

Leaves out what no check needs (timestamps, exemplars, help). Unlike prometheus_client's parser it does not
rename counters, because the names themselves are under examination. Source:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TYPE = re.compile(r"^# TYPE (\S+) (\S+)\s*$")
_SERIES = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Series:
    """One line of the text: a name, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Exposition:
    """A scrape: the type of each family, and every series."""

    types: Mapping[str, str]
    series: tuple[Series, ...]

    def values(self, name: str, **labels: str) -> list[float]:
        """The values of every series of that exact name that carries these labels."""
        return [
            one.value
            for one in self.series
            if one.name == name and all(one.labels.get(key) == value for key, value in labels.items())
        ]

    def total(self, name: str, **labels: str) -> float:
        """Their sum; 0 when there is none."""
        return sum(self.values(name, **labels))


def parse(text: str) -> Exposition:
    """Parse an exposition text; raises ValueError with the line that is neither comment nor series."""
    types: dict[str, str] = {}
    series: list[Series] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _TYPE.match(line):
            types[found[1]] = found[2]
        elif line.strip() and not line.startswith("#"):
            match = _SERIES.match(line)
            if match is None:
                raise ValueError(f"metrics line {number}: expected a series, got: {line!r}")
            labels = dict(_LABEL.findall(match[2] or ""))
            series.append(Series(name=match[1], labels=labels, value=float(match[3])))
    return Exposition(types=types, series=tuple(series))
