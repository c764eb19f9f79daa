"""Count in process what is later added to the queue's `stats` hash, by the names that `QueueGauges.stats` lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class Stats:
    """Counters and histograms since the last `take`. Not for several threads."""

    def __init__(self) -> None:
        self._figures: dict[str, float] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Raise several counters."""
        for name, amount in figures.items():
            self._figures[name] = self._figures.get(name, 0.0) + amount

    def observe(self, histogram: str, value: float, *, borders: Sequence[float]) -> None:
        """Add one observation to the first bucket whose upper border reaches it, as `lua/job.lua` does."""
        bucket = next((str(border) for border in borders if value <= border), "+Inf")
        name = f"hist:{histogram}"
        self.add({f"{name}:{bucket}": 1.0, f"{name}:count": 1.0, f"{name}:sum": round(value, 3)})

    def take(self) -> dict[str, float]:
        """The figures since the last call; they start again from nothing."""
        figures, self._figures = self._figures, {}
        return figures

    def peek(self) -> dict[str, float]:
        """The figures so far."""
        return dict(self._figures)
