"""How likely a run of a given size proves a claim: strict is good, deaf is not, and both can be known beforehand.

The truth is taken to be `share` of what the target allows (half of it unless said otherwise), and samples to be
independent. All chances are exact: sums of binomial and Poisson probabilities up to the last number of failures that
still proves. Sources: Clopper & Pearson 1934, Garwood 1936, Epstein & Sobel 1953; Wald 1947 for the sequential plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import bdtr, chdtri, gammainc, pdtr

from readiness.judge import bounds
from readiness.judge.figures import HOUR
from readiness.judge.profile_model import Estimator, EstimatorKind

HALF = 0.5
# Beyond this probability of more failures nothing is gained by adding up further terms.
NEGLIGIBLE = 1e-9


def chance_of_proof(  # noqa: PLR0911 - one return an estimator
    estimator: Estimator, n: int, *, share: float = HALF, recoveries: int = 0, recovery_seconds: float = 0.0
) -> float | None:
    """Return the chance (0 to 1) that `n` samples, trials or seconds prove the target; None where none is taken.

    Availability needs the number of recoveries beside the seconds of observation, and how long one truly takes.
    """
    if n < 1:
        return 0.0
    match estimator.kind:
        case EstimatorKind.RATE:
            return _binomial(most_failures(n, estimator.limit), n, share * estimator.limit)
        case EstimatorKind.PERCENTILE:
            q = estimator.quantile or 0.0
            rank = bounds.percentile_upper_rank(n, q)
            return 0.0 if rank is None else _binomial(n - rank, n, share * (1 - q))
        case EstimatorKind.COUNT:
            window = estimator.window or 1
            most = _most(lambda k: bounds.poisson_upper(k) * window / n < estimator.limit)
            return _poisson(most, share * estimator.limit * n / window)
        case EstimatorKind.MTBF:
            least = estimator.limit * HOUR
            most = _most(lambda k: bounds.mtbf_lower(n, k) > least)
            return _poisson(most, share * n / least)
        case EstimatorKind.AVAILABILITY:
            return _availability(estimator.limit, n, share, recoveries, recovery_seconds)
    return None


def chance_of_notice(n: int, rate: float) -> float:
    """Return the chance that `n` trials show at least one violation that happens at `rate`: 1 - (1 - rate)^n."""
    return float(-math.expm1(n * math.log1p(-rate))) if rate < 1 else 1.0


def most_failures(n: int, limit: float) -> int:
    """Return the most failures among `n` trials that still prove a rate below `limit`; -1 when not even none does."""
    return _most(lambda k: k < n and bounds.rate_upper(k, n) < limit)


def straight_successes(
    good: float, bad: float, *, alpha: float = bounds.ALPHA, beta: float = bounds.ALPHA
) -> int:
    """Return after how many successes in a row Wald's sequential test accepts a failure rate `good` against `bad`."""
    return math.ceil(math.log(alpha / (1 - beta)) / math.log((1 - bad) / (1 - good)))


def _availability(
    limit: float, seconds: int, share: float, recoveries: int, recovery_seconds: float
) -> float:
    """Add up over the number of failures: its chance, times that of recoveries short enough for that many."""
    if recoveries < 1 or recovery_seconds <= 0:
        return 0.0
    down = share * (1 - limit)
    mean = seconds / (recovery_seconds * (1 - down) / down)
    half = bounds.ALPHA / 2
    total, before, k = 0.0, 0.0, 0
    while before < 1 - NEGLIGIBLE and k < 10_000:
        upto = float(pdtr(k, mean))
        longest = bounds.mtbf_lower(seconds, k, alpha=half) * (1 - limit) / limit
        allowed = longest * float(chdtri(2 * recoveries, 1 - half)) / 2
        total += (upto - before) * float(gammainc(recoveries, allowed / recovery_seconds))
        before, k = upto, k + 1
    return total


def _most(proves: Callable[[int], bool]) -> int:
    """Return the largest number of failures that proves, -1 when none does; proving ends once and for all."""
    if not proves(0):
        return -1
    low, high = 0, 1
    while proves(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if proves(middle) else (low, middle)
    return low


def _binomial(most: int, n: int, rate: float) -> float:
    return 0.0 if most < 0 else float(bdtr(min(most, n), n, rate))


def _poisson(most: int, mean: float) -> float:
    return 0.0 if most < 0 else float(pdtr(most, mean))
