"""The statistics under every verdict, against the published table and against brute force."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from scipy.stats import chi2

from readiness.judge import bounds
from readiness.judge.estimators import estimate
from readiness.judge.figures import SECONDS
from readiness.judge.model import Verdict
from readiness.judge.observations import Observations
from readiness.judge.profile_model import Estimator, EstimatorKind

# research/readiness.md section 2b: trials needed with 0, 1, 2, 3, 5 and 10 failures.
RATE_TABLE = {
    0.05: (59, 93, 124, 153, 208, 336),
    0.03: (99, 157, 208, 257, 348, 562),
    0.01: (299, 473, 628, 773, 1_049, 1_693),
    0.001: (2_995, 4_742, 6_294, 7_752, 10_511, 16_959),
}


@pytest.mark.parametrize("limit", RATE_TABLE)
def test_trials_needed_are_those_of_the_table(limit: float) -> None:
    """A rate target is proven with exactly the published number of trials, and not with one less."""
    for failures, n in zip((0, 1, 2, 3, 5, 10), RATE_TABLE[limit], strict=True):
        assert bounds.trials_needed(failures, limit) == n
        assert bounds.rate_upper(failures, n) < limit <= bounds.rate_upper(failures, n - 1)


@pytest.mark.parametrize(
    ("n", "exceed"), [(59, 0), (100, 1), (200, 4), (500, 16), (1_000, 38), (10_000, 463)]
)
def test_exceedances_that_a_p95_allows(n: int, exceed: int) -> None:
    """The upper bound of P95 leaves exactly the published number of samples above it."""
    rank = bounds.percentile_upper_rank(n, 0.95)
    assert rank is not None
    assert n - rank == exceed


@pytest.mark.parametrize(("q", "least"), [(0.5, 5), (0.95, 59), (0.99, 299), (0.999, 2_995)])
def test_percentile_has_no_bound_below_its_least_sample(q: float, least: int) -> None:
    """Below 59 samples there is no upper bound of P95, below 5 none of the median."""
    assert bounds.percentile_upper_rank(least - 1, q) is None
    assert bounds.percentile_upper_rank(least, q) == least


def test_bounds_of_a_percentile_enclose_it_from_both_sides() -> None:
    """The lower rank of a quantile lies below its upper rank, and mirrors it."""
    for n in (5, 59, 100, 312):
        for q in (0.5, 0.8, 0.95):
            low, high = bounds.percentile_lower_rank(n, q), bounds.percentile_upper_rank(n, q)
            mirrored = bounds.percentile_upper_rank(n, 1 - q)
            assert low is None or high is None or low <= high
            assert (low is None) == (mirrored is None)
            assert low is None or mirrored is None or low == n + 1 - mirrored


@pytest.mark.parametrize(("failures", "hours"), [(0, 71.9), (1, 113.9), (2, 151.1)])
def test_hours_that_prove_an_mtbf_above_24(failures: int, hours: float) -> None:
    """24 h between failures take the published hours of observation, no fewer."""
    assert round(24 * bounds.poisson_upper(failures), 1) == hours
    assert bounds.mtbf_lower(hours + 0.05, failures) > 24 > bounds.mtbf_lower(hours - 0.1, failures)


@pytest.mark.parametrize(("count", "upper"), [(0, 3.0), (2, 6.3), (4, 9.2), (5, 10.5)])
def test_poisson_upper_bounds(count: int, upper: float) -> None:
    """Counts have the published upper bounds: at most 4 seen prove fewer than 10."""
    assert round(bounds.poisson_upper(count), 1) == upper


def test_no_violation_bounds_the_rate_by_three_over_n() -> None:
    """0 violations in N bound the rate by 1 - 0.05^(1/N): 30 per million from 100,000 jobs, never more than 3/N."""
    assert round(bounds.zero_bound(100_000) * 1e6) == 30
    assert round(bounds.zero_bound(1_000_000) * 1e6) == 3
    for n in (1, 10, 312, 5_000):
        assert bounds.zero_bound(n) == pytest.approx(bounds.rate_upper(0, n))
        assert bounds.zero_bound(n) < 3 / n or n == 1


@pytest.mark.parametrize(("mttr", "hours"), [(5, 4.2), (10, 8.3), (30, 24.9), (60, 49.9), (300, 249)])
def test_failure_free_hours_that_prove_three_nines(mttr: float, hours: float) -> None:
    """99.9 % by time takes 999 times the recovery time between failures, so the published hours without one."""
    assert round(bounds.poisson_upper(0) * 999 * mttr / 3600, 1 if hours < 100 else 0) == hours


@pytest.mark.parametrize("limit", [0.03, 0.05, 0.2])
def test_further_samples_are_the_fewest(limit: float) -> None:
    """ "N more settle it" is the smallest number for which it is true, by counting them all."""
    needed = cache(lambda failures: bounds.trials_needed(failures, limit))
    compared = 0
    for n in range(1, 160, 3):
        for failures in range(min(n, 8)):
            if bounds.rate_upper(failures, n) < limit:
                continue
            answer = bounds.further_to_prove(n, failures, needed)
            counted = next(
                (more for more in range(1, 3_000) if needed(failures * (n + more) // n) <= n + more), None
            )
            assert answer == counted or (counted is None and (answer is None or answer >= 3_000)), (
                n,
                failures,
            )
            compared += counted is not None
    assert compared > 50


def test_further_samples_that_refute() -> None:
    """The samples that would refute a claim are the fewest, going on as so far."""
    compared = 0
    for n in range(2, 60, 3):
        for failures in range(1, n, 2):

            def refuted(k: int, total: int) -> bool:
                return bounds.rate_lower(k, total) >= 0.03

            if refuted(failures, n):
                continue
            answer = bounds.further_to_refute(n, failures, refuted)
            counted = next((m for m in range(1, 4_000) if refuted(failures * (n + m) // n, n + m)), None)
            assert answer == counted or (counted is None and (answer is None or answer >= 4_000)), (
                n,
                failures,
            )
            compared += counted is not None
    assert compared > 10


def test_a_rate_on_the_target_is_settled_by_no_number() -> None:
    """When the rate seen is the target itself, no number of further samples is promised."""
    assert bounds.further_to_prove(100, 3, lambda k: bounds.trials_needed(k, 0.03)) is None


def test_availability_joins_two_bounds_of_97_5_percent() -> None:
    """The availability bound is the chi-squared MTBF and mean-recovery bounds, each at 97.5 %, computed by hand."""
    recoveries, seconds, failures = (1.0, 3.0) * 10, 4 * 3600.0, 1
    mttr = 2 * sum(recoveries) / chi2.ppf(0.025, 2 * len(recoveries))
    mtbf = 2 * seconds / chi2.ppf(0.975, 2 * failures + 2)
    estimator = Estimator(EstimatorKind.AVAILABILITY, "fraction", SECONDS, limit=0.999)
    seen = Observations(exposure_seconds=seconds, exposure_failures=failures, values=recoveries)
    found = estimate(estimator, seen)
    assert found.bound == pytest.approx(mtbf / (mtbf + mttr), rel=1e-9)
    assert found.value == pytest.approx(1 - 2.0 / seconds)
    # What is said to be needed is what proves it, going on as so far.
    assert found.n_needed is not None
    longer = seconds + found.n_needed
    enough = replace(seen, exposure_seconds=longer, exposure_failures=int(failures * longer / seconds))
    assert estimate(estimator, enough).verdict == Verdict.PROVEN
