"""The verdict ladder: what each kind of evidence comes to, and that nothing but proof is PROVEN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from harness.sample_scorecard import (
    PASSED,
    Entry,
    cases,
    claim_file,
    exposure,
    outcome,
    proven_evidence,
    sample_context,
    sample_profile,
    samples,
    trials,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from readiness.evidence.records import ClaimFile
from readiness.judge.judging import judge_claims
from readiness.judge.model import ClaimResult, Part, PartState, RunContext, Text, Verdict
from readiness.judge.reasons import explain

PARTS = tuple(
    Part(name, PartState.REAL, "local", "1.0", Text("", ""))
    for name in ("redis", "prometheus", "promtool", "alertmanager", "amtool")
)


def context(**changes: Any) -> RunContext:
    return replace(sample_context(sample_profile()), **{"parts": PARTS, "previous": None, **changes})


def judged(claim: str, file: ClaimFile | Sequence[Entry], **changes: Any) -> ClaimResult:
    """Return the result of one claim from its evidence."""
    if not isinstance(file, ClaimFile):
        file = claim_file(claim, file)
    results = judge_claims(sample_profile(), {claim: file}, context(**changes))
    return next(result for result in results if result.id == claim)


def test_full_evidence_proves_every_claim() -> None:
    """With enough good evidence and real parts each of the profile's claims is PROVEN, with no reason against it."""
    results = judge_claims(sample_profile(), proven_evidence(sample_profile()), context())
    assert {result.id: result.verdict for result in results if result.verdict != Verdict.PROVEN} == {}
    assert all(result.reason is None and result.needed is None for result in results)


def test_what_a_partial_run_left_out_says_so() -> None:
    """A claim that --only left out is NOT_RUN for that reason; one that was asked for is not excused by it."""
    assert explain(judged("D1.cancel", [], only=("A5.kill",)).reason).en.startswith("This partial run")
    asked = judged("A5.kill", [], only=("A5.kill",))
    assert (asked.verdict, asked.reason and asked.reason.code) == (Verdict.NOT_RUN, "no_evidence")


def test_left_out_does_not_hide_a_failure() -> None:
    """Evidence that was recorded counts, also for a claim that --only did not name."""
    left_out = judged("D1.cancel", [outcome("failed", "still running")], only=("A5.kill",))
    assert left_out.verdict == Verdict.FAILED


def test_no_evidence_is_not_run() -> None:
    """A run without any evidence proves nothing and fails nothing."""
    results = judge_claims(sample_profile(), {}, context())
    assert {result.verdict for result in results} == {Verdict.NOT_RUN}
    assert {result.reason.code for result in results if result.reason} == {"no_evidence"}


@pytest.mark.parametrize("claim", [claim.id for claim in sample_profile().claims])
@pytest.mark.parametrize(
    "entries",
    [
        [],
        [PASSED],
        [PASSED, cases(0), trials(0), samples([], "s")],
        [PASSED, exposure(0.0), samples([], "ms")],
        [PASSED, ("facts", {"n": 1000})],
    ],
    ids=["empty file", "passed only", "zero samples", "zero exposure", "facts only"],
)
def test_zero_samples_never_pass(claim: str, entries: list[Entry]) -> None:
    """A check that passed without having measured anything earns nothing, whatever the estimator."""
    result = judged(claim, entries)
    assert result.verdict in (Verdict.NOT_RUN, Verdict.INVALID)
    assert result.value is None


def test_measurements_without_a_passed_check_are_not_run() -> None:
    """Figures whose check never came to its end do not count."""
    result = judged("A5.once", [trials(500)])
    assert (result.verdict, result.reason and result.reason.code) == (Verdict.NOT_RUN, "no_outcome")


@pytest.mark.parametrize("name", ["skipped", "xfailed", "error"])
def test_one_check_that_did_not_run_keeps_the_claim_open(name: str) -> None:
    """A skip, an expected failure or an error beside passes is NOT_RUN, with the reason word for word."""
    result = judged("A5.once", [trials(500), PASSED, outcome(name, "needs a second Redis")])
    assert result.verdict == Verdict.NOT_RUN
    assert result.reason is not None
    assert explain(result.reason).en.endswith("needs a second Redis")
    assert explain(result.reason).en.startswith("1 of 2 checks")


def test_failed_check_fails_the_claim_whatever_the_figures() -> None:
    """One failed check among passes is FAILED, even with figures that would prove the claim."""
    result = judged("A5.once", [trials(500), PASSED, PASSED, outcome("failed", "assert 2 == 1")])
    assert (result.verdict, result.reason.code if result.reason else "") == (Verdict.FAILED, "check_failed")


def test_violations_fail_even_where_a_check_was_skipped_or_passed() -> None:
    """What was seen to go wrong is not excused by a skip, nor hidden by a check that passed over it."""
    for end in (PASSED, outcome("skipped", "later"), outcome("error", "timeout")):
        result = judged("A5.once", [trials(500, 1, "jobs", "job 7 twice"), end])
        assert result.verdict == Verdict.FAILED
        assert result.reason is not None
        assert "job 7 twice" in explain(result.reason).ko


def test_a_violation_beside_the_estimators_own_data_fails_it() -> None:
    """A latency claim whose side condition was violated is FAILED, however fast it was."""
    fine = samples([0.2] * 40, "s")
    assert judged("D1.cancel", [fine, cases(40), PASSED]).verdict == Verdict.PROVEN
    assert judged("D1.cancel", [fine, cases(40, 1, "job 3 committed"), PASSED]).verdict == Verdict.FAILED
    assert judged("D1.cancel", [fine, trials(40, 1), PASSED]).verdict == Verdict.FAILED


@pytest.mark.parametrize(
    ("claim", "entry"),
    [
        ("A5.once", trials(-1)),
        ("A5.once", trials(10, 11)),
        ("A5.once", trials(10, -1)),
        ("A5.once", ("trials", {"n": True, "failures": 0})),
        ("A5.once", ("trials", {"n": 12.5, "failures": 0})),
        ("A5.once", ("trials", {"n": "500", "failures": 0})),
        ("A5.once", ("trials", {"failures": 0})),
        ("A5.once", ("trials", {"n": float("nan"), "failures": 0})),
        ("C1.backoff", cases(3, 4)),
        ("H1.job_p95", samples([float("nan")] * 3 + [1.0] * 99, "s")),
        ("H1.job_p95", samples([float("inf")], "s")),
        ("H1.job_p95", samples([-0.1], "s")),
        ("H1.job_p95", ("samples", {"values": ["1"], "unit": "s"})),
        ("H1.job_p95", ("samples", {"values": 1.0, "unit": "s"})),
        ("H1.job_p95", samples([1.0], "%")),
        ("H5.token_use", samples([0.1] * 20, "fraction")),
        ("H8.mtbf", ("exposure", {"seconds": float("nan"), "failures": 0, "replicas": 1})),
        ("H8.mtbf", ("exposure", {"seconds": -5, "failures": 0, "replicas": 1})),
        ("H8.mtbf", ("exposure", {"seconds": 5, "failures": 0, "replicas": 0})),
        ("A5.once", outcome("fine")),
    ],
)
def test_what_cannot_be_a_measurement_is_invalid(claim: str, entry: Entry) -> None:
    """Nonsense numbers make the claim INVALID with the record named, even beside evidence that would prove it."""
    good = [(record.kind, record.data) for record in proven_evidence(sample_profile())[claim].records]
    result = judged(claim, [*good, entry])
    assert result.verdict == Verdict.INVALID
    assert result.reason is not None
    assert f"record {len(good)} (" in explain(result.reason).en
    assert (result.value, result.bound, result.n) == (None, None, 0)


def test_milliseconds_are_not_taken_for_seconds() -> None:
    """Samples in ms for a target in s are converted, not compared as they stand."""
    slow = judged("H1.job_p95", [samples([90_000.0] * 100, "ms"), PASSED])
    fast = judged("H1.job_p95", [samples([900.0] * 100, "ms"), PASSED])
    assert (slow.verdict, slow.value) == (Verdict.FAILED, 90.0)
    assert (fast.verdict, fast.value) == (Verdict.PROVEN, 0.9)


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        (PartState.REAL, Verdict.PROVEN),
        (PartState.EMBEDDED, Verdict.PROVEN),
        (PartState.SIMULATED, Verdict.NOT_RUN),
        (PartState.MISSING, Verdict.NOT_RUN),
    ],
)
def test_needed_part_must_be_real(state: PartState, verdict: Verdict) -> None:
    """A durability claim on a stand-in is worth nothing; the reason names the part."""
    parts = (replace(PARTS[0], state=state, provider="fakeredis"),)
    result = judged("A5.kill", [trials(500), PASSED], parts=parts)
    assert result.verdict == verdict
    assert result.reason is None or "Redis" in explain(result.reason).en


def test_part_that_the_run_does_not_list_is_missing() -> None:
    """A run that says nothing about a needed part did not have it."""
    assert judged("E1.scraped", [cases(20), PASSED], parts=()).verdict == Verdict.NOT_RUN


def test_damaged_file_is_invalid_and_torn_one_unproven() -> None:
    """A broken chain makes INVALID whatever it says; a torn last line keeps a claim from PROVEN, not from FAILED."""
    file = claim_file("A5.once", [trials(500), PASSED])
    assert judged("A5.once", replace(file, broken="line 2: expected hash")).verdict == Verdict.INVALID
    assert judged("A5.once", replace(file, torn="line 3: unfinished")).verdict == Verdict.INCONCLUSIVE
    lost = claim_file("A5.once", [trials(500, 1), PASSED])
    assert judged("A5.once", replace(lost, torn="line 3: unfinished")).verdict == Verdict.FAILED


def test_records_of_another_claim_do_not_count() -> None:
    """Evidence that names another claim makes INVALID, even when it is chained well."""
    foreign = replace(claim_file("A5.kill", [trials(500), PASSED]), claim="A5.once")
    assert judged("A5.once", foreign).verdict == Verdict.INVALID


def test_only_declared_guarantees_exclude_a_claim() -> None:
    """NOT_APPLICABLE comes from the target's guarantees alone, with their words."""
    result = judged("D1.cancel", [], excluded={"D1.cancel": "the target declares no cancellation"})
    assert result.verdict == Verdict.NOT_APPLICABLE
    assert result.reason is not None
    assert "declares no cancellation" in explain(result.reason).en


@pytest.mark.parametrize(
    ("claim", "entry", "verdict"),
    [
        ("H3.failure_rate", trials(100, 20), Verdict.FAILED),
        ("H3.failure_rate", trials(100, 3), Verdict.INCONCLUSIVE),
        ("H3.failure_rate", trials(500, 5), Verdict.PROVEN),
        ("H1.job_p95", samples([59.0] * 59, "s"), Verdict.PROVEN),
        ("H1.job_p95", samples([59.0] * 58 + [60.0], "s"), Verdict.INCONCLUSIVE),
        ("H1.job_p95", samples([61.0] * 5, "s"), Verdict.FAILED),
        ("H2.dlq", trials(500, 4), Verdict.PROVEN),
        ("H2.dlq", trials(500, 5), Verdict.INCONCLUSIVE),
        ("H2.dlq", trials(500, 30), Verdict.FAILED),
        ("H5.token_use", samples([34.9] * 10, "%"), Verdict.PROVEN),
        ("H5.token_use", samples([34.9] * 9, "%"), Verdict.INCONCLUSIVE),
        ("H5.token_use", samples([35.0], "%"), Verdict.FAILED),
        ("H8.mtbf", exposure(600.0, 0), Verdict.INCONCLUSIVE),
        ("H8.mtbf", exposure(600.0, 3), Verdict.FAILED),
        ("C4.policy", cases(9), Verdict.INCONCLUSIVE),
        ("C4.policy", cases(9, 1), Verdict.FAILED),
    ],
)
def test_bound_decides(claim: str, entry: Entry, verdict: Verdict) -> None:
    """PROVEN, FAILED and what lies between follow from the bound against the target, at its very edge too."""
    result = judged(claim, [entry, PASSED])
    assert result.verdict == verdict
    assert (result.reason is None) == (verdict == Verdict.PROVEN)


def test_hostile_words_lose_their_control_characters() -> None:
    """What a check says is shown, but cannot drive a terminal or turn the text round."""
    result = judged("A5.once", [outcome("failed", "\x1b[2J\u202egnp.exe\r\nnext " + "x" * 5_000)])
    assert result.reason is not None
    assert result.reason.detail.isprintable()
    assert len(result.reason.detail) <= 400


KINDS = st.sampled_from(["outcome", "cases", "trials", "samples", "exposure", "facts", "attachment"])
LEAVES = st.none() | st.booleans() | st.integers(-5, 500) | st.floats() | st.text(max_size=5)
DATA = st.dictionaries(
    st.sampled_from(
        ["n", "failures", "values", "unit", "seconds", "replicas", "outcome", "reason", "examples"]
    ),
    LEAVES | st.lists(LEAVES, max_size=4) | st.sampled_from(["passed", "failed", "s", "ms", "%"]),
    max_size=6,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from([claim.id for claim in sample_profile().claims]),
    st.lists(st.tuples(KINDS, DATA), max_size=5),
)
def test_any_records_come_to_a_verdict_in_words(claim: str, entries: list[Entry]) -> None:
    """Whatever is recorded, the judge answers with a verdict and words, and PROVEN only after a passed check."""
    result = judged(claim, entries)
    passes = any(kind == "outcome" and data.get("outcome") == "passed" for kind, data in entries)
    assert passes or result.verdict != Verdict.PROVEN
    assert (result.reason is None) == (result.verdict == Verdict.PROVEN)
    if result.reason:
        assert explain(result.reason).en
        assert explain(result.reason).ko
