"""Points, bands, gates, letter and exit status."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from harness.sample_scorecard import (
    PASSED,
    SEALED,
    claim_file,
    empty_scorecard,
    outcome,
    proven_evidence,
    proven_scorecard,
    sample_context,
    sample_parts,
    sample_profile,
    sample_scorecard,
    trials,
)

from readiness.judge.judging import judge
from readiness.judge.model import (
    Band,
    GateState,
    PartState,
    Previous,
    RunContext,
    Scorecard,
    Status,
    Step,
    Verdict,
)
from readiness.judge.score import letter


def real_context() -> RunContext:
    parts = tuple(replace(part, state=PartState.REAL) for part in sample_parts())
    return replace(sample_context(sample_profile()), parts=parts, previous=None)


def card_without(
    ids: Iterable[str], *, failed: Iterable[str] = (), excluded: Iterable[str] = ()
) -> Scorecard:
    """Return a scorecard in which all is proven but `ids` (no evidence), `failed` and `excluded`."""
    evidence = proven_evidence(sample_profile())
    for claim in ids:
        del evidence[claim]
    for claim in failed:
        evidence[claim] = claim_file(claim, [outcome("failed", "assert False")])
    context = replace(real_context(), excluded=dict.fromkeys(excluded, "not declared"))
    return judge(sample_profile(), evidence, context, sealed=SEALED)


def test_all_proven_is_100_and_status_0() -> None:
    """100, A+, every gate held and status 0 come with every claim proven."""
    card = proven_scorecard()
    assert (card.score.overall, card.score.letter, card.status) == (100, "A+", 0)
    assert card.score.band == Band(100, 0, 0)
    assert {gate.state for gate in card.gates} == {GateState.HELD}


@pytest.mark.parametrize("claim", [claim.id for claim in sample_profile().claims])
def test_any_open_claim_costs_the_100(claim: str) -> None:
    """100 is never shown while a claim is open, however light."""
    card = card_without([claim])
    assert card.score.overall < 100
    assert card.score.band.proven < 100
    assert card.status == 2


def test_nothing_run_is_zero_unknown_and_status_2() -> None:
    """A run without evidence scores 0, all of it unknown, and is no failure and no pass."""
    card = empty_scorecard()
    assert (card.score.overall, card.status) == (0, 2)
    assert card.score.band == Band(0, 100, 0)
    assert {gate.state for gate in card.gates} == {GateState.UNKNOWN}


def test_section_score_is_the_floored_share_of_proven_weight() -> None:
    """retry_recovery without the DLQ claim (weight 2 of 23) scores floor(100 x 21/23) = 91."""
    profile = sample_profile()
    weights = {claim.id: claim.weight for claim in profile.claims if claim.section == "retry_recovery"}
    section = next(s for s in card_without(["H2.dlq"]).sections if s.id == "retry_recovery")
    assert section.score == 100 * (sum(weights.values()) - weights["H2.dlq"]) // sum(weights.values())
    assert section.band == Band(section.score, 100 - section.score, 0)


def test_strong_sections_do_not_buy_back_a_weak_one() -> None:
    """With one section at 0 and seven at 100 the overall score is 20, not the mean of 87."""
    alerts = [claim.id for claim in sample_profile().claims if claim.section == "alerts"]
    card = card_without(alerts)
    assert card.score.overall == 20
    assert (card.score.reliability, card.score.observability) == (100, 75)


def test_failed_gate_strikes_the_score_and_is_status_1() -> None:
    """One failed gate claim: gate FAILED, score struck, status 1; the others stay HELD."""
    card = card_without([], failed=["G4.jwt"])
    states = {gate.id: gate.state for gate in card.gates}
    assert states.pop("auth_bypass") == GateState.FAILED
    assert set(states.values()) == {GateState.HELD}
    assert (card.score.struck, card.status) == (True, 1)


def test_open_gate_claim_is_unknown_not_held() -> None:
    """A gate is not held because nobody looked."""
    card = card_without(["F10.delivery"])
    assert next(gate.state for gate in card.gates if gate.id == "alert_silent") == GateState.UNKNOWN
    assert (card.score.struck, card.status) == (False, 2)


def test_excluded_claims_leave_the_denominator_and_alone_prove_nothing() -> None:
    """NOT_APPLICABLE takes its points out of the total; a scorecard of nothing else is not ready."""
    card = card_without([], excluded=["D1.cancel"])
    assert (card.score.overall, card.status) == (100, 0)
    everything = [claim.id for claim in sample_profile().claims]
    assert card_without(everything, excluded=everything).status == 2


def test_invalid_measurement_and_broken_step_are_status_3() -> None:
    """When the harness broke, that is said, unless something is known to have failed."""
    evidence = proven_evidence(sample_profile())
    evidence["A5.once"] = claim_file("A5.once", [trials(1, 2), PASSED])
    context = real_context()
    assert judge(sample_profile(), evidence, context, sealed=SEALED).status == 3
    broken = replace(context, steps=(Step("load", 1.0, Status.FAILED, "locust ended with 1"),))
    assert judge(sample_profile(), proven_evidence(sample_profile()), broken, sealed=SEALED).status == 3
    evidence["A5.kill"] = claim_file("A5.kill", [trials(500, 1), PASSED])
    assert judge(sample_profile(), evidence, context, sealed=SEALED).status == 1


@pytest.mark.parametrize(
    ("overall", "grade"),
    [(100, "A+"), (97, "A+"), (96, "A"), (93, "A"), (92, "A-"), (90, "A-"), (89, "B+"), (86, "B"), (82, "B-"),
     (79, "C+"), (76, "C"), (72, "C-"), (69, "D"), (60, "D"), (59, "F"), (0, "F")],
)  # fmt: skip
def test_letters(overall: int, grade: str) -> None:
    """Each score has its letter, at both edges."""
    assert letter(overall) == grade


def test_bands_sum_to_100_whatever_the_verdicts() -> None:
    """Proven, unknown and failed are whole, never negative and sum to 100, in every section and overall."""
    draw = random.Random(20261123)
    ids = [claim.id for claim in sample_profile().claims]
    for _ in range(60):
        gone = draw.sample(ids, draw.randrange(len(ids)))
        failed = [claim for claim in ids if claim not in gone and draw.random() < 0.2]
        card = card_without(gone, failed=failed)
        for band in (card.score.band, *(section.band for section in card.sections)):
            assert band.proven + band.unknown + band.failed == 100
            assert min(band.proven, band.unknown, band.failed) >= 0
        assert (card.score.band.failed > 0) == bool(failed)


def test_changes_are_told_against_the_same_profile_only() -> None:
    """Claims that moved are listed; a run of another profile hash is not compared."""
    card = sample_scorecard()
    moved = {change.claim: (change.before, change.after) for change in card.changes}
    assert moved["A5.kill"] == (Verdict.PROVEN, Verdict.FAILED)
    assert moved["SEC.secrets"] == (None, Verdict.PROVEN)
    assert "H8.mtbf" not in moved
    context = replace(real_context(), previous=Previous("old", "another hash", {"A5.kill": Verdict.FAILED}))
    other = judge(sample_profile(), proven_evidence(sample_profile()), context, sealed=SEALED)
    assert (other.changes, other.previous_run) == ((), None)


def test_recommendations_come_by_points_and_cover_every_open_claim() -> None:
    """Every open claim is in a recommendation, and the one that earns most stands first."""
    card = sample_scorecard()
    earned = [item.points for item in card.recommendations]
    assert earned == sorted(earned, reverse=True)
    words = " ".join(item.text.en for item in card.recommendations)
    for claim in card.claims:
        if claim.verdict not in (Verdict.PROVEN, Verdict.NOT_APPLICABLE):
            assert claim.id in words
    assert proven_scorecard().recommendations == ()


def test_same_input_gives_the_same_scorecard() -> None:
    """Judging twice gives the same scorecard, and it survives the way through JSON."""
    card = sample_scorecard()
    assert card == sample_scorecard()
    assert Scorecard.from_json(card.to_json()) == card
