"""One-sided 95 % bounds, from counts to figures: the statistics under every verdict.

Pure functions of numbers, by SciPy. Which data go in and what a verdict follows is estimators.py's.

Sources: Clopper & Pearson 1934 (rates); Hahn & Meeker, Statistical Intervals, 2nd ed., ch. 5 (order
statistics); Korn & Graubard 1998 (dependent samples); Garwood 1936 (Poisson); Epstein & Sobel 1953 (exponential
life tests, time-terminated: 2T / chi2(0.95; 2r + 2)).
"""

from __future__ import annotations

from collections.abc import Callable

from scipy.special import bdtr, betaincinv, chdtri

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
# Plans for more samples than this are nobody's plan; `None` is answered instead.
MOST_SAMPLES = 100_000_000


def rate_upper(failures: int, n: int, *, alpha: float = ALPHA) -> float:
    """Return the Clopper-Pearson upper bound of a failure rate after `failures` in `n` trials."""
    return 1.0 if failures >= n else float(betaincinv(failures + 1, n - failures, 1 - alpha))


def rate_lower(failures: int, n: int, *, alpha: float = ALPHA) -> float:
    """Return the Clopper-Pearson lower bound of a failure rate."""
    return 0.0 if failures == 0 else float(betaincinv(failures, n - failures + 1, alpha))


def trials_needed(failures: int, limit: float) -> int:
    """Return the fewest trials with `failures` failures whose upper bound is below `limit` (0 to 1)."""
    low, high = failures, max(1, failures)
    while high < MOST_SAMPLES and float(bdtr(failures, high, limit)) > ALPHA:
        low, high = high, 2 * high
    return _smallest(low + 1, high, lambda n: float(bdtr(failures, n, limit)) <= ALPHA)


def percentile_upper_rank(n: int, q: float, *, n_eff: int | None = None) -> int | None:
    """Return the smallest rank r (from 1) with P(Bin(n, q) <= r - 1) >= 95 %, or None when n is too small.

    The r-th smallest of n samples is then an upper bound of the q-quantile, whatever the distribution. Of samples that
    are worth only `n_eff` independent ones, the share above the bound is that of n_eff samples, rounded down.
    """
    size = n if n_eff is None else n_eff
    if size < 1 or float(bdtr(size - 1, size, q)) < CONFIDENCE:
        return None
    rank = _smallest(1, size, lambda rank: float(bdtr(rank - 1, size, q)) >= CONFIDENCE)
    return n - (size - rank) * n // size


def percentile_lower_rank(n: int, q: float, *, n_eff: int | None = None) -> int | None:
    """Return the largest rank s with P(Bin(n, q) >= s) >= 95 %, or None.

    The s-th smallest of n samples is then a lower bound of the q-quantile.
    """
    size = n if n_eff is None else n_eff
    if size < 1 or float(bdtr(0, size, q)) > ALPHA:
        return None
    rank = _smallest(1, size, lambda rank: float(bdtr(rank, size, q)) > ALPHA)
    return (rank - 1) * n // size + 1


def effective_counts(failures: int, n: int, n_eff: int) -> tuple[int, int]:
    """Return the failures among `n_eff` independent trials for the upper and for the lower bound of their rate.

    Korn & Graubard, Survey Methodology 24 (1998): the rate seen, with the effective number of trials; made whole
    upwards for the upper bound and downwards for the lower one.
    """
    return -(-failures * n_eff // n), failures * n_eff // n


def scaled_up(needed: int | None, n: int, n_eff: int) -> int | None:
    """Return how many further samples are worth `needed` further independent ones, alike as so far."""
    return None if needed is None else -(-needed * n // n_eff)


def poisson_upper(count: int, *, alpha: float = ALPHA) -> float:
    """Return the upper bound of a Poisson mean after `count` events."""
    return float(chdtri(2 * (count + 1), alpha)) / 2


def poisson_lower(count: int, *, alpha: float = ALPHA) -> float:
    """Return the lower bound of a Poisson mean after `count` events."""
    return 0.0 if count == 0 else float(chdtri(2 * count, 1 - alpha)) / 2


def mtbf_lower(exposure: float, failures: int, *, alpha: float = ALPHA) -> float:
    """Return the lower bound of the mean time between failures, in the unit of `exposure`."""
    return exposure / poisson_upper(failures, alpha=alpha)


def mtbf_upper(exposure: float, failures: int, *, alpha: float = ALPHA) -> float:
    """Return the upper bound of the mean time between failures; infinite when none was seen."""
    lower = poisson_lower(failures, alpha=alpha)
    return exposure / lower if lower > 0 else float("inf")


def mean_upper(total: float, n: int, *, alpha: float = ALPHA) -> float:
    """Return the upper bound of a mean of `n` exponential times that add up to `total`.

    Recoveries vary less than exponential times do, so the bound errs on the safe side.
    """
    return 2 * total / float(chdtri(2 * n, 1 - alpha))


def mean_lower(total: float, n: int, *, alpha: float = ALPHA) -> float:
    """Return the lower bound of a mean of `n` exponential times that add up to `total`."""
    return 2 * total / float(chdtri(2 * n, alpha))


def zero_bound(n: int) -> float:
    """Return the rate that 0 violations in `n` trials bound from above: 1 - 0.05^(1/n), about 3/n."""
    return float(1 - ALPHA ** (1 / n))


def further_to_prove(n: int, failures: int, total_needed: Callable[[int], int]) -> int | None:
    """Return the fewest further samples that prove the claim if failures come on as so far.

    "As so far": among N samples there are floor(failures * N / n). `total_needed(k)` is the fewest samples, k
    failures among them, that prove it. None: the rate seen so far leads nowhere within `MOST_SAMPLES`.
    """
    if failures == 0:
        return max(1, total_needed(0) - n)
    k = _first(
        failures,
        limit=failures * MOST_SAMPLES // n,
        holds=lambda k: total_needed(k) <= _last_total(k, n, failures),
    )
    if k is None:
        return None
    return max(total_needed(k), _first_total(k, n, failures), n + 1) - n


def further_to_refute(n: int, failures: int, refuted: Callable[[int, int], bool]) -> int | None:
    """Return the fewest further samples after which `refuted(failures, n)` holds, going on as so far."""
    if failures == 0:
        return None
    k = _first(
        failures + 1,
        limit=failures * MOST_SAMPLES // n,
        holds=lambda k: refuted(k, _first_total(k, n, failures)),
    )
    return None if k is None else _first_total(k, n, failures) - n


def _first_total(k: int, n: int, failures: int) -> int:
    return -(-k * n // failures)


def _last_total(k: int, n: int, failures: int) -> int:
    return _first_total(k + 1, n, failures) - 1


def _first(start: int, *, limit: int, holds: Callable[[int], bool]) -> int | None:
    """Return the smallest k >= start that holds, for a condition that once true stays (nearly) true."""
    # The steps of whole samples make the condition flicker at its edge, so the first stretch is walked.
    for k in range(start, start + 64):
        if holds(k):
            return k
    step, low = 64, start + 63
    while low + step <= limit and not holds(low + step):
        low, step = low + step, 2 * step
    if low + step > limit:
        return None
    edge = _smallest(low + 1, low + step, holds)
    return next((k for k in range(max(start, edge - 64), edge) if holds(k)), edge)


def _smallest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest whole number in low..high that holds; `high` is known to."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
