"""What PROVEN is worth: a claim that is not true is proven in at most 5 % of runs, and a true one can be."""

from __future__ import annotations

import numpy as np
import pytest
from harness.sample_scorecard import PASSED, Entry, claim_file, exposure, sample_profile, samples, trials

from readiness.judge.estimators import estimate
from readiness.judge.figures import NOUNS, SECONDS
from readiness.judge.model import Verdict
from readiness.judge.observations import Observations, observe
from readiness.judge.profile_model import Estimator, EstimatorKind

RUNS = 200_000
SEED = 20261123
# 5 % and what 200,000 runs scatter around it at most (five standard deviations).
ALLOWED = 0.05 + 5 * (0.05 * 0.95 / RUNS) ** 0.5
JOBS = NOUNS["jobs"]


def proven_shares(
    estimator: Estimator, seen: dict[int, Observations], draws: np.ndarray
) -> tuple[float, float]:
    """Return the shares of draws (counts of failures) whose observations are PROVEN and FAILED."""
    verdicts = {count: estimate(estimator, observations).verdict for count, observations in seen.items()}
    counts, times = np.unique(draws, return_counts=True)
    proven = sum(t for c, t in zip(counts, times, strict=True) if verdicts[int(c)] == Verdict.PROVEN)
    failed = sum(t for c, t in zip(counts, times, strict=True) if verdicts[int(c)] == Verdict.FAILED)
    return proven / len(draws), failed / len(draws)


@pytest.mark.parametrize("limit", [0.01, 0.03, 0.2])
def test_rate_on_the_target_is_rarely_proven_and_rarely_failed(limit: float) -> None:
    """A true rate exactly on the target is proven, and is failed, in at most 5 % of runs of any size."""
    generator = np.random.default_rng(SEED)
    estimator = Estimator(EstimatorKind.RATE, "fraction", JOBS, limit=limit)
    for n in (20, 59, 100, 312, 1_000):
        draws = generator.binomial(n, limit, RUNS)
        seen = {int(k): Observations(trials=n, trial_failures=int(k)) for k in np.unique(draws)}
        proven, failed = proven_shares(estimator, seen, draws)
        assert proven <= ALLOWED, (n, proven)
        assert failed <= ALLOWED, (n, failed)


@pytest.mark.parametrize("q", [0.5, 0.8, 0.95])
def test_percentile_on_the_target_is_rarely_proven_and_rarely_failed(q: float) -> None:
    """When the true P95 is the target itself, it is proven, and failed, in at most 5 % of runs of any size."""
    generator = np.random.default_rng(SEED)
    estimator = Estimator(EstimatorKind.PERCENTILE, "s", JOBS, limit=60.0, quantile=q)
    for n in (5, 14, 59, 100, 312):
        draws = generator.binomial(n, 1 - q, RUNS)  # samples at or above a limit that is the true quantile
        seen = {
            int(k): Observations(values=(59.0,) * (n - int(k)) + (61.0,) * int(k)) for k in np.unique(draws)
        }
        proven, failed = proven_shares(estimator, seen, draws)
        assert proven <= ALLOWED, (n, proven)
        assert failed <= ALLOWED, (n, failed)


def test_count_on_the_target_is_rarely_proven_and_rarely_failed() -> None:
    """When jobs die at exactly 10 per window, "fewer than 10" is proven, and failed, in at most 5 % of runs."""
    generator = np.random.default_rng(SEED)
    estimator = Estimator(EstimatorKind.COUNT, "", JOBS, limit=10.0, window=500)
    for n in (150, 500, 2_000):
        draws = np.minimum(generator.poisson(10 * n / 500, RUNS), n)
        seen = {int(k): Observations(trials=n, trial_failures=int(k)) for k in np.unique(draws)}
        proven, failed = proven_shares(estimator, seen, draws)
        assert proven <= ALLOWED, (n, proven)
        assert failed <= ALLOWED, (n, failed)


def test_mtbf_on_the_target_is_rarely_proven_and_rarely_failed() -> None:
    """A system that fails every 24 h on average is proven to be better, or refuted, in at most 5 % of runs."""
    generator = np.random.default_rng(SEED)
    estimator = Estimator(EstimatorKind.MTBF, "h", SECONDS, limit=24.0)
    for hours in (1, 80, 500):
        draws = generator.poisson(hours / 24, RUNS)
        seen = {
            int(k): Observations(exposure_seconds=hours * 3600.0, exposure_failures=int(k))
            for k in np.unique(draws)
        }
        proven, failed = proven_shares(estimator, seen, draws)
        assert proven <= ALLOWED, (hours, proven)
        assert failed <= ALLOWED, (hours, failed)


def test_availability_on_the_target_is_rarely_proven() -> None:
    """With exponential failures and recoveries exactly on 99.9 %, availability is proven in at most 5 % of runs."""
    generator = np.random.default_rng(SEED)
    estimator = Estimator(EstimatorKind.AVAILABILITY, "fraction", SECONDS, limit=0.999)
    runs, proven = 4_000, 0
    for _ in range(runs):
        mttr, hours = 5.0, float(generator.choice([4, 20, 200]))
        failures = int(generator.poisson(hours * 3600 / (999 * mttr)))
        recoveries = tuple(float(value) for value in generator.exponential(mttr, 20))
        seen = Observations(exposure_seconds=hours * 3600, exposure_failures=failures, values=recoveries)
        proven += estimate(estimator, seen).verdict == Verdict.PROVEN
    assert proven / runs <= 0.05 + 5 * (0.05 * 0.95 / runs) ** 0.5


@pytest.mark.parametrize(("rate", "n", "share"), [(0.01, 500, 0.93), (0.02, 500, 0.33), (0.02, 2_000, 0.88)])
def test_power_of_a_rate_claim(rate: float, n: int, share: float) -> None:
    """Good systems are proven as often as the research says: the judge is strict, not deaf."""
    generator = np.random.default_rng(SEED)
    estimator = Estimator(EstimatorKind.RATE, "fraction", JOBS, limit=0.03)
    draws = generator.binomial(n, rate, RUNS)
    seen = {int(k): Observations(trials=n, trial_failures=int(k)) for k in np.unique(draws)}
    assert proven_shares(estimator, seen, draws)[0] == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize(
    ("claim", "short", "enough"),
    [
        ("H3.failure_rate", [trials(98)], [trials(99)]),
        ("H1.job_p95", [samples([1.0] * 58, "s")], [samples([1.0] * 59, "s")]),
        ("H7.recovery", [samples([2.0] * 4, "s")], [samples([2.0] * 5, "s")]),
        ("H4.sse", [trials(298, 0, "streams")], [trials(299, 0, "streams")]),
        ("H2.dlq", [trials(149)], [trials(150)]),
        ("H8.mtbf", [exposure(71.89 * 3600)], [exposure(71.9 * 3600)]),
        ("A5.kill", [trials(99)], [trials(100)]),
    ],
)
def test_one_sample_less_is_not_proven(claim: str, short: list[Entry], enough: list[Entry]) -> None:
    """Each claim of the profile is proven with its published number of clean samples, and open with one less."""
    estimator = sample_profile().claim(claim).estimator
    for entries, verdict in ((short, Verdict.INCONCLUSIVE), (enough, Verdict.PROVEN)):
        seen = _observed(claim, [*entries, PASSED], estimator)
        found = estimate(estimator, seen)
        assert found.verdict == verdict
        assert (found.n_needed is None) == (verdict == Verdict.PROVEN)


def _observed(claim: str, entries: list[Entry], estimator: Estimator) -> Observations:
    return observe(claim_file(claim, entries).records, claim=claim, unit=estimator.unit)
