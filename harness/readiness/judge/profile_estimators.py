"""The `estimator` block of a claim: how its evidence turns into a figure, and the target of that figure.

A target must say what it is about, or it is refused with a sentence that teaches: "< 500 ms" names no percentile,
"DLQ < 10" no window, "< 35" no unit. One function a kind; the arithmetic of each is in estimators.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from readiness.judge.figures import CASES, NOUNS, SAMPLES, SECONDS
from readiness.judge.model import Text
from readiness.judge.profile_model import Estimator, EstimatorKind
from readiness.judge.profile_yaml import Cursor

# What a target needs besides its number, said to the person who left it out.
TEACHING: Mapping[tuple[EstimatorKind, str], str] = {
    (EstimatorKind.PERCENTILE, "q"): (
        "Say which percentile the limit holds for: q: 0.95 is P95. A limit without one (an average? the worst?) can be"
        " met and missed by the same samples."
    ),
    (EstimatorKind.PERCENTILE, "unit"): "Say what the limit is measured in: unit: ms, s or %.",
    (EstimatorKind.WORST, "unit"): "Say what the limit is measured in: unit: ms, s or %.",
    (
        EstimatorKind.WORST,
        "min_samples",
    ): "Say how many samples the worst must be the worst of: min_samples: 10.",
    (EstimatorKind.COUNT, "window"): (
        "Say in how many of `unit` so few may happen: window: 500 with unit: jobs. Any count is small in a window that"
        " is small enough."
    ),
    (EstimatorKind.COUNT, "unit"): "Say what the window counts: unit: jobs.",
    (EstimatorKind.RATE, "unit"): "Say what the rate is a share of: unit: jobs.",
    (EstimatorKind.ZERO_VIOLATIONS, "unit"): "Say what a trial is: unit: jobs.",
    (EstimatorKind.ZERO_VIOLATIONS, "min_trials"): (
        "Say after how many trials without a violation it counts: none in n trials still allows a rate of about 3/n."
    ),
    (EstimatorKind.CHECKS, "min_cases"): "Say how many cases there must be: all of none is no proof.",
}
BARE_TARGET = (
    "A bare target does not say which percentile, of what, in which window. Write it as an estimator:"
    " {kind: percentile, q: 0.95, max: 500, unit: ms, of: requests} is P95 < 500 ms;"
    " {kind: count, max: 10, window: 500, unit: jobs} is < 10 per 500 jobs;"
    " {kind: rate, max: 0.03, unit: jobs} is < 3 % of jobs."
)


def refuse_target(cursor: Cursor) -> NoReturn:
    """Refuse a target that was written as words ("< 500 ms"), and show how to write it."""
    cursor.fail("an `estimator` instead of a target in words", hint=BARE_TARGET)


def parse_estimator(cursor: Cursor) -> Estimator:
    """Return the estimator of a block; BadInput names what its target leaves open."""
    if cursor.is_scalar:
        cursor.fail("a mapping (kind: ..., ...)", hint=BARE_TARGET)
    entries = cursor.mapping()
    if "target" in entries:
        refuse_target(entries["target"])
    if "kind" not in entries:
        cursor.fail("an estimator with a `kind`", hint=f"Known kinds: {', '.join(EstimatorKind)}.")
    kind = EstimatorKind(entries["kind"].word([str(k) for k in EstimatorKind], what="a kind of estimator"))
    return ESTIMATORS[kind](cursor)


def noun(cursor: Cursor) -> Text:
    """Return what is counted, in both languages."""
    return NOUNS[cursor.word(tuple(NOUNS), what="what is counted")]


def fraction(cursor: Cursor) -> float:
    """Return a number strictly between 0 and 1."""
    expected = "a fraction between 0 and 1 (3 % is 0.03)"
    value = cursor.number(0, 1, what=expected)
    if not 0 < value < 1:
        cursor.fail(expected)
    return value


def _fields(
    cursor: Cursor, kind: EstimatorKind, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Cursor]:
    hints = {key: words for (of, key), words in TEACHING.items() if of == kind}
    return cursor.fields(("kind", *optional, *required), required=required, hints=hints)


def _checks(cursor: Cursor) -> Estimator:
    keys = _fields(cursor, EstimatorKind.CHECKS, ("min_cases",))
    return Estimator(EstimatorKind.CHECKS, "cases", CASES, minimum_n=keys["min_cases"].integer(1, 1_000_000))


def _zero_violations(cursor: Cursor) -> Estimator:
    keys = _fields(cursor, EstimatorKind.ZERO_VIOLATIONS, ("min_trials", "unit"))
    least = keys["min_trials"].integer(1, 100_000_000)
    return Estimator(EstimatorKind.ZERO_VIOLATIONS, "fraction", noun(keys["unit"]), minimum_n=least)


def _rate(cursor: Cursor) -> Estimator:
    keys = _fields(cursor, EstimatorKind.RATE, ("max", "unit"))
    limit = fraction(keys["max"])
    return Estimator(EstimatorKind.RATE, "fraction", noun(keys["unit"]), limit=limit)


def _percentile(cursor: Cursor) -> Estimator:
    keys = _fields(cursor, EstimatorKind.PERCENTILE, ("q", "max", "unit"), optional=("of",))
    return Estimator(
        EstimatorKind.PERCENTILE,
        keys["unit"].text(longest=10),
        noun(keys["of"]) if "of" in keys else SAMPLES,
        limit=keys["max"].number(0, 1e12),
        quantile=fraction(keys["q"]),
    )


def _count(cursor: Cursor) -> Estimator:
    keys = _fields(cursor, EstimatorKind.COUNT, ("max", "window", "unit"))
    return Estimator(
        EstimatorKind.COUNT,
        "",
        noun(keys["unit"]),
        limit=keys["max"].number(0.001, 1e9),
        window=keys["window"].integer(1, 100_000_000),
    )


def _mtbf(cursor: Cursor) -> Estimator:
    keys = _fields(cursor, EstimatorKind.MTBF, ("min_hours",))
    return Estimator(EstimatorKind.MTBF, "h", SECONDS, limit=keys["min_hours"].number(0.001, 1e6))


def _availability(cursor: Cursor) -> Estimator:
    keys = _fields(cursor, EstimatorKind.AVAILABILITY, ("min",))
    return Estimator(EstimatorKind.AVAILABILITY, "fraction", SECONDS, limit=fraction(keys["min"]))


def _worst(cursor: Cursor) -> Estimator:
    keys = _fields(cursor, EstimatorKind.WORST, ("max", "unit", "min_samples"), optional=("of",))
    return Estimator(
        EstimatorKind.WORST,
        keys["unit"].text(longest=10),
        noun(keys["of"]) if "of" in keys else SAMPLES,
        limit=keys["max"].number(0, 1e12),
        minimum_n=keys["min_samples"].integer(1, 1_000_000),
    )


ESTIMATORS: Mapping[EstimatorKind, Callable[[Cursor], Estimator]] = {
    EstimatorKind.CHECKS: _checks,
    EstimatorKind.ZERO_VIOLATIONS: _zero_violations,
    EstimatorKind.RATE: _rate,
    EstimatorKind.PERCENTILE: _percentile,
    EstimatorKind.COUNT: _count,
    EstimatorKind.MTBF: _mtbf,
    EstimatorKind.AVAILABILITY: _availability,
    EstimatorKind.WORST: _worst,
}
