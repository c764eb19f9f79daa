"""A claim that a person leaves out says who, why and until when, and earns nothing by it; old evidence goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness.sample_scorecard import (
    PASSED,
    ROOT,
    SEALED,
    claim_file,
    outcome,
    proven_evidence,
    sample_context,
    sample_profile,
    trials,
)

from readiness.errors import BadInput
from readiness.judge.judging import judge
from readiness.judge.model import PartState, RunContext, Scorecard, Text, Verdict
from readiness.judge.profile_model import Exclusion, Profile
from readiness.judge.profile_parse import parse_profile
from readiness.judge.reasons import explain

FILE = "reports/scorecard.yaml"
SOURCE = (ROOT / FILE).read_text(encoding="utf-8")
# The sample run ended on 2026-11-23.
WHY = Text("the region has no second zone", "두 번째 가용 영역이 없습니다")
BLOCK = (
    "not_applicable:\n  - claim: H8.mtbf\n    reason: {en: a, ko: b}\n    owner: Kim\n    until: 2026-12-31\n"
)


def context() -> RunContext:
    found = sample_context(sample_profile())
    parts = tuple(replace(part, state=PartState.REAL) for part in found.parts)
    return replace(found, parts=parts, previous=None)


def excluding(until: str) -> Profile:
    return replace(sample_profile(), exclusions=(Exclusion("H8.mtbf", WHY, "Kim", until),))


def card_of(profile: Profile, **changes: object) -> Scorecard:
    evidence = {**proven_evidence(sample_profile()), **changes}
    return judge(profile, evidence, context(), sealed=SEALED)  # type: ignore[arg-type]  # claim files by id


@pytest.mark.parametrize("until", ["2026-11-23", "2026-11-24", "2030-01-01"])
def test_an_excluded_claim_is_not_applicable_and_earns_nothing(until: str) -> None:
    """Until its day is over: NOT_APPLICABLE with owner, day and reason, below 100 points, whatever was measured."""
    card = card_of(excluding(until))
    claim = card.claim("H8.mtbf")
    assert claim.verdict == Verdict.NOT_APPLICABLE
    assert claim.reason is not None
    assert explain(claim.reason).en == f"Excluded until {until} by Kim: {WHY.en}"
    assert WHY.ko in explain(claim.reason).ko
    assert card.score.overall < 100
    n = len(card.claims)
    assert card.sentence.en.startswith(f"Ready: {n - 1} of {n} claims are proven, 1 not applicable, and all")
    assert card.score.reliability < card_of(sample_profile()).score.reliability
    assert card.status == 0


def test_after_its_day_the_claim_has_to_be_measured_again() -> None:
    """The day after: NOT_RUN, with the owner's name, and the run is open."""
    card = card_of(excluding("2026-11-22"))
    claim = card.claim("H8.mtbf")
    assert (claim.verdict, claim.reason and claim.reason.code) == (Verdict.NOT_RUN, "exclusion_expired")
    assert claim.reason is not None
    assert "Kim excluded this claim until 2026-11-22" in explain(claim.reason).en
    assert card.status == 2


def test_excluding_is_never_worth_points() -> None:
    """A failed claim that is excluded scores as low as one that is open: hiding it raises nothing."""
    failed = claim_file("D1.cancel", [outcome("failed", "too late")])
    profile = sample_profile()
    hidden = replace(profile, exclusions=(Exclusion("D1.cancel", WHY, "Kim", "2030-01-01"),))
    before, after = (card_of(one, **{"D1.cancel": failed}) for one in (profile, hidden))
    assert after.score.overall <= before.score.overall
    assert after.claim("D1.cancel").verdict == Verdict.NOT_APPLICABLE


def test_old_evidence_proves_nothing() -> None:
    """A record from more than 14 days before the run's end makes the claim NOT_RUN; the day is named. Failures stay."""
    young = replace(sample_profile(), evidence_days=1)
    assert card_of(young).claim("A5.once").verdict == Verdict.PROVEN
    late = replace(context(), run=replace(context().run, finished_at="2026-12-07T16:22:33.500Z"))
    files = {
        "A5.once": claim_file("A5.once", [trials(500), PASSED]),
        "A4.idempotent": claim_file("A4.idempotent", [outcome("failed")]),
    }
    card = judge(sample_profile(), files, late, sealed=SEALED)
    claim = card.claim("A5.once")
    assert (claim.verdict, claim.reason and claim.reason.code) == (Verdict.NOT_RUN, "evidence_expired")
    assert claim.reason is not None
    assert "1 records are too old to prove anything; the oldest is of 2026-11-23" in explain(claim.reason).en
    assert card.claim("A4.idempotent").verdict == Verdict.FAILED
    longer = replace(sample_profile(), evidence_days=15)
    assert judge(longer, files, late, sealed=SEALED).claim("A5.once").verdict == Verdict.PROVEN


def test_exclusions_and_days_are_read_and_hashed() -> None:
    """What stands in the file is in the profile, and changes what a score means."""
    profile, base = parse(SOURCE + BLOCK), parse(SOURCE)
    assert profile.exclusions == (Exclusion("H8.mtbf", Text("a", "b"), "Kim", "2026-12-31"),)
    assert (base.exclusions, base.evidence_days) == ((), 14)
    assert parse(SOURCE + "evidence_days: 30\n").evidence_days == 30
    assert len({one.content_hash for one in (profile, base, parse(SOURCE + "evidence_days: 30\n"))}) == 3
    assert Profile.from_json(profile.to_json()) == profile


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    owner: Kim\n", "", "expected the key 'owner', got none. Name who answers for leaving the claim out."),
        ("    until: 2026-12-31\n", "", "expected the key 'until', got none. Say until which day: an"),
        ("    reason: {en: a, ko: b}\n", "", "expected the key 'reason', got none. Say why the claim is"),
        ("2026-12-31", "2026-02-30", "until: expected a day like 2026-12-31, got '2026-02-30'"),
        ("2026-12-31", "for ever", "until: expected a day like 2026-12-31, got 'for ever' (str)."),
        ("H8.mtbf", "H8.mtbff", "expected a claim of this file, got 'H8.mtbff' (str). Did you mean 'H8.mtbf'?"),
        ("H8.mtbf", "A5.kill", "claim: expected a claim of no gate, got 'A5.kill' (str). A gate is a condition that"),
        ("owner", "ower", "unknown key 'ower'. Did you mean 'owner'?"),
        ("  - claim", "  -\n    claim", ""),
    ],
)  # fmt: skip
def test_an_exclusion_needs_reason_owner_and_end(old: str, new: str, words: str) -> None:
    """What is left out of it is asked for, at its line; a gate cannot be excluded from."""
    assert BLOCK.count(old) == 1
    if not words:
        assert parse(SOURCE + BLOCK.replace(old, new)).exclusions
        return
    with pytest.raises(BadInput) as caught:
        parse(SOURCE + BLOCK.replace(old, new))
    said = str(caught.value)
    assert words in said
    assert said.startswith(f"{FILE}:")
    assert "\n" not in said
    assert int(said.split(":")[1]) > SOURCE.count("\n")


def test_a_claim_is_excluded_once() -> None:
    """Twice the same claim is a mistake."""
    with pytest.raises(BadInput, match="each claim once"):
        parse(SOURCE + BLOCK + BLOCK.removeprefix("not_applicable:\n"))


def parse(source: str) -> Profile:
    return parse_profile(source.encode(), name="quick", file=FILE)
