"""A harness that disturbed its own measurement makes the claim INVALID, each rule with its own reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness.sample_scorecard import (
    PASSED,
    SEALED,
    Entry,
    claim_file,
    outcome,
    sample_context,
    sample_profile,
    samples,
    trials,
)

from readiness.judge.judging import judge
from readiness.judge.model import ClaimResult, Verdict
from readiness.judge.validity import RULES, VALIDITY, broken_rule

PROFILE = sample_profile()
WELL = {
    "planned": 340, "made": 340, "late_ms_p99": 9.4, "wake_late_ms_p95": 1.2, "cpu_share": 0.11,
    "clock_backwards": 0, "scrape_gap_intervals": 1.1, "server_jobs": 340,
}  # fmt: skip
FAST = samples([20.0 + place % 17 for place in range(680)], "ms")


def facts(**changes: object) -> Entry:
    return ("facts", {VALIDITY: {**WELL, **changes}})


def judged(claim: str, *entries: Entry) -> ClaimResult:
    card = judge(
        PROFILE, {claim: claim_file(claim, entries)}, replace(sample_context(PROFILE)), sealed=SEALED
    )
    return card.claim(claim)


@pytest.mark.parametrize(
    ("code", "held", "broken"),
    [
        ("harness_arrivals", {"made": 334, "server_jobs": 334}, {"made": 333, "server_jobs": 333}),
        ("harness_schedule", {"late_ms_p99": 24.9}, {"late_ms_p99": 25.0}),
        ("harness_schedule", {"wake_late_ms_p95": 99.9}, {"wake_late_ms_p95": 100.0}),
        ("harness_cpu", {"cpu_share": 0.799}, {"cpu_share": 0.8}),
        ("harness_scrapes", {"scrape_gap_intervals": 2.0}, {"scrape_gap_intervals": 2.01}),
        ("harness_counts", {"server_jobs": 339}, {"server_jobs": 341}),
        ("harness_clock", {"clock_backwards": 0}, {"clock_backwards": 1}),
    ],
)
def test_each_rule_holds_up_to_its_limit_and_names_itself_beyond(
    code: str, held: dict[str, object], broken: dict[str, object]
) -> None:
    """The silent case beside the loud one: the same samples are PROVEN on this side of the limit, INVALID beyond."""
    good = judged("H6.api_p95", facts(**held), FAST, PASSED)
    assert good.verdict == Verdict.PROVEN
    bad = judged("H6.api_p95", facts(**broken), FAST, PASSED)
    assert bad.verdict == Verdict.INVALID
    assert bad.reason is not None
    assert bad.reason.code == code
    assert bad.value is None


def test_every_rule_is_tried_here() -> None:
    """A new rule comes with its two cases."""
    tried = {
        "harness_arrivals",
        "harness_schedule",
        "harness_cpu",
        "harness_scrapes",
        "harness_counts",
        "harness_clock",
    }
    assert {code for code, _ in RULES} == tried


def test_lag_is_compared_with_the_target_of_the_claim() -> None:
    """60 ms late spoils a target of 500 ms, and neither one of 60 s nor a rate."""
    for claim, entry, verdict in (
        ("H6.api_p95", FAST, Verdict.INVALID),
        ("H1.job_p95", samples([0.2 + place % 17 / 100 for place in range(340)], "s"), Verdict.PROVEN),
        ("H3.failure_rate", trials(340), Verdict.PROVEN),
    ):
        assert judged(claim, facts(late_ms_p99=60.0), entry, PASSED).verdict == verdict
    assert judged("H3.failure_rate", facts(late_ms_p99=250.0), trials(340), PASSED).verdict == Verdict.INVALID


def test_a_failed_check_is_said_before_a_disturbed_harness_and_a_bad_figure_after() -> None:
    """A check that saw the promise broken is believed; a figure of a starved generator is not, in either direction."""
    slow = samples([900.0 + place % 7 for place in range(680)], "ms")
    assert judged("H6.api_p95", slow, PASSED).verdict == Verdict.FAILED
    assert judged("H6.api_p95", facts(cpu_share=0.95), slow, PASSED).verdict == Verdict.INVALID
    assert (
        judged("H6.api_p95", facts(cpu_share=0.95), FAST, outcome("failed", "no answer")).verdict
        == Verdict.FAILED
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"outcome": "survived", "active": ["12 of 12 refused"], "healed": ["answers again"]}, ""),
        ({"outcome": "survived", "active": [], "healed": ["answers again"]}, "harness_fault_idle"),
        ({"outcome": "survived", "active": ["12 of 12 refused"], "healed": []}, "harness_fault_stays"),
        ({"outcome": "failed", "active": []}, "harness_fault_idle"),
        ({"outcome": "failed", "active": ["12 of 12 refused"], "healed": []}, ""),
        ({"outcome": "not_run", "active": [], "healed": []}, ""),
    ],
)
def test_a_fault_counts_only_when_proven_active_and_removed(line: dict[str, object], code: str) -> None:
    """Living through a fault that never was, or that still is, shows nothing."""
    claim = PROFILE.claim("A5.kill")
    records = claim_file(claim.id, [("facts", {"fault_ledger": [{"name": "worker_kill", **line}]})]).records
    reason = broken_rule(claim, records)
    assert (reason.code if reason else "") == code


def test_nothing_recorded_breaks_no_rule() -> None:
    """Checks that put no load on anything have no schedule; odd facts of others are no rule's business."""
    claim = PROFILE.claim("A5.kill")
    odd: list[Entry] = [
        ("facts", {}),
        ("facts", {VALIDITY: "well"}),
        ("facts", {VALIDITY: {"cpu_share": "high"}}),
    ]
    assert broken_rule(claim, claim_file(claim.id, [*odd, trials(100), PASSED]).records) is None
