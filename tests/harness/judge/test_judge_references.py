"""The judge against independent references: other algorithms for the same bounds, over 10,000 random cases each.

The bounds of judge/bounds.py invert beta and chi-squared functions. The references here do not: they sum binomial and
Poisson probabilities (scipy.stats) over every outcome that would be proven at a truth on the target, which must come to
at most 5 %, and they enumerate the tables of research/readiness.md, section 2b.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from readiness.judge import bounds
from readiness.judge.estimators import estimate
from readiness.judge.figures import NOUNS, SECONDS
from readiness.judge.model import Verdict
from readiness.judge.observations import Observations
from readiness.judge.power import most_failures
from readiness.judge.profile_model import Estimator, EstimatorKind

CASES = 10_000
SEED = 20261123
JOBS = NOUNS["jobs"]
# Sums of probabilities are exact to rounding.
LEVEL = 0.05 + 1e-9


def draws() -> np.random.Generator:
    return np.random.default_rng(SEED)


def sizes(generator: np.random.Generator, count: int = CASES, largest: int = 20_000) -> np.ndarray:
    """Return sample sizes from 1, as many small as large ones."""
    return np.exp(generator.uniform(0, np.log(largest), count)).astype(int)


def targets(generator: np.random.Generator, count: int = CASES) -> np.ndarray:
    """Return rates between 0.001 and 0.9."""
    return np.exp(generator.uniform(np.log(0.001), np.log(0.9), count))


def test_rates_on_the_target_are_falsely_proven_and_failed_in_at_most_5_percent() -> None:
    """10,000 random (n, p): the exact chance of a proof, and of a failure, at a truth of p itself is at most 5 %."""
    generator = draws()
    n, p = sizes(generator), targets(generator)
    most = np.array([most_failures(int(size), float(rate)) for size, rate in zip(n, p, strict=True)])
    assert (stats.binom.cdf(most, n, p) <= LEVEL).all()
    assert (most >= 0).mean() > 0.3
    refuted = np.array([_fewest_that_refute(int(size), float(rate)) for size, rate in zip(n, p, strict=True)])
    assert (stats.binom.sf(refuted - 1, n, p) <= LEVEL).all()


def _fewest_that_refute(n: int, limit: float) -> int:
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bounds.rate_lower(middle, n) >= limit else (middle, high)
    return high


def test_rate_bounds_are_those_of_the_exact_binomial_test() -> None:
    """300 random cases against scipy.stats.binomtest, which finds its interval by root search."""
    generator = draws()
    for size, rate in zip(sizes(generator, 300, 2_000), targets(generator, 300), strict=True):
        n, k = int(size), int(generator.binomial(size, rate))
        reference = stats.binomtest(k, n).proportion_ci(confidence_level=0.9, method="exact")
        assert bounds.rate_upper(k, n) == pytest.approx(reference.high, abs=1e-9)
        assert bounds.rate_lower(k, n) == pytest.approx(reference.low, abs=1e-9)


def test_percentiles_on_the_target_are_falsely_proven_and_failed_in_at_most_5_percent() -> None:
    """10,000 random (n, q): the exact chance that the bound lies on the wrong side of the quantile is at most 5 %."""
    generator = draws()
    n, q = sizes(generator), generator.uniform(0.05, 0.999, CASES)
    upper, lower = [], []
    for size, level in zip(n, q, strict=True):
        upper.append(bounds.percentile_upper_rank(int(size), float(level)) or 0)
        lower.append(bounds.percentile_lower_rank(int(size), float(level)) or 0)
    high, low = np.array(upper), np.array(lower)
    # The r-th smallest lies below the quantile when at least r samples do.
    assert (np.where(high > 0, stats.binom.sf(high - 1, n, q), 0.0) <= LEVEL).all()
    # The s-th smallest lies above it when fewer than s samples lie below.
    assert (np.where(low > 0, stats.binom.cdf(low - 1, n, q), 0.0) <= LEVEL).all()
    # And the ranks are the tightest that keep the level.
    tighter = (high > 1) & (stats.binom.sf(high - 2, n, q) <= 0.05 - 1e-9)
    assert not tighter.any()
    assert (high > 0).mean() > 0.5


def test_counts_on_the_target_are_falsely_proven_in_at_most_5_percent() -> None:
    """10,000 random (jobs, window, limit): the exact Poisson chance of a proof at the limit itself is at most 5 %."""
    generator = draws()
    mean = np.exp(generator.uniform(np.log(0.1), np.log(2_000), CASES))
    most = np.array([_most(float(one)) for one in mean])
    assert (np.where(most >= 0, stats.poisson.cdf(most, mean), 0.0) <= LEVEL).all()
    assert ((most >= 0) == (mean > -np.log(0.05))).all()
    below = np.array([_most_below(float(one)) for one in mean])
    assert (stats.poisson.sf(below - 1, mean) <= LEVEL).all()


def _most(mean: float) -> int:
    """The most events whose upper bound is below `mean`."""
    k = -1
    step = max(1, int(mean))
    while step:
        while bounds.poisson_upper(k + step) < mean:
            k += step
        step //= 2
    return k


def _most_below(mean: float) -> int:
    """The fewest events whose lower bound reaches `mean`."""
    k = 0
    step = max(1, int(mean))
    while step:
        while bounds.poisson_lower(k + step) < mean:
            k += step
        step //= 2
    return k + 1


def test_times_between_failures_on_the_target_are_falsely_proven_in_at_most_5_percent() -> None:
    """10,000 random (exposure, MTBF): failures are a Poisson process, so the chance of a proof is a Poisson sum."""
    generator = draws()
    hours = np.exp(generator.uniform(np.log(1), np.log(1e5), CASES))
    mtbf = np.exp(generator.uniform(np.log(1), np.log(1e4), CASES))
    most = np.array([_most(float(t / m)) for t, m in zip(hours, mtbf, strict=True)])
    for t, m, k in zip(hours[:500], mtbf[:500], most[:500], strict=True):
        assert k < 0 or bounds.mtbf_lower(float(t), int(k)) > m
        assert bounds.mtbf_lower(float(t), int(k) + 1) <= m
    assert (np.where(most >= 0, stats.poisson.cdf(most, hours / mtbf), 0.0) <= LEVEL).all()


def test_availability_on_the_target_is_falsely_proven_in_at_most_5_percent() -> None:
    """10,000 random systems exactly on their target, each run once: at most 5 % of proofs, and simulation error."""
    generator = draws()
    proven = 0
    for _ in range(CASES):
        limit, mttr = float(generator.uniform(0.9, 0.9999)), float(generator.uniform(0.5, 300))
        recoveries = int(generator.integers(1, 60))
        mean_failures = float(np.exp(generator.uniform(np.log(0.1), np.log(200))))
        seconds = mean_failures * mttr * limit / (1 - limit)
        failures, total = int(generator.poisson(mean_failures)), float(generator.gamma(recoveries, mttr))
        low = bounds.mtbf_lower(seconds, failures, alpha=0.025)
        proven += low / (low + bounds.mean_upper(total, recoveries, alpha=0.025)) >= limit
    assert proven / CASES <= 0.05 + 4 * (0.05 * 0.95 / CASES) ** 0.5


def test_mean_bounds_are_those_of_the_gamma_distribution() -> None:
    """A sum of exponential times is gamma: 10,000 random cases, its tail at the bound is exactly 5 %."""
    generator = draws()
    n, total = generator.integers(1, 500, CASES), np.exp(generator.uniform(-3, 8, CASES))
    upper = np.array([bounds.mean_upper(float(t), int(k)) for t, k in zip(total, n, strict=True)])
    lower = np.array([bounds.mean_lower(float(t), int(k)) for t, k in zip(total, n, strict=True)])
    assert stats.gamma.cdf(total, n, scale=upper) == pytest.approx(np.full(CASES, 0.05), abs=1e-9)
    assert stats.gamma.sf(total, n, scale=lower) == pytest.approx(np.full(CASES, 0.05), abs=1e-9)


def test_zero_violations_bound_is_exact() -> None:
    """10,000 sizes: a rate at the bound shows no violation in exactly 5 % of runs."""
    n = sizes(draws())
    bound = np.array([bounds.zero_bound(int(size)) for size in n])
    assert (1 - bound) ** n == pytest.approx(np.full(CASES, 0.05), abs=1e-9)


@pytest.mark.parametrize(
    ("estimator", "at_target"),
    [
        (Estimator(EstimatorKind.RATE, "fraction", JOBS, limit=0.03), 0.03),
        (Estimator(EstimatorKind.PERCENTILE, "s", JOBS, limit=60.0, quantile=0.95), 0.05),
        (Estimator(EstimatorKind.COUNT, "", JOBS, limit=10.0, window=500), 0.02),
    ],
)
def test_the_judge_himself_keeps_the_level(estimator: Estimator, at_target: float) -> None:
    """Not the bounds alone: every outcome is put before the judge, and what he proves at the target adds up to 5 %."""
    for n in (59, 99, 157, 340, 612):
        for verdict in (Verdict.PROVEN, Verdict.FAILED):
            outcomes = [k for k in range(min(n, 120) + 1) if _judged(estimator, n, k) == verdict]
            spread = stats.poisson(n * at_target) if estimator.window else stats.binom(n, at_target)
            assert sum(spread.pmf(k) for k in outcomes) <= LEVEL, (n, verdict)


def _judged(estimator: Estimator, n: int, k: int) -> Verdict:
    seen = Observations(trials=n, trial_failures=k)
    if estimator.quantile:
        seen = replace(seen, trials=0, trial_failures=0, values=(1.0,) * (n - k) + (61.0,) * k)
    return estimate(estimator, seen).verdict


# research/readiness.md, section 2b, to the digit


@pytest.mark.parametrize(
    ("limit", "row"),
    [
        (0.05, (59, 93, 124, 153, 208, 336)),
        (0.03, (99, 157, 208, 257, 348, 562)),
        (0.01, (299, 473, 628, 773, 1_049, 1_693)),
        (0.001, (2_995, 4_742, 6_294, 7_752, 10_511, 16_959)),
    ],
)
def test_table_of_rates_by_summing_the_binomial(limit: float, row: tuple[int, ...]) -> None:
    """Every row and column: the published n is the first whose chance of so few failures is at most 5 %."""
    for failures, n in zip((0, 1, 2, 3, 5, 10), row, strict=True):
        tail = stats.binom.cdf(failures, np.arange(1, n + 1), limit)
        assert int(np.argmax(tail <= 0.05)) + 1 == n == bounds.trials_needed(failures, limit)


def test_lines_below_the_table() -> None:
    """MTBF, availability, percentiles, counts, recoveries and the zero bound, each by another way and by the judge."""
    hours = [24 * float(stats.gamma.ppf(0.95, r + 1)) for r in (0, 1, 2)]
    assert [round(one, 1) for one in hours] == [71.9, 113.9, 151.1]
    for r, one in enumerate(hours):
        claim = Estimator(EstimatorKind.MTBF, "h", SECONDS, limit=24.0)
        for margin, verdict in ((1.001, Verdict.PROVEN), (0.999, Verdict.INCONCLUSIVE)):
            seen = Observations(exposure_seconds=one * 3600 * margin, exposure_failures=r)
            assert estimate(claim, seen).verdict == verdict
    free = [-np.log(0.05) * 999 * mttr / 3600 for mttr in (5, 10, 30, 60, 300)]
    assert [f"{one:.3g}" for one in free] == ["4.16", "8.31", "24.9", "49.9", "249"]
    assert [round(one, 1) for one in free[:4]] == [4.2, 8.3, 24.9, 49.9]
    exceed = []
    for n in (59, 100, 200, 500, 1_000, 10_000):
        above = np.arange(0, n)
        exceed.append(int(np.flatnonzero(stats.binom.cdf(above, n, 0.05) <= 0.05)[-1]))
        rank = bounds.percentile_upper_rank(n, 0.95)
        assert rank is not None
        assert n - rank == exceed[-1]
    assert exceed == [0, 1, 4, 16, 38, 463]
    upper = [float(stats.gamma.ppf(0.95, k + 1)) for k in (0, 2, 4, 5)]
    assert [round(one, 1) for one in upper] == [3.0, 6.3, 9.2, 10.5]
    assert [bounds.poisson_upper(k) for k in (0, 2, 4, 5)] == pytest.approx(upper)
    assert upper[2] < 10 < upper[3]  # "fewer than 10": at most 4 seen
    assert round(100 * (1 - 0.5**5), 1) == 96.9
    assert bounds.percentile_upper_rank(5, 0.5) == 5
    assert bounds.percentile_upper_rank(4, 0.5) is None
    assert bounds.percentile_upper_rank(59, 0.95) == 59
    assert bounds.percentile_upper_rank(58, 0.95) is None
    assert [round(1e6 * bounds.zero_bound(n)) for n in (100_000, 1_000_000)] == [30, 3]
