"""Ask the run's Prometheus over its HTTP API. Only reads; judging is left to the checks.

Source: https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

REQUEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Curve:
    """One series of an answer: its labels and its points (seconds of the epoch, value), NaN and infinity included."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]

    @property
    def finite(self) -> int:
        """How many points a panel would draw."""
        return sum(1 for _, value in self.points if math.isfinite(value))


class Prometheus:
    """A client of one server. A refused query is an httpx.HTTPStatusError, never an empty answer."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._client = httpx.Client(
            base_url=url, timeout=REQUEST_SECONDS, trust_env=False, transport=transport
        )

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def now(self, query: str) -> list[Curve]:
        """What the query gives at this moment."""
        rows = self._ask("/api/v1/query", query=query)["result"]
        return [Curve(row["metric"], [_point(row["value"])]) for row in rows]

    def between(
        self, query: str, start: float, end: float | None = None, *, step: float = 1.0
    ) -> list[Curve]:
        """What the query gives from `start` to `end` (seconds of the epoch, default: now), every `step` seconds."""
        last = time.time() if end is None else end
        window = {"start": f"{start:.3f}", "end": f"{last:.3f}", "step": f"{step:g}"}
        rows = self._ask("/api/v1/query_range", query=query, **window)["result"]
        return [Curve(row["metric"], [_point(value) for value in row["values"]]) for row in rows]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule that it evaluates, with its health and its last error."""
        return [rule for group in self._ask("/api/v1/rules")["groups"] for rule in group["rules"]]

    def version(self) -> str:
        """Its version."""
        return str(self._ask("/api/v1/status/buildinfo")["version"])

    def _ask(self, path: str, **params: str) -> dict[str, Any]:
        answer = self._client.get(path, params=params)
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data


def held_seconds(curve: Curve, *, step: float) -> float:
    """The longest time that a condition held without a gap; a lone point held for no time."""
    longest = since = before = 0.0
    for place, (at, _) in enumerate(curve.points):
        if place == 0 or at - before > 1.5 * step:
            since = at
        before = at
        longest = max(longest, at - since)
    return longest


def _point(value: Sequence[Any]) -> tuple[float, float]:
    return float(value[0]), float(value[1])
