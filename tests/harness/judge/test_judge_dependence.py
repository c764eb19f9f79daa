"""Samples that resemble their neighbours count for fewer, and a claim about them is not proven too easily."""

from __future__ import annotations

import numpy as np
import pytest
from harness.sample_scorecard import PASSED, Entry, claim_file
from scipy.signal import lfilter
from scipy.stats import norm

from readiness.judge import bounds
from readiness.judge.dependence import autocorrelations, effective_samples, effective_trials
from readiness.judge.estimators import estimate
from readiness.judge.figures import NOUNS
from readiness.judge.model import Verdict
from readiness.judge.observations import Observations, observe
from readiness.judge.profile_model import Estimator, EstimatorKind

RUNS = 800
SEED = 20261123
ALLOWED = 0.05 + 4 * (0.05 * 0.95 / RUNS) ** 0.5
JOBS = NOUNS["jobs"]


def latencies(phi: float, n: int, runs: int = RUNS) -> np.ndarray:
    """Return runs of log-normal latencies whose logarithms are AR(1): each like the one before by `phi`."""
    noise = np.random.default_rng(SEED + int(1000 * phi) + n).normal(size=(runs, n + 400))
    return np.exp(lfilter([np.sqrt(1 - phi * phi)], [1, -phi], noise, axis=1)[:, 400:])


def proven_share(runs: np.ndarray, q: float, *, ordered: bool) -> float:
    """Return the share of runs that prove a limit which is the true quantile itself."""
    claim = Estimator(EstimatorKind.PERCENTILE, "s", JOBS, limit=float(np.exp(norm.ppf(q))), quantile=q)
    seen = (Observations(values=tuple(run), ordered=ordered) for run in runs)
    return sum(estimate(claim, one).verdict == Verdict.PROVEN for one in seen) / len(runs)


@pytest.mark.parametrize("q", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("phi", [0.0, 0.8, 0.95])
@pytest.mark.parametrize("n", [100, 340])
def test_alike_latencies_on_the_target_are_rarely_proven(q: float, phi: float, n: int) -> None:
    """AR(1) latencies whose true percentile is the target are proven in at most 5 % of runs, however alike."""
    assert proven_share(latencies(phi, n), q, ordered=True) <= ALLOWED


@pytest.mark.parametrize("q", [0.5, 0.8, 0.95])
def test_taken_for_independent_they_are_proven_far_too_often(q: float) -> None:
    """The same latencies without their order show why: they are falsely proven in more than 15 % of runs."""
    assert proven_share(latencies(0.8, 340), q, ordered=False) > 0.15


@pytest.mark.parametrize("n", [340, 2_000])
def test_independent_samples_keep_nearly_all_their_worth(n: int) -> None:
    """Without correlation n_eff is n but for the noise of its own estimation, and never above n."""
    worth = [effective_samples(run, 0.95) for run in latencies(0.0, n, 300)]
    assert max(worth) <= n
    assert np.median(worth) > 0.7 * n


def test_effective_size_of_ar1_is_the_textbook_one() -> None:
    """n_eff of a long AR(1) sequence about its median is n / (1 + 2 x sum of (2/pi) asin(phi^k))."""
    phi, n = 0.8, 40_000
    exact = n / (1 + 2 * sum(2 / np.pi * np.arcsin(phi**k) for k in range(1, 400)))
    found = [effective_samples(run, 0.5) for run in latencies(phi, n, 10)]
    assert np.mean(found) == pytest.approx(exact, rel=0.1)


def test_autocorrelations_are_those_of_the_definition() -> None:
    """The fast transform gives what the sums give, and a constant has none."""
    series = np.random.default_rng(SEED).normal(size=37)
    centred = series - series.mean()
    summed = [float(np.sum(centred[lag:] * centred[: 37 - lag]) / np.sum(centred**2)) for lag in range(37)]
    found = autocorrelations(series)
    assert found is not None
    assert list(found) == pytest.approx(summed)
    assert autocorrelations(np.ones(5)) is None


def test_failures_in_a_row_count_for_fewer_trials() -> None:
    """Twelve failures in one stretch are worth fewer trials than twelve spread out; none at all are worth n."""
    in_a_row, spread = range(100, 112), range(5, 340, 28)
    assert effective_trials(340, tuple(in_a_row)) < 100
    assert effective_trials(340, tuple(spread)) > 300
    assert effective_trials(340, ()) == 340
    claim = Estimator(EstimatorKind.RATE, "fraction", JOBS, limit=0.08)
    together = Observations(trials=340, trial_failures=12, failed_at=tuple(in_a_row))
    apart = Observations(trials=340, trial_failures=12, failed_at=tuple(spread))
    assert estimate(claim, together).verdict == Verdict.INCONCLUSIVE
    assert estimate(claim, apart).verdict == Verdict.PROVEN


@pytest.mark.parametrize("q", [0.5, 0.8, 0.95])
def test_ranks_with_every_sample_independent_are_those_without_order(q: float) -> None:
    """n_eff = n changes nothing, and a smaller one only moves the bounds apart."""
    for n in (5, 59, 100, 340):
        assert bounds.percentile_upper_rank(n, q, n_eff=n) == bounds.percentile_upper_rank(n, q)
        assert bounds.percentile_lower_rank(n, q, n_eff=n) == bounds.percentile_lower_rank(n, q)
        for n_eff in range(1, n):
            upper, lower = (
                rank(n, q, n_eff=n_eff)
                for rank in (bounds.percentile_upper_rank, bounds.percentile_lower_rank)
            )
            assert upper is None or (bounds.percentile_upper_rank(n, q) or n) <= upper <= n
            assert lower is None or 1 <= lower <= (bounds.percentile_lower_rank(n, q) or 1)


def test_a_run_shorter_than_its_correlation_proves_nothing_but_still_fails() -> None:
    """A latency that climbs all the time has no bound below the target, and fails when all of it is above."""
    claim = Estimator(EstimatorKind.PERCENTILE, "s", JOBS, limit=60.0, quantile=0.95)
    climbing = tuple(1 + place / 1000 for place in range(340))
    found = estimate(claim, Observations(values=climbing, ordered=True))
    assert found.verdict == Verdict.INCONCLUSIVE
    assert found.reason is not None
    assert found.reason.code == "too_alike"
    assert found.n_eff is not None
    assert found.n_eff < 59
    assert "worth" in found.measured.en
    late = estimate(claim, Observations(values=tuple(value + 60 for value in climbing), ordered=True))
    assert late.verdict == Verdict.FAILED


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("trials", {"n": 3, "failures": 1, "failed_at": [3]})], "failed_at"),
        ([("trials", {"n": 3, "failures": 2, "failed_at": [1, 1]})], "failed_at"),
        ([("trials", {"n": 3, "failures": 1, "failed_at": []})], "failed_at"),
        ([("trials", {"n": 3, "failures": 1, "failed_at": "1"})], "failed_at"),
    ],
)
def test_places_that_cannot_be_are_refused(entries: list[Entry], problem: str) -> None:
    """Positions outside the trials, twice the same, or fewer than failures are no measurement."""
    seen = observe(
        claim_file("H3.failure_rate", [*entries, PASSED]).records, claim="H3.failure_rate", unit=""
    )
    assert problem in seen.problem


def test_order_is_kept_over_records_and_lost_by_one_without_it() -> None:
    """Places of a second record follow those of the first; one record without places ends the order."""
    first: Entry = ("trials", {"n": 3, "failures": 1, "failed_at": [2]})
    second: Entry = ("trials", {"n": 2, "failures": 1, "failed_at": [0]})
    bare: Entry = ("trials", {"n": 2, "failures": 0})
    claim = "H3.failure_rate"
    assert observe(claim_file(claim, [first, second]).records, claim=claim, unit="").failed_at == (2, 3)
    assert observe(claim_file(claim, [first, bare]).records, claim=claim, unit="").failed_at is None
