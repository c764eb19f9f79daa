"""From observations to a figure with its bound, and what that says about the target.

One function an estimator; `estimate` is the table. PROVEN needs the one-sided 95 % bound to meet the target,
FAILED needs the opposite bound to miss it (for violations and cases: any one), everything between is
INCONCLUSIVE with the fewest further samples that would settle it. No data of the right kind is NOT_RUN.
Bounds are bounds.py's, time between failures reliability.py's, outcomes and damaged files verdicts.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from readiness.judge import bounds
from readiness.judge.dependence import LEAST_EFFECTIVE, effective_samples, effective_trials
from readiness.judge.estimate import (
    Estimate,
    bound_reason,
    bounded,
    no_data,
    sooner,
    too_alike,
    too_few,
    worth,
)
from readiness.judge.figures import CASES, count, figure
from readiness.judge.model import Reason, Text, Verdict
from readiness.judge.observations import Observations
from readiness.judge.profile_model import Estimator, EstimatorKind
from readiness.judge.reliability import availability, mtbf
from readiness.judge.targets import percentile_name

# Estimators whose figure is made of trials; elsewhere trials are side conditions.
USES_TRIALS = (EstimatorKind.ZERO_VIOLATIONS, EstimatorKind.RATE, EstimatorKind.COUNT)


def estimate(estimator: Estimator, seen: Observations) -> Estimate:
    """Return what the observations come to under the claim's estimator.

    Cases and trials beside the estimator's own data are side conditions: one failure fails the claim.
    """
    found = _TABLE[estimator.kind](estimator, seen)
    n = failures = 0
    if estimator.kind != EstimatorKind.CHECKS:
        n, failures = seen.cases, seen.case_failures
    if estimator.kind not in USES_TRIALS:
        n, failures = n + seen.trials, failures + seen.trial_failures
    if failures and found.verdict != Verdict.FAILED:
        reason = Reason("cases_failed", {"failures": failures, "n": n}, _first_example(seen))
        return replace(found, verdict=Verdict.FAILED, reason=reason)
    return found


def _checks(estimator: Estimator, seen: Observations) -> Estimate:
    n, failures = seen.cases, seen.case_failures
    if n == 0:
        return no_data(CASES)
    held = count(n, CASES)
    measured = Text(f"{n - failures:,} of {held.en} hold", f"{held.ko} 중 {n - failures:,}건 충족")
    verdict, reason, needed = Verdict.PROVEN, None, None
    if failures:
        verdict = Verdict.FAILED
        reason = Reason("cases_failed", {"failures": failures, "n": n}, _first_example(seen))
    elif n < estimator.minimum_n:
        verdict, reason, needed = (
            Verdict.INCONCLUSIVE,
            too_few(n, estimator.minimum_n, estimator.noun),
            estimator.minimum_n - n,
        )
    return Estimate(verdict, measured, float(n - failures), None, n, failures, needed, reason)


def _zero_violations(estimator: Estimator, seen: Observations) -> Estimate:
    n, failures = seen.trials, seen.trial_failures
    if n == 0:
        return no_data(estimator.noun)
    trials = count(n, estimator.noun)
    bound = bounds.zero_bound(n) if failures == 0 else bounds.rate_upper(failures, n)
    shown = figure(bound, "fraction", away=1)
    measured = Text(
        f"{failures:,} of {trials.en} (true rate ≤ {shown} at 95 %)",
        f"{trials.ko} 중 위반 {failures:,}건 (실제 비율 ≤ {shown}, 신뢰수준 95 %)",
    )
    verdict, reason, needed = Verdict.PROVEN, None, None
    if failures:
        verdict = Verdict.FAILED
        reason = Reason(
            "violations", {"failures": failures, "n_en": trials.en, "n_ko": trials.ko}, _first_example(seen)
        )
    elif n < estimator.minimum_n:
        verdict, reason, needed = (
            Verdict.INCONCLUSIVE,
            too_few(n, estimator.minimum_n, estimator.noun),
            estimator.minimum_n - n,
        )
    return Estimate(verdict, measured, failures / n, bound, n, failures, needed, reason)


def _rate(estimator: Estimator, seen: Observations) -> Estimate:
    n, failures, limit = seen.trials, seen.trial_failures, estimator.limit
    if n == 0:
        return no_data(estimator.noun)
    n_eff = seen.trials_eff if seen.failed_at is None else effective_trials(n, seen.failed_at)
    size = n_eff or n
    most, least = bounds.effective_counts(failures, n, size)
    upper, lower = bounds.rate_upper(most, size), bounds.rate_lower(least, size)
    verdict, bound, needed = Verdict.INCONCLUSIVE, upper, None
    if upper < limit:
        verdict = Verdict.PROVEN
    elif lower >= limit:
        verdict, bound = Verdict.FAILED, lower
    else:
        further = sooner(
            bounds.further_to_prove(size, most, lambda k: bounds.trials_needed(k, limit)),
            bounds.further_to_refute(size, least, lambda k, total: bounds.rate_lower(k, total) >= limit),
        )
        needed = bounds.scaled_up(further, n, size)
    shown = bounded(bound, "fraction", upper=verdict != Verdict.FAILED)
    trials = count(n, estimator.noun)
    rate = figure(failures / n, "fraction")
    measured = Text(
        f"{rate} ({shown} at 95 %, {failures:,} of {trials.en}{worth(n_eff).en})",
        f"{rate} ({shown}, 신뢰수준 95 %, {trials.ko} 중 {failures:,}건{worth(n_eff).ko})",
    )
    reason = bound_reason(verdict, shown)
    return Estimate(verdict, measured, failures / n, bound, n, failures, needed, reason, n_eff)


def _percentile(estimator: Estimator, seen: Observations) -> Estimate:
    n, q, limit = len(seen.values), estimator.quantile or 0.0, estimator.limit
    if n == 0:
        return no_data(estimator.noun)
    n_eff = effective_samples(seen.values, q) if seen.ordered else None
    size, ordered = n_eff or n, sorted(seen.values)
    value = ordered[max(0, math.ceil(q * n - 1e-9) - 1)]
    exceed = sum(1 for sample in ordered if sample >= limit)
    # Of a sequence that cannot tell its own correlation only the bad news is believed.
    trusted = n_eff is None or n_eff >= LEAST_EFFECTIVE
    upper = _ranked(ordered, bounds.percentile_upper_rank(n, q, n_eff=size) if trusted else None)
    lower = _ranked(ordered, bounds.percentile_lower_rank(n, q, n_eff=size))
    verdict, bound, needed = Verdict.INCONCLUSIVE, upper, None
    if upper is not None and upper < limit:
        verdict = Verdict.PROVEN
    elif lower is not None and lower >= limit:
        verdict, bound = Verdict.FAILED, lower
    else:
        most, least = bounds.effective_counts(exceed, n, size)
        further = sooner(
            bounds.further_to_prove(
                size, most, lambda k: max(LEAST_EFFECTIVE, bounds.trials_needed(k, 1 - q))
            )
            if n_eff
            else bounds.further_to_prove(n, exceed, lambda k: bounds.trials_needed(k, 1 - q)),
            bounds.further_to_refute(size, least, lambda k, total: bounds.rate_lower(k, total) > 1 - q),
        )
        needed = bounds.scaled_up(further, n, size)
    samples, shown, alike = count(n, estimator.noun), figure(value, estimator.unit), worth(n_eff)
    if bound is None:
        measured = Text(f"{shown} (n = {samples.en}{alike.en})", f"{shown} ({samples.ko}{alike.ko})")
        least_n = bounds.trials_needed(0, 1 - q)
        reason: Reason | None = too_few(n, least_n, estimator.noun)
        if n_eff is not None and n >= least_n:
            reason = too_alike(n, n_eff, max(least_n, LEAST_EFFECTIVE), estimator.noun)
    else:
        side = bounded(bound, estimator.unit, upper=verdict != Verdict.FAILED)
        named = f"{percentile_name(estimator)} {side}"
        measured = Text(
            f"{shown} ({named} at 95 %, n = {samples.en}{alike.en})",
            f"{shown} ({named}, 신뢰수준 95 %, {samples.ko}{alike.ko})",
        )
        reason = bound_reason(verdict, named)
    return Estimate(verdict, measured, value, bound, n, exceed, needed, reason, n_eff)


def _ranked(ordered: list[float], rank: int | None) -> float | None:
    return None if rank is None else ordered[rank - 1]


def _count(estimator: Estimator, seen: Observations) -> Estimate:
    n, events, limit, window = seen.trials, seen.trial_failures, estimator.limit, estimator.window or 1
    if n == 0:
        return no_data(estimator.noun)
    windows = n / window
    upper, lower = bounds.poisson_upper(events) / windows, bounds.poisson_lower(events) / windows
    verdict, bound, needed = Verdict.INCONCLUSIVE, upper, None
    if upper < limit:
        verdict = Verdict.PROVEN
    elif lower >= limit:
        verdict, bound = Verdict.FAILED, lower
    else:
        needed = sooner(
            bounds.further_to_prove(
                n, events, lambda k: math.floor(bounds.poisson_upper(k) * window / limit) + 1
            ),
            bounds.further_to_refute(
                n, events, lambda k, total: bounds.poisson_lower(k) * window / total >= limit
            ),
        )
    shown = bounded(bound, "", upper=verdict != Verdict.FAILED)
    jobs, per = count(n, estimator.noun), count(window, estimator.noun)
    measured = Text(
        f"{events:,} in {jobs.en} ({shown} per {per.en} at 95 %)",
        f"{jobs.ko} 중 {events:,}건 ({per.ko}당 {shown}, 신뢰수준 95 %)",
    )
    reason = bound_reason(verdict, shown)
    return Estimate(verdict, measured, events / windows, bound, n, events, needed, reason)


def _worst(estimator: Estimator, seen: Observations) -> Estimate:
    n = len(seen.values)
    if n == 0:
        return no_data(estimator.noun)
    worst, samples = max(seen.values), count(n, estimator.noun)
    shown = figure(worst, estimator.unit, away=1)
    measured = Text(f"{shown} (the worst of {samples.en})", f"{shown} ({samples.ko} 중 최악값)")
    exceed = sum(1 for value in seen.values if value >= estimator.limit)
    verdict, reason, needed = Verdict.PROVEN, None, None
    if exceed:
        verdict, reason = Verdict.FAILED, Reason("above_maximum", {"value": shown})
    elif n < estimator.minimum_n:
        verdict, reason, needed = (
            Verdict.INCONCLUSIVE,
            too_few(n, estimator.minimum_n, estimator.noun),
            estimator.minimum_n - n,
        )
    return Estimate(verdict, measured, worst, None, n, exceed, needed, reason)


def _first_example(seen: Observations) -> str:
    return seen.examples[0] if seen.examples else ""


_TABLE: Mapping[EstimatorKind, Callable[[Estimator, Observations], Estimate]] = {
    EstimatorKind.CHECKS: _checks,
    EstimatorKind.ZERO_VIOLATIONS: _zero_violations,
    EstimatorKind.RATE: _rate,
    EstimatorKind.PERCENTILE: _percentile,
    EstimatorKind.COUNT: _count,
    EstimatorKind.MTBF: mtbf,
    EstimatorKind.AVAILABILITY: availability,
    EstimatorKind.WORST: _worst,
}
