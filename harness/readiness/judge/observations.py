"""From a claim's records to the numbers an estimator takes; what cannot be a measurement is refused here.

Counts must be whole and not negative, failures at most n, values finite and in the claim's unit. One bad
record spoils the claim (INVALID): a harness that wrote one nonsense number may have written others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from readiness.evidence.records import KINDS, Record, standing

OUTCOMES = ("passed", "failed", "skipped", "xfailed", "error")
# Time units are converted to the claim's; any other difference of units is refused.
SECONDS_IN = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test of the claim ended; `reason` is its own words."""

    check: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything recorded for a claim, added up.

    `ordered` says that all `values` stand in the order in which they came about. `failed_at` has the positions (from
    0) of the failed trials in that order; None: the order is not known. `trials_eff` is what trials pooled over `runs`
    runs are worth. `problem` names the first record that cannot be a measurement.
    """

    outcomes: tuple[Outcome, ...] = ()
    cases: int = 0
    case_failures: int = 0
    trials: int = 0
    trial_failures: int = 0
    examples: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    ordered: bool = False
    failed_at: tuple[int, ...] | None = None
    trials_eff: int | None = None
    runs: int = 1
    exposure_seconds: float = 0.0
    exposure_failures: int = 0
    problem: str = ""


class _NoMeasurementError(Exception):
    """A record that cannot be a measurement; the message says why."""


def observe(records: Sequence[Record], *, claim: str, unit: str) -> Observations:
    """Add up the records of `claim`; `unit` is the unit that samples are wanted in."""
    total = _Total()
    for record in standing(records):
        try:
            if record.claim != claim or record.kind not in KINDS:
                raise _NoMeasurementError(f"a {record.kind} record of the claim {record.claim}")
            total.add(record, unit)
        except _NoMeasurementError as refused:
            total.problem = total.problem or f"record {record.seq} ({record.kind}): {refused}"
    return Observations(
        outcomes=tuple(total.outcomes),
        cases=total.cases,
        case_failures=total.case_failures,
        trials=total.trials,
        trial_failures=total.trial_failures,
        examples=tuple(total.examples),
        values=tuple(total.values),
        ordered=bool(total.values) and total.ordered,
        failed_at=tuple(total.failed_at) if total.trials and total.in_order else None,
        exposure_seconds=total.exposure_seconds,
        exposure_failures=total.exposure_failures,
        problem=total.problem,
    )


@dataclass(slots=True)
class _Total:
    """The running sums of `observe`."""

    outcomes: list[Outcome] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    failed_at: list[int] = field(default_factory=list)
    ordered: bool = True
    in_order: bool = True
    cases: int = 0
    case_failures: int = 0
    trials: int = 0
    trial_failures: int = 0
    exposure_seconds: float = 0.0
    exposure_failures: int = 0
    problem: str = ""

    def add(self, record: Record, unit: str) -> None:
        match record.kind:
            case "outcome":
                self.outcomes.append(_outcome(record))
            case "cases":
                n, failures = _counts(record.data)
                self.cases, self.case_failures = self.cases + n, self.case_failures + failures
                self.examples.extend(_examples(record.data))
            case "trials":
                n, failures = _counts(record.data)
                self._place(record.data, n, failures)
                self.trials, self.trial_failures = self.trials + n, self.trial_failures + failures
                self.examples.extend(_examples(record.data))
            case "samples":
                self.values.extend(_values(record.data, unit))
                self.ordered = self.ordered and record.data.get("ordered") is True
            case "exposure" if record.fault is None:
                # Time under an injected fault measures recovery, never how often the system fails by itself.
                seconds, failures = _exposure(record.data)
                self.exposure_seconds += seconds
                self.exposure_failures += failures

    def _place(self, data: Mapping[str, object], n: int, failures: int) -> None:
        """Note where in the order of all trials these failed; a record without positions ends the order."""
        if n and "failed_at" not in data:
            self.in_order = False
        elif n:
            self.failed_at.extend(self.trials + place for place in _positions(data["failed_at"], n, failures))


def _outcome(record: Record) -> Outcome:
    outcome = record.data.get("outcome")
    if outcome not in OUTCOMES:
        raise _NoMeasurementError(f"expected an outcome of {', '.join(OUTCOMES)}, got {outcome!r}")
    return Outcome(record.check or "", str(outcome), str(record.data.get("reason") or ""))


def _counts(data: Mapping[str, object]) -> tuple[int, int]:
    n, failures = _whole(data, "n"), _whole(data, "failures")
    if failures > n:
        raise _NoMeasurementError(f"expected at most n = {n} failures, got {failures}")
    return n, failures


def _positions(value: object, n: int, failures: int) -> list[int]:
    places = value if isinstance(value, list) else []
    whole = [place for place in places if isinstance(place, int) and not isinstance(place, bool)]
    if len(whole) != failures or len(set(whole)) != failures or any(not 0 <= place < n for place in whole):
        raise _NoMeasurementError(
            f"expected failed_at to name {failures} of the places 0..{n - 1}, got {value!r}"
        )
    return sorted(whole)


def _whole(data: Mapping[str, object], key: str) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _NoMeasurementError(f"expected {key} to be a whole number from 0, got {value!r}")
    return value


def _finite(value: object, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _NoMeasurementError(f"expected {what} to be a finite number, got {value!r}")
    return float(value)


def _values(data: Mapping[str, object], unit: str) -> list[float]:
    given, values = data.get("unit"), data.get("values")
    if not isinstance(values, list):
        raise _NoMeasurementError(f"expected a list of values, got {type(values).__name__}")
    factor = 1.0
    if given != unit:
        if given not in SECONDS_IN or unit not in SECONDS_IN:
            raise _NoMeasurementError(f"expected values in {unit}, got {given!r}")
        factor = SECONDS_IN[str(given)] / SECONDS_IN[unit]
    numbers = [_finite(value, "each value") * factor for value in values]
    if any(number < 0 for number in numbers):
        raise _NoMeasurementError(f"expected no negative value, got {min(numbers):g}")
    return numbers


def _exposure(data: Mapping[str, object]) -> tuple[float, int]:
    """Return the exposure in seconds, and the failures in that time that nobody injected.

    `seconds` is pooled over the independent `replicas` already; `replicas` is kept for the reader.
    """
    seconds = _finite(data.get("seconds"), "seconds")
    replicas = _whole(data, "replicas") if "replicas" in data else 1
    failures = _whole(data, "failures")
    if seconds < 0 or replicas < 1:
        raise _NoMeasurementError(
            f"expected seconds from 0 and replicas from 1, got {seconds:g} and {replicas}"
        )
    return seconds, failures


def _examples(data: Mapping[str, object]) -> list[str]:
    examples = data.get("examples")
    return [str(example) for example in examples] if isinstance(examples, list) else []
