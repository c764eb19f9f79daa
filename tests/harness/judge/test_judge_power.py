"""The chance of a proof, known beforehand, against enumeration and simulation; Holm against its textbook form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binom, gamma, poisson

from readiness.judge import bounds
from readiness.judge.estimators import estimate
from readiness.judge.families import holm, rejected
from readiness.judge.figures import NOUNS, SECONDS
from readiness.judge.model import Verdict
from readiness.judge.observations import Observations
from readiness.judge.power import chance_of_notice, chance_of_proof, most_failures, straight_successes
from readiness.judge.profile_model import Estimator, EstimatorKind

SEED = 20261123
JOBS = NOUNS["jobs"]
RATE = Estimator(EstimatorKind.RATE, "fraction", JOBS, limit=0.03)


@pytest.mark.parametrize(("truth", "n", "percent"), [(0.01, 500, 93), (0.02, 500, 33), (0.02, 2_000, 88)])
def test_power_is_that_of_the_research(truth: float, n: int, percent: int) -> None:
    """At n = 500 a true 1 % proves "< 3 %" in 93 % of runs, a true 2 % in 33 %; at 2,000 in 88 %."""
    chance = chance_of_proof(RATE, n, share=truth / RATE.limit)
    assert chance is not None
    assert round(100 * chance) == percent


@pytest.mark.parametrize("n", [20, 99, 157, 340])
def test_chance_of_a_rate_is_the_sum_over_all_outcomes_that_are_judged_proven(n: int) -> None:
    """Every possible number of failures is put before the judge, and those that he proves are added up."""
    judged = [estimate(RATE, Observations(trials=n, trial_failures=k)).verdict for k in range(n + 1)]
    enumerated = sum(binom.pmf(k, n, 0.015) for k in range(n + 1) if judged[k] == Verdict.PROVEN)
    assert chance_of_proof(RATE, n) == pytest.approx(enumerated, abs=1e-12)
    assert most_failures(n, 0.03) == max((k for k in range(n + 1) if judged[k] == Verdict.PROVEN), default=-1)


@pytest.mark.parametrize(("q", "n"), [(0.95, 58), (0.95, 59), (0.95, 340), (0.5, 20), (0.8, 100)])
def test_chance_of_a_percentile_is_the_sum_over_exceedances(q: float, n: int) -> None:
    """The same for a percentile, sample by sample."""
    claim = Estimator(EstimatorKind.PERCENTILE, "s", JOBS, limit=60.0, quantile=q)
    proven = [
        k
        for k in range(n + 1)
        if estimate(claim, Observations(values=(1.0,) * (n - k) + (61.0,) * k)).verdict == Verdict.PROVEN
    ]
    assert chance_of_proof(claim, n) == pytest.approx(
        sum(binom.pmf(k, n, (1 - q) / 2) for k in proven), abs=1e-12
    )


@pytest.mark.parametrize("n", [100, 340, 2_000])
def test_chance_of_a_count_is_the_sum_over_events(n: int) -> None:
    """The same for a count per window."""
    claim = Estimator(EstimatorKind.COUNT, "", JOBS, limit=10.0, window=500)
    judged = [estimate(claim, Observations(trials=n, trial_failures=k)).verdict for k in range(100)]
    mean = 5.0 * n / 500
    enumerated = sum(poisson.pmf(k, mean) for k in range(100) if judged[k] == Verdict.PROVEN)
    assert chance_of_proof(claim, n) == pytest.approx(enumerated, abs=1e-9)


@pytest.mark.parametrize("hours", [24, 72, 120, 400])
def test_chance_of_an_mtbf_is_the_sum_over_failures(hours: int) -> None:
    """The same for exposure: nothing below 71.9 h."""
    claim = Estimator(EstimatorKind.MTBF, "h", SECONDS, limit=24.0)
    seconds = hours * 3600
    judged = [
        estimate(claim, Observations(exposure_seconds=float(seconds), exposure_failures=k)).verdict
        for k in range(80)
    ]
    enumerated = sum(poisson.pmf(k, hours / 48) for k in range(80) if judged[k] == Verdict.PROVEN)
    assert chance_of_proof(claim, seconds) == pytest.approx(enumerated, abs=1e-9)
    assert (chance_of_proof(claim, seconds) == 0) == (hours < 71.9)


def test_chance_of_availability_is_what_simulated_runs_prove() -> None:
    """Twenty recoveries of 5 s on average and so many hours: as often proven as in 4,000 simulated runs."""
    claim = Estimator(EstimatorKind.AVAILABILITY, "fraction", SECONDS, limit=0.999)
    generator = np.random.default_rng(SEED)
    for hours in (8, 20, 60):
        seconds = hours * 3600
        mean = seconds / (5 * (1 - 0.0005) / 0.0005)
        proven, runs = 0, 4_000
        for failures, total in zip(
            generator.poisson(mean, runs),
            gamma.rvs(20, scale=5, size=runs, random_state=generator),
            strict=True,
        ):
            low = bounds.mtbf_lower(seconds, int(failures), alpha=0.025)
            high = bounds.mean_upper(float(total), 20, alpha=0.025)
            proven += low / (low + high) >= 0.999
        chance = chance_of_proof(claim, seconds, recoveries=20, recovery_seconds=5.0)
        assert chance == pytest.approx(proven / runs, abs=0.03), hours
    assert chance_of_proof(claim, 3600) == 0.0


def test_chances_grow_with_the_run_and_fall_towards_the_target() -> None:
    """Ten times the run is worth more; a truth on the target itself is proven in at most 5 %."""
    for claim in (RATE, Estimator(EstimatorKind.PERCENTILE, "s", JOBS, limit=1.0, quantile=0.95)):
        small, large = chance_of_proof(claim, 300), chance_of_proof(claim, 3_000)
        assert small is not None
        assert large is not None
        assert small < large
        on_target = chance_of_proof(claim, 1_000, share=1.0)
        assert on_target is not None
        assert on_target <= 0.05


def test_claims_without_a_sampled_figure_have_no_chance() -> None:
    """Cases hold or do not; a worst value has no distribution to speak of."""
    for kind in (EstimatorKind.CHECKS, EstimatorKind.WORST, EstimatorKind.ZERO_VIOLATIONS):
        assert chance_of_proof(Estimator(kind, "s", JOBS), 100) is None
    assert chance_of_proof(RATE, 0) == 0.0


def test_what_n_trials_notice() -> None:
    """299 trials show something that happens to 1 % with 95 %, and so does the zero bound say it."""
    assert chance_of_notice(299, 0.01) == pytest.approx(0.95, abs=5e-4)
    for n in (1, 59, 312):
        assert chance_of_notice(n, bounds.zero_bound(n)) == pytest.approx(0.95)
    assert chance_of_notice(3, 1.0) == 1.0


def test_sequential_plan_is_that_of_the_research() -> None:
    """1 % against 3 % at 5 % and 5 %: accepted after 145 straight successes."""
    assert straight_successes(0.01, 0.03) == 145


def textbook_holm(p_values: list[float], level: float) -> list[bool]:
    """Holm 1979, section 3, word for word: go up the sorted p-values while p <= level / (tests left), then stop."""
    answer = [False] * len(p_values)
    left = len(p_values)
    for place in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        if p_values[place] > level / left:
            break
        answer[place] = True
        left -= 1
    return answer


def test_holm_is_the_textbook_procedure() -> None:
    """10,000 random families of up to 20 tests, at three levels, and every family of four from a coarse grid."""
    generator = np.random.default_rng(SEED)
    families = [list(generator.beta(0.3, 2, size=generator.integers(1, 21))) for _ in range(10_000)]
    families += [list(family) for family in itertools.product((0.0, 0.01, 0.0125, 0.05, 1.0), repeat=4)]
    for family in families:
        for level in (0.01, 0.05, 0.2):
            assert list(rejected(family, level=level)) == textbook_holm(family, level), family
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.2, 1.1])


def test_holm_keeps_the_level_of_a_family_where_single_tests_do_not() -> None:
    """Twenty true null hypotheses: unadjusted a false alarm in 64 % of families, adjusted in at most 5 %."""
    families = np.random.default_rng(SEED).uniform(size=(20_000, 20))
    alone = np.mean(families.min(axis=1) <= 0.05)
    together = np.mean([any(rejected(list(family))) for family in families[:5_000]])
    assert alone == pytest.approx(0.64, abs=0.01)
    assert together <= 0.05 + 4 * (0.05 * 0.95 / 5_000) ** 0.5
