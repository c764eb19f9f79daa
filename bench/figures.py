"""From samples to ratios and a verdict. Pure: no clock, no I/O.

A ratio is taken within one round: ours of that round by the best rival of that same round. The machine drifts, so
figures of different rounds are never divided; the median of the per-round ratios is what is judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from bench.variants import OURS, OURS_REAL, RAW, VARIANTS, Delivery


class Figure(StrEnum):
    """What a sample is of; the name ends with its unit."""

    SUBMIT_ONE = "submit_one_per_s"
    SUBMIT_FIFTY = "submit_fifty_per_s"
    SUBMIT_BULK = "submit_bulk_per_s"
    DRAIN_1 = "drain1_per_s"
    DRAIN_2 = "drain2_per_s"
    START_P50 = "start_p50_ms"
    START_P99 = "start_p99_ms"
    IDLE_RSS = "idle_rss_mb"
    RAW_ENQUEUE = "raw_enqueue_per_s"
    RAW_CONSUME = "raw_consume_per_s"
    CRASH_NEW_SECONDS = "crash_new_s"
    CRASH_NEW_LOST = "crash_new_lost"
    CRASH_RUNNING_SECONDS = "crash_running_s"
    CRASH_RUNNING_LOST = "crash_running_lost"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value of one variant in one round (from 1 up)."""

    round: int
    variant: str
    figure: str
    value: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Median with the smallest and the largest of its values."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: ours by the best of `rivals`, at least (or, where less is better, at most) `needed`."""

    text: str
    figure: Figure
    rivals: tuple[str, ...]
    needed: float
    lower_is_better: bool = False
    rival_figure: Figure | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """A promise about ours alone: every value at most `needed`."""

    text: str
    figure: Figure
    variant: str
    needed: float


@dataclass(frozen=True, slots=True)
class Line:
    """What came of one promise. `reached` is None when it was not measured."""

    text: str
    needed: str
    reached: bool | None
    figure: str = ""
    ours: float = math.nan
    rival: str = ""
    rivals: float = math.nan
    ratio: Spread | None = None
    rounds: int = 0


def _named(wanted: Iterable[bool]) -> tuple[str, ...]:
    pairs = zip(VARIANTS, wanted, strict=True)
    return tuple(variant.name for variant, chosen in pairs if chosen and variant.environment)


SAFE = _named(variant.delivery is Delivery.AT_LEAST_ONCE for variant in VARIANTS)
"""Peers that keep a job whose worker dies."""
ASYNCIO = _named(variant.asyncio for variant in VARIANTS)
BULK = _named(variant.bulk > 0 for variant in VARIANTS)

PROMISES: tuple[Target | Bound, ...] = (
    Target("drain, 1 process, by the best crash-safe peer", Figure.DRAIN_1, SAFE, 6.0),
    Target("drain, 2 processes, by the best crash-safe peer", Figure.DRAIN_2, SAFE, 5.0),
    Target(
        "drain, 1 process, by redis.asyncio consuming in batches of 100",
        Figure.DRAIN_1,
        (RAW,),
        0.15,
        rival_figure=Figure.RAW_CONSUME,
    ),
    Target("submit one after another, by the best asyncio peer", Figure.SUBMIT_ONE, ASYNCIO, 1.0),
    Target("submit 50 at once, by SAQ with 50 at once", Figure.SUBMIT_FIFTY, ("saq",), 3.0),
    Target("bulk submit, by the best peer", Figure.SUBMIT_BULK, BULK, 3.0),
    Target("start at 100 jobs/s, p99, by the best crash-safe peer", Figure.START_P99, SAFE, 1.0, True),
    Target("start at 100 jobs/s, p50, by the best crash-safe peer", Figure.START_P50, SAFE, 1.0, True),
    Bound("idle memory of `ragworker worker`, MB", Figure.IDLE_RSS, OURS_REAL, 60.0),
    Bound("idle memory of the no-op worker, MB", Figure.IDLE_RSS, OURS, 60.0),
    Bound("killed, a new worker at once: seconds to all done", Figure.CRASH_NEW_SECONDS, OURS, 5.0),
    Bound("killed, a new worker at once: jobs lost", Figure.CRASH_NEW_LOST, OURS, 0.0),
    Bound("killed, another worker running: seconds to all done", Figure.CRASH_RUNNING_SECONDS, OURS, 5.0),
    Bound("killed, another worker running: jobs lost", Figure.CRASH_RUNNING_LOST, OURS, 0.0),
)


def judge(samples: Sequence[Sample], *, ours: str = OURS) -> list[Line]:
    """One line for each promise, about the variant `ours`."""
    return [
        _ratio_line(samples, promise, ours) if isinstance(promise, Target) else _bound_line(samples, promise)
        for promise in PROMISES
    ]


def spread(values: Sequence[float]) -> Spread | None:
    """Median, smallest, largest; None of nothing."""
    return Spread(median(values), min(values), max(values)) if values else None


def values_of(samples: Iterable[Sample], variant: str, figure: str) -> dict[int, float]:
    """Round -> value of one figure of one variant."""
    return {
        sample.round: sample.value
        for sample in samples
        if sample.variant == variant and sample.figure == figure
    }


def round_ratios(
    ours: dict[int, float], rivals: Iterable[dict[int, float]], *, lower_is_better: bool
) -> list[float]:
    """Ours by the best rival, for each round that has both."""
    best_of = min if lower_is_better else max
    ratios = []
    for number, value in sorted(ours.items()):
        there = [rival[number] for rival in rivals if number in rival]
        if there:
            ratios.append(value / best_of(there))
    return ratios


def drain_rate(starts: Iterable[tuple[int, int, int]]) -> float:
    """Jobs a second from (worker, job, began_ns): from the first job of the worker that began last to the last job.

    With one worker that is first to last executed job. With more, the time in which only some of them were up does not
    count. ValueError when the last worker came after four fifths of the jobs: too little is left to measure.
    """
    first_of_job: dict[int, int] = {}
    first_of_worker: dict[int, int] = {}
    for worker, job, at in starts:
        first_of_job[job] = min(at, first_of_job.get(job, at))
        first_of_worker[worker] = min(at, first_of_worker.get(worker, at))
    if not first_of_job:
        raise ValueError("expected executed jobs, got none")
    begin, end = max(first_of_worker.values()), max(first_of_job.values())
    counted = sum(at > begin for at in first_of_job.values())
    if counted < len(first_of_job) / 5 or end == begin:
        raise ValueError(
            f"the last worker began when {counted} of {len(first_of_job)} jobs were left; raise --jobs"
        )
    return counted / ((end - begin) / 1e9)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def exit_status(lines: Sequence[Line]) -> int:
    """0 when everything that was measured was reached, 1 when not."""
    return 1 if any(line.reached is False for line in lines) else 0


def verdict(lines: Sequence[Line]) -> str:
    """The last line of a run."""
    measured = [line for line in lines if line.reached is not None]
    missed = [line for line in measured if not line.reached]
    word = "NOT REACHED" if missed else "REACHED" if measured else "NOTHING TO JUDGE"
    shown = "; ".join(f"{line.text} {_got(line)} ({line.needed})" for line in missed or measured)
    count = f"{len(measured) - len(missed)} of {len(measured)} measured lines reached, {len(lines)} in all"
    return f"{word}: {count}" + (f": {shown}" if shown else "")


def _got(line: Line) -> str:
    return f"{line.ratio.middle:.2f}" if line.ratio else f"{line.ours:.4g}"


def _ratio_line(samples: Sequence[Sample], target: Target, ours: str) -> Line:
    sign, word = ("<=", "at most") if target.lower_is_better else (">=", "at least")
    needed = f"{word} {target.needed:g}"
    of_rival = {
        name: values_of(samples, name, target.rival_figure or target.figure) for name in target.rivals
    }
    of_rival = {name: values for name, values in of_rival.items() if values}
    mine = values_of(samples, ours, target.figure)
    ratio = spread(round_ratios(mine, of_rival.values(), lower_is_better=target.lower_is_better))
    if ratio is None:
        return Line(target.text, needed, None, target.figure)
    best_of = min if target.lower_is_better else max
    best = best_of(of_rival, key=lambda name: median(of_rival[name].values()))
    reached = ratio.middle <= target.needed if sign == "<=" else ratio.middle >= target.needed
    return Line(
        target.text,
        needed,
        reached,
        target.figure,
        ours=median(mine.values()),
        rival=best,
        rivals=median(of_rival[best].values()),
        ratio=ratio,
        rounds=len(mine),
    )


def _bound_line(samples: Sequence[Sample], bound: Bound) -> Line:
    values = list(values_of(samples, bound.variant, bound.figure).values())
    needed = f"at most {bound.needed:g}"
    if not values:
        return Line(bound.text, needed, None, bound.figure)
    worst = max(values)
    return Line(bound.text, needed, worst <= bound.needed, bound.figure, ours=worst, rounds=len(values))
