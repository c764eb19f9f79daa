"""Rerunning until green does not help: earlier attempts of the same commit and profile count."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from harness.sample_run import write_json, write_run
from harness.sample_scorecard import (
    PASSED,
    SEALED,
    Entry,
    cases,
    claim_file,
    exposure,
    outcome,
    sample_context,
    sample_profile,
    samples,
    trials,
)

from readiness.attempts import earlier_attempts
from readiness.evidence.sealing import seal
from readiness.judge.estimators import estimate
from readiness.judge.judging import judge
from readiness.judge.model import ClaimResult, Scorecard, Verdict
from readiness.judge.observations import Observations
from readiness.judge.pooling import Attempt, Counts, pool
from readiness.judge.profile_model import Estimator, EstimatorKind

PROFILE = sample_profile()
COMMIT = "c0f0a87d3b1e4f5a6978b2c1d0e9f8a7b6c5d4e3"
NOW = "2026-11-23T18:00:00.000Z"


def judged(claim: str, entries: Sequence[Entry], **earlier: Counts) -> ClaimResult:
    """Return the result of one claim after these earlier attempts."""
    attempts = tuple(Attempt(run, NOW, 0, "ready", claims={claim: counts}) for run, counts in earlier.items())
    context = replace(sample_context(PROFILE), attempts=attempts)
    card = judge(PROFILE, {claim: claim_file(claim, entries)}, context, sealed=SEALED)
    assert card.attempts == attempts
    return card.claim(claim)


def test_trials_of_earlier_runs_are_added() -> None:
    """50 clean jobs prove nothing about fewer than 3 % failures; with 60 of an earlier run they do, and say so."""
    assert judged("H3.failure_rate", [trials(50), PASSED]).verdict == Verdict.INCONCLUSIVE
    both = judged("H3.failure_rate", [trials(50), PASSED], run1=Counts(trials=60, trials_eff=60))
    assert both.verdict == Verdict.PROVEN
    assert (both.n, both.runs) == (110, 2)
    assert "2 runs)" in both.measured.en
    assert "실행 2회)" in both.measured.ko


def test_failures_of_earlier_runs_are_added() -> None:
    """A run that would prove the claim alone does not after one that failed it."""
    assert judged("H3.failure_rate", [trials(150), PASSED]).verdict == Verdict.PROVEN
    bad = judged(
        "H3.failure_rate", [trials(150), PASSED], run1=Counts(trials=150, trial_failures=9, trials_eff=150)
    )
    assert bad.verdict == Verdict.INCONCLUSIVE
    assert bad.failures == 9


def test_one_violation_in_an_earlier_run_fails_and_names_the_run() -> None:
    """A job lost in any attempt is a job lost."""
    lost = judged("A5.kill", [trials(200), PASSED], run1=Counts(trials=312, trial_failures=1, trials_eff=312))
    assert lost.verdict == Verdict.FAILED
    assert lost.reason is not None
    assert "run1" in lost.reason.detail


def test_exposure_is_added_and_injected_faults_are_not() -> None:
    """Hours of several runs prove a time between failures; time under an injected fault counts neither way."""
    hours = 3600.0
    assert judged("H8.mtbf", [exposure(40 * hours), PASSED]).verdict == Verdict.INCONCLUSIVE
    pooled = judged("H8.mtbf", [exposure(40 * hours), PASSED], run1=Counts(exposure_seconds=33 * hours))
    assert pooled.verdict == Verdict.PROVEN
    one = judged(
        "H8.mtbf",
        [exposure(40 * hours), PASSED],
        run1=Counts(exposure_seconds=33 * hours, exposure_failures=1),
    )
    assert one.verdict == Verdict.INCONCLUSIVE


def test_what_this_run_did_not_try_is_not_proven_by_earlier_ones() -> None:
    """Earlier evidence adds to a run's own, and never stands in for it."""
    result = judged("H3.failure_rate", [PASSED], run1=Counts(trials=5_000, trials_eff=5_000))
    assert result.verdict == Verdict.NOT_RUN
    assert result.runs == 1


@pytest.mark.parametrize("claim", ["C1.backoff", "H1.job_p95"])
def test_passing_after_a_failure_leaves_the_claim_open(claim: str) -> None:
    """Cases and percentiles cannot be added up; a failure before keeps them from being proven."""
    entry = cases(12) if claim == "C1.backoff" else samples([1.0 + i % 7 / 10 for i in range(400)], "s")
    entries = [entry, *[outcome("passed")]]
    for name in PROFILE.claim(claim).checks:
        entries.append(
            ("outcome", {"outcome": "passed", "reason": "", "duration_seconds": 1.0, "check": name})
        )
    clean, after = judged(claim, entries), judged(claim, entries, run1=Counts(failed=True))
    assert after.verdict == (Verdict.INCONCLUSIVE if clean.verdict == Verdict.PROVEN else clean.verdict)
    if clean.verdict == Verdict.PROVEN:
        assert after.reason is not None
        assert after.reason.code == "failed_before"


def test_rerunning_until_green_does_not_raise_false_proofs() -> None:
    """Ten tries at a rate on its target: alone one in five gets a false proof, pooled the level stays near 5 %."""
    claim, generator = PROFILE.claim("H3.failure_rate").estimator, np.random.default_rng(20261123)
    alone = together = 0
    runs = 2_000
    for _ in range(runs):
        draws = [int(k) for k in generator.binomial(340, claim.limit, 10)]
        alone += any(_verdict(claim, Observations(trials=340, trial_failures=k)) for k in draws)
        history = tuple(
            Attempt(f"r{i}", NOW, 2, claims={"C": Counts(trials=340, trial_failures=k, trials_eff=340)})
            for i, k in enumerate(draws[:-1])
        )
        last = pool(Observations(trials=340, trial_failures=draws[-1]), "C", history)
        # Only the counts decide, so equal ones are judged once.
        together += _verdict(claim, replace(last, examples=()))
    assert alone / runs > 0.15
    assert together / runs <= 0.05 + 4 * (0.05 * 0.95 / runs) ** 0.5


@cache
def _verdict(claim: Estimator, seen: Observations) -> bool:
    assert claim.kind == EstimatorKind.RATE
    return estimate(claim, seen).verdict == Verdict.PROVEN


# Folders


def run_folder(runs: Path, name: str, evidence: Mapping[str, Sequence[Entry]], **facts: object) -> Scorecard:
    """Write a finished run of a clean tree below `runs`."""
    folder = runs / name
    write_run(folder, evidence)
    context = sample_context(PROFILE)
    run = replace(context.run, id=name, dirty=False, **facts)  # type: ignore[arg-type] - fields of RunFacts by name
    write_json(folder / "context.json", replace(context, run=run))
    write_json(folder / "profile.json", PROFILE)
    seal(folder)
    return Scorecard.from_json(json.loads((folder / "scorecard.json").read_text(encoding="utf-8")))


def found(runs: Path, **changes: object) -> dict[str, Attempt]:
    """Return the attempts by run id."""
    options: dict[str, object] = {"commit": COMMIT, "dirty": False, "started_at": NOW, **changes}
    return {attempt.run: attempt for attempt in earlier_attempts(runs, PROFILE, **options)}  # type: ignore[arg-type] - by name


KILL = {"A5.kill": [trials(312, 2), outcome("failed", "2 lost")], "H3.failure_rate": [trials(180), PASSED]}


def test_attempts_of_this_commit_are_collected_with_their_ends(tmp_path: Path) -> None:
    """Failed, partial and interrupted runs are all there, with what they counted."""
    run_folder(tmp_path, "20261123T160000Z-quick-0001", KILL)
    run_folder(tmp_path, "20261123T161000Z-quick-0002", {"H3.failure_rate": [trials(40, 1), PASSED]})
    (tmp_path / "20261123T161000Z-quick-0002" / "scorecard.json").unlink()
    attempts = found(tmp_path)
    assert list(attempts) == ["20261123T160000Z-quick-0001", "20261123T161000Z-quick-0002"]
    first, second = attempts.values()
    assert first.claims["A5.kill"] == Counts(trials=312, trial_failures=2, trials_eff=312, failed=True)
    assert not first.claims["H3.failure_rate"].failed
    assert (first.status, first.verdict) == (1, "not ready")
    assert (second.status, second.verdict) == (None, "")
    assert second.claims["H3.failure_rate"].trial_failures == 1


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"commit": "another"}, "another commit"),
        ({"profile_hash": "0" * 64}, "another profile"),
        ({"target": "other"}, "another target"),
        ({"started_at": "2026-11-01T00:00:00.000Z"}, "older than 14 days"),
        ({"started_at": "2026-11-23T18:00:01.000Z"}, "later than this run"),
    ],
)
def test_runs_of_something_else_are_no_attempts(tmp_path: Path, facts: dict[str, object], why: str) -> None:
    """Only what examined the same thing counts."""
    run_folder(tmp_path, "20261123T160000Z-quick-0001", KILL, **facts)
    assert found(tmp_path) == {}, why


def test_without_a_commit_nothing_is_pooled(tmp_path: Path) -> None:
    """Uncommitted changes or no git: nobody can say that it was the same."""
    run_folder(tmp_path, "20261123T160000Z-quick-0001", KILL)
    assert len(found(tmp_path)) == 1
    assert found(tmp_path, dirty=True) == {}
    assert found(tmp_path, commit="unknown") == {}


def test_edited_and_copied_evidence_does_not_count_twice(tmp_path: Path) -> None:
    """A claim file that is not the sealed one is left out; a copied folder is an attempt without new counts."""
    run_folder(tmp_path, "20261123T160000Z-quick-0001", KILL)
    shutil.copytree(tmp_path / "20261123T160000Z-quick-0001", tmp_path / "20261123T160000Z-quick-0001b")
    counted = [attempt for attempt in earlier_attempts(
        tmp_path, PROFILE, commit=COMMIT, dirty=False, started_at=NOW) if attempt.claims]  # fmt: skip
    assert len(counted) == 1
    shutil.rmtree(tmp_path / "20261123T160000Z-quick-0001b")
    edited = tmp_path / "20261123T160000Z-quick-0001" / "evidence" / "A5.kill.jsonl"
    edited.write_bytes(edited.read_bytes().replace(b'"failures":2', b'"failures":0'))
    assert "A5.kill" not in found(tmp_path)["20261123T160000Z-quick-0001"].claims


def test_a_joined_run_is_not_counted_beside_its_parts(tmp_path: Path) -> None:
    """`readiness merge` adds up what its parts recorded; with the parts there it adds nothing."""
    part = "20261123T160000Z-quick-0001"
    run_folder(tmp_path, part, KILL)
    run_folder(tmp_path, "20261123T163000Z-quick-0003", {"H3.failure_rate": [trials(181), PASSED]})
    plan = tmp_path / "20261123T163000Z-quick-0003" / "plan.json"
    write_json(plan, {"merged_from": [{"run": part}]})
    assert list(found(tmp_path)) == [part]
    shutil.rmtree(tmp_path / part)
    assert list(found(tmp_path)) == ["20261123T163000Z-quick-0003"]
