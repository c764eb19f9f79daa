"""A proven claim is worth what its checks have been seen to catch."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from harness.sample_scorecard import (
    ROOT,
    SEALED,
    proven_evidence,
    sample_context,
    sample_detection,
    sample_profile,
)

from readiness.detection_facts import detection_facts
from readiness.errors import BadInput
from readiness.judge.bounds import rate_lower
from readiness.judge.detection import (
    CapState,
    ClaimDetection,
    DetectionFacts,
    DetectionRule,
    Noticed,
    claim_detection,
    earned_share,
    judge_detection,
)
from readiness.judge.judging import judge
from readiness.judge.model import Scorecard
from readiness.judge.profile import load_profile
from readiness.judge.profile_parse import parse_profile
from readiness.judge.verdicts import Verdict
from readiness.sabotage.digests import check_digest

PROFILE = sample_profile()
RULE = DetectionRule("reports/detection.json", 0.5)
NAMED = replace(load_profile(ROOT, "quick"), detection=RULE)  # its claims name their check files


def judged(facts: DetectionFacts | None, rule: DetectionRule | None = RULE) -> Scorecard:
    """Return the scorecard of a run that proves everything, with this detection power."""
    context = replace(sample_context(PROFILE), detection=facts)
    return judge(replace(PROFILE, detection=rule), proven_evidence(PROFILE), context, sealed=SEALED)


def section_scores(card: Scorecard) -> dict[str, int]:
    return {section.id: section.score for section in card.sections}


def test_all_killed_caps_nothing() -> None:
    """When every claim's planted defect was killed, proven claims earn all their points."""
    card = judged(sample_detection(PROFILE))
    assert card.score.overall == 100 or any(c.verdict != Verdict.PROVEN for c in card.claims)
    assert {claim.detection.state for claim in card.claims if claim.detection} == {CapState.MEASURED}


def test_without_a_rule_nothing_is_capped_and_the_report_says_that_nothing_was_tried() -> None:
    """A profile of somebody's own has no planted defects: full points, and one sentence of what that leaves open."""
    card = judged(None, rule=None)
    assert card.detection is None
    assert all(claim.detection is None for claim in card.claims)
    assert section_scores(card) == section_scores(judged(sample_detection(PROFILE)))
    assert any("a check that cannot fail" in text.en for text in card.not_shown)


def test_without_a_file_proven_claims_are_worth_half() -> None:
    """No detection.json: every claim is unmapped, so a section with everything proven has 50 points."""
    card = judged(None)
    assert set(section_scores(card).values()) <= {50} | {
        s // 2 for s in section_scores(judged(None, None)).values()
    }
    assert card.detection is not None
    assert card.detection.measured_at == ""
    assert any("earn a part of their points" in text.en for text in card.not_shown)


def test_a_missed_defect_costs_its_share_of_the_points() -> None:
    """One of two defects missed: the claim earns half its weight, and the rest is unknown, not failed."""
    first = PROFILE.claims[0]
    facts = sample_detection(PROFILE)
    twin = replace(facts.sabotages[0], id="S1b", outcome=Noticed.MISSED)
    card = judged(replace(facts, sabotages=(*facts.sabotages, twin)))
    assert card.claims[0].detection == ClaimDetection(CapState.MEASURED, 1, 2, 0.5)
    section = next(section for section in card.sections if section.id == first.section)
    total = sum(claim.weight for claim in PROFILE.claims if claim.section == first.section)
    assert section.score == int(100 * (total - Fraction(first.weight, 2)) / total)
    assert section.band.failed == 0
    assert section.band.proven + section.band.unknown == 100
    assert card.score.overall < 100


@pytest.mark.parametrize("outcome", [Noticed.WRONG_CHECK, Noticed.MISSED, Noticed.CRASHED])
def test_only_the_expected_check_kills(outcome: Noticed) -> None:
    """Noticed by another check, not at all, or by a crash: the claim's own check caught nothing."""
    facts = sample_detection(PROFILE, S1=outcome)
    assert claim_detection(PROFILE.claims[0].id, RULE, facts).share == 0
    assert judged(facts).score.overall < 100


def test_a_defect_that_could_not_be_judged_counts_neither_way() -> None:
    """A claim that does not hold on a clean tree says nothing about its check: unmapped."""
    facts = sample_detection(PROFILE, S1=Noticed.NOT_JUDGED)
    assert claim_detection(PROFILE.claims[0].id, RULE, facts).state == CapState.UNMAPPED
    assert judge_detection(RULE, facts).judged == len(PROFILE.claims) - 1


def test_changed_checks_fall_back_to_half() -> None:
    """What was measured with other check files does not count for these."""
    facts = replace(sample_detection(PROFILE), changed=(PROFILE.claims[0].id,))
    found = claim_detection(PROFILE.claims[0].id, RULE, facts)
    assert (found.state, found.share) == (CapState.CHANGED, 0.5)


def test_totals_and_their_bounds() -> None:
    """57 of 60 have the Clopper-Pearson lower bound 87.5 %; 59 clean runs bound false alarms by 5 %."""
    facts = sample_detection(PROFILE)
    some = [replace(facts.sabotages[0], id=f"T{n}", outcome=Noticed.KILLED) for n in range(57)]
    others = [
        replace(some[0], id=f"U{o}", outcome=o)
        for o in (Noticed.MISSED, Noticed.WRONG_CHECK, Noticed.CRASHED)
    ]
    result = judge_detection(RULE, replace(facts, sabotages=(*some, *others), clean_runs=59))
    assert (result.judged, result.killed, result.missed, result.wrong_check, result.crashed) == (
        60,
        57,
        1,
        1,
        1,
    )
    assert result.power_bound == rate_lower(57, 60) == pytest.approx(0.8758, abs=1e-4)
    assert result.false_alarm_bound is not None
    assert 0.049 < result.false_alarm_bound < 0.05
    empty = judge_detection(RULE, None)
    assert (empty.power_bound, empty.false_alarm_bound, empty.judged) == (None, None, 0)


def test_share_is_exact() -> None:
    """Two of three are two thirds, and half is a half: no float decides a floor."""
    assert earned_share(ClaimDetection(CapState.MEASURED, 2, 3, 2 / 3)) == Fraction(2, 3)
    assert earned_share(ClaimDetection(CapState.UNMAPPED, 0, 0, 0.1)) == Fraction(1, 10)
    assert earned_share(None) == 1


def test_profile_names_the_file_and_what_unmapped_claims_are_worth() -> None:
    """The block `detection` of a scorecard file is read, hashed, and refused outside 0..1."""
    content = (ROOT / "reports" / "scorecard.yaml").read_text(encoding="utf-8")
    bare = "\n".join(line for line in content.splitlines() if not line.startswith("detection:")) + "\n"
    block = "detection: {file: reports/detection.json, unmapped: 0.5}\n"

    def parsed(text: str) -> object:
        return parse_profile((bare + text).encode(), name="quick", file="scorecard.yaml")

    assert parsed(block).detection == RULE  # type: ignore[attr-defined] - a Profile
    assert parsed("").detection is None  # type: ignore[attr-defined] - a Profile
    assert parsed("").content_hash != parsed(block).content_hash  # type: ignore[attr-defined] - two Profiles
    with pytest.raises(BadInput, match="unmapped"):
        parsed(block.replace("0.5", "1.5"))


def _root_with(folder: Path, *, digest: str | None = None, **changes: object) -> Path:
    """Write a content root with one check file of A5.kill and a detection.json about it."""
    kill = folder / "checks" / "durable_worker" / "test_kill.py"
    kill.parent.mkdir(parents=True)
    kill.write_text("def test_kill(): ...\n", encoding="utf-8")
    claim = NAMED.claim("A5.kill")
    body: dict[str, object] = {
        "schema": 1, "commit": "abc", "measured_at": "2026-11-23T20:00:00Z",
        "sabotages": [{"id": "D1", "title": "t", "expected": "A5.kill", "outcome": "killed", "seconds": 1}],
        "clean_runs": {"runs": 3, "false_alarms": 1},
        "checks": {"A5.kill": digest or check_digest(folder, claim.checks)},
    }  # fmt: skip
    (folder / "reports").mkdir()
    text = json.dumps({**body, **changes})
    (folder / "reports" / "detection.json").write_text(text, encoding="utf-8")
    return folder


def test_facts_are_read_and_compared_with_the_checks_that_are_there(tmp_path: Path) -> None:
    """The file's sabotages and clean runs are kept; a check edited since is named as changed."""
    root = _root_with(tmp_path)
    facts = detection_facts(root, NAMED)
    assert facts is not None
    assert [one.outcome for one in facts.sabotages] == [Noticed.KILLED]
    assert (facts.clean_runs, facts.false_alarms, facts.changed) == (3, 1, ())
    (root / "checks" / "durable_worker" / "test_kill.py").write_text(
        "def test_kill(): pass\n", encoding="utf-8"
    )
    edited = detection_facts(root, NAMED)
    assert edited is not None
    assert edited.changed == ("A5.kill",)
    assert detection_facts(root, replace(NAMED, detection=None)) is None


@pytest.mark.parametrize(
    "changes", [{"schema": 2}, {"sabotages": {}}, {"checks": None}, {"sabotages": [{"id": "D1"}]}]
)
def test_a_file_of_another_shape_is_refused_in_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    """A detection.json that cannot be read does not silently count as none."""
    with pytest.raises(BadInput, match=r"detection\.json: expected schema 1"):
        detection_facts(_root_with(tmp_path, **changes), NAMED)


def test_no_file_is_no_error(tmp_path: Path) -> None:
    """Nothing was measured yet: None, and the judge caps."""
    assert detection_facts(tmp_path, NAMED) is None
