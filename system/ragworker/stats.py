"""Count in process what is later added to the queue's `stats` hash, by the names that `QueueGauges.stats` lists."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

#: Where a job's time goes: until its first claim, then in the pipeline.
STAGES: Final = ("queue_wait", "extract", "embed", "commit")

#: Upper borders in ms, for every stage the same.
STAGE_DURATION_BUCKETS_MS: Final = (
    1,
    5,
    10,
    25,
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    30_000,
    60_000,
)


class Stats:
    """Counters and histograms since the last `take`. Not for several threads."""

    def __init__(self) -> None:
        self._figures: dict[str, float] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Raise several counters."""
        for name, amount in figures.items():
            self._figures[name] = self._figures.get(name, 0.0) + amount

    def observe(self, histogram: str, value: float, *, borders: Sequence[float]) -> None:
        """Add one observation to the first bucket whose upper border reaches it, as `lua/job.lua` does.

        A label's value follows the histogram's name, after a colon.
        """
        bucket = next((str(border) for border in borders if value <= border), "+Inf")
        name = f"hist:{histogram}"
        self.add({f"{name}:{bucket}": 1.0, f"{name}:count": 1.0, f"{name}:sum": round(value, 3)})

    def stage_took(self, stage: str, milliseconds: float) -> None:
        """Add one duration of a stage of `STAGES`."""
        self.observe(f"rag_stage_duration_ms:{stage}", milliseconds, borders=STAGE_DURATION_BUCKETS_MS)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the duration of the block, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.stage_took(stage, 1000 * (time.monotonic() - started))

    def take(self) -> dict[str, float]:
        """The figures since the last call; they start again from nothing."""
        figures, self._figures = self._figures, {}
        return figures
