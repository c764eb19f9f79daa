"""Time between failures and availability: estimators over exposure, not over samples.

Only failures that nobody injected count; injected faults measure recovery. Exposure is seconds
pooled over independent replicas, and failures are taken to come at a constant rate, which short runs cannot check.
"""

from __future__ import annotations

import math

from readiness.judge import bounds
from readiness.judge.estimate import Estimate, bound_reason, bounded, no_data
from readiness.judge.figures import HOUR, NOUNS, count, figure, span
from readiness.judge.model import Reason, Text, Verdict
from readiness.judge.observations import Observations
from readiness.judge.profile_model import Estimator

# Availability joins two bounds, so each gets half of the 5 % (Bonferroni).
HALF_ALPHA = bounds.ALPHA / 2
RECOVERIES = NOUNS["recoveries"]
FAILURES = Text("failures", "장애")
EXPOSURE = Text("observation time", "관측 시간")


def mtbf(estimator: Estimator, seen: Observations) -> Estimate:
    seconds, failures = seen.exposure_seconds, seen.exposure_failures
    n = math.floor(seconds)
    if n == 0:
        return no_data(EXPOSURE)
    limit = estimator.limit * HOUR
    lower, upper = bounds.mtbf_lower(seconds, failures), bounds.mtbf_upper(seconds, failures)
    value = seconds / failures / HOUR if failures else None
    verdict, bound, needed, reason = Verdict.INCONCLUSIVE, lower, None, None
    if lower > limit:
        verdict = Verdict.PROVEN
    elif upper <= limit:
        verdict, bound = Verdict.FAILED, upper
        reason = bound_reason(verdict, f"≤ {span(upper, away=1).en}")
    else:
        needed, reason = _more_exposure(n, failures, limit, alpha=bounds.ALPHA)
    sign, away = ("≤", 1) if verdict == Verdict.FAILED else ("≥", -1)
    failed, watched, shown = count(failures, FAILURES), span(seconds), span(bound, away=away)
    measured = Text(
        f"{failed.en} in {watched.en} (MTBF {sign} {shown.en} at 95 %)",
        f"{watched.ko} 동안 {failed.ko} (MTBF {sign} {shown.ko}, 신뢰수준 95 %)",
    )
    return Estimate(verdict, measured, value, bound / HOUR, n, failures, needed, reason)


def _more_exposure(n: int, failures: int, mtbf_seconds: float, *, alpha: float) -> tuple[int | None, Reason]:
    """Return the further seconds that would prove this mean time between failures, and the reason."""
    watched = span(n)
    needed = bounds.further_to_prove(
        n, failures, lambda k: math.floor(bounds.poisson_upper(k, alpha=alpha) * mtbf_seconds) + 1
    )
    if needed is None:
        return None, Reason("short_exposure_hopeless", {"time_en": watched.en, "time_ko": watched.ko})
    whole = span(n + needed)
    params = {"time_en": watched.en, "time_ko": watched.ko, "need_en": whole.en, "need_ko": whole.ko}
    return needed, Reason("short_exposure", params)


def availability(estimator: Estimator, seen: Observations) -> Estimate:
    """Judge MTBF / (MTBF + MTTR) by the lower bound of the first and the upper bound of the second.

    MTTR is the mean of the recovery samples (s), bounded as a mean of exponential times; each bound is at
    97.5 %, so that both hold at 95 % (Bonferroni).
    """
    seconds, failures, recoveries = seen.exposure_seconds, seen.exposure_failures, len(seen.values)
    n = math.floor(seconds)
    if n == 0 or recoveries == 0:
        return no_data(EXPOSURE if n == 0 else RECOVERIES)
    total = max(sum(seen.values), 1e-9)
    mttr_high = bounds.mean_upper(total, recoveries, alpha=HALF_ALPHA)
    mttr_low = bounds.mean_lower(total, recoveries, alpha=HALF_ALPHA)
    mtbf_low = bounds.mtbf_lower(seconds, failures, alpha=HALF_ALPHA)
    mtbf_high = bounds.mtbf_upper(seconds, failures, alpha=HALF_ALPHA)
    lower = mtbf_low / (mtbf_low + mttr_high)
    upper = 1.0 if math.isinf(mtbf_high) else mtbf_high / (mtbf_high + mttr_low)
    limit = estimator.limit
    verdict, bound, needed, reason = Verdict.INCONCLUSIVE, lower, None, None
    if lower >= limit:
        verdict = Verdict.PROVEN
    elif upper < limit:
        verdict, bound = Verdict.FAILED, upper
        reason = bound_reason(verdict, bounded(upper, "fraction", upper=True))
    else:
        needed, reason = _more_exposure(n, failures, mttr_high * limit / (1 - limit), alpha=HALF_ALPHA)
    shown = bounded(bound, "fraction", upper=verdict == Verdict.FAILED)
    value = 1 - failures * (total / recoveries) / seconds
    failed, watched = count(failures, FAILURES), span(seconds)
    back, mean = count(recoveries, RECOVERIES), figure(total / recoveries, "s")
    measured = Text(
        f"{shown} at 95 % ({failed.en} in {watched.en}, {back.en} of {mean} on average)",
        f"{shown}, 신뢰수준 95 % ({watched.ko} 동안 {failed.ko}, {back.ko} 평균 {mean})",
    )
    return Estimate(verdict, measured, max(0.0, value), bound, n, failures, needed, reason)
