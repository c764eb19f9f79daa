"""What a run of a sabotaged copy says about the checks, and how the results are kept and summed up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from readiness.errors import BadInput
from readiness.sabotage.campaign import Campaign
from readiness.sabotage.catalogue import SELF_TEST, Edit, Sabotage
from readiness.sabotage.detection import merged, read_detection, sentence, status_of, write_detection
from readiness.sabotage.judging import Judged, Outcome, clean_fault, judge_trial, judge_whole, not_judged
from readiness.sabotage.trial import Seen

EDITS = (Edit("system/a.py", "1", "2"),)
DEFECT = Sabotage("R1", "doubled", "too slow", "C1.backoff", re.compile("expected 1 s", re.I), "quick", EDITS)
BROKEN_HARNESS = Sabotage("H1", "skipped", "", SELF_TEST, re.compile("skipped only"), "quick", EDITS)


def seen(status: int | None = 1, words: str = "", lines: str = "", **verdicts: str) -> Seen:
    return Seen(status, {name.replace("__", "."): verdict for name, verdict in verdicts.items()},
                {"C1.backoff": words}, lines, 3.0)  # fmt: skip


@pytest.mark.parametrize(
    ("found", "outcome", "noticed"),
    [
        (seen(words="delay: Expected 1 s, got 2 s", C1__backoff="FAILED"), "killed", ("C1.backoff",)),
        (
            seen(words="expected 1 s", C1__backoff="FAILED", A5__kill="FAILED"),
            "killed",
            ("C1.backoff", "A5.kill"),
        ),
        (seen(words="no API came up", C1__backoff="FAILED"), "wrong_check", ("C1.backoff",)),
        (seen(C1__backoff="PROVEN", A5__kill="FAILED"), "wrong_check", ("A5.kill",)),
        (
            seen(words="expected 1 s", C1__backoff="NOT_RUN"),
            "wrong_check",
            ("C1.backoff (NOT_RUN)",),
        ),
        (seen(C1__backoff="PROVEN"), "missed", ()),
        (seen(C1__backoff="INCONCLUSIVE"), "missed", ()),
        (seen(status=3, lines="readiness run: pytest died"), "crashed", ()),
        (seen(status=None), "crashed", ()),
    ],
)
def test_only_the_expected_claim_for_the_expected_reason_kills(
    found: Seen, outcome: str, noticed: tuple[str, ...]
) -> None:
    """Another claim or another reason is a wrong check, silence a miss, a run without a scorecard a crash."""
    judged = judge_trial(DEFECT, found)
    assert (judged.outcome.value, judged.noticed_by) == (outcome, noticed)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (seen(status=3, lines="readiness run: self-test: skipped only: expected NOT_RUN"), "killed"),
        (seen(status=3, lines="readiness run: self-test: another answer"), "wrong_check"),
        (seen(status=3, lines="readiness run: Redis did not start"), "crashed"),
        (seen(status=0, C1__backoff="PROVEN"), "missed"),
        (seen(status=3, lines="skipped only self-test", C1__backoff="PROVEN"), "missed"),
        (seen(status=1, C1__backoff="FAILED"), "wrong_check"),
    ],
)
def test_a_broken_harness_must_refuse_by_its_self_test(found: Seen, outcome: str) -> None:
    """Status 3, no scorecard, and the self-test names the wrong answer; anything else is no kill."""
    assert judge_trial(BROKEN_HARNESS, found).outcome.value == outcome


def test_the_whole_profile_turns_a_miss_into_a_wrong_check_only_when_it_notices() -> None:
    """Another check that notices is named; nothing noticed stays a miss."""
    missed = judge_trial(DEFECT, seen(C1__backoff="PROVEN"))
    assert judge_whole(missed, seen(C1__backoff="PROVEN")).outcome is Outcome.MISSED
    found = judge_whole(missed, seen(C1__backoff="PROVEN", H1__job_p95="FAILED"))
    assert (found.outcome, found.noticed_by, found.seconds) == (Outcome.WRONG_CHECK, ("H1.job_p95",), 6.0)


def test_a_claim_that_fails_on_the_clean_copy_can_notice_nothing() -> None:
    """FAILED, NOT_RUN and INVALID on the clean copy disqualify; PROVEN and INCONCLUSIVE do not."""
    for verdict, fit in (("PROVEN", True), ("INCONCLUSIVE", True), ("FAILED", False), ("NOT_RUN", False)):
        assert (clean_fault("C1.backoff", seen(C1__backoff=verdict)) == "") is fit
    assert "no scorecard" in clean_fault("C1.backoff", seen(status=3))
    assert clean_fault(SELF_TEST, seen(status=2, C1__backoff="PROVEN")) == ""


def campaign(*judged: Judged, runs: int = 2, alarms: tuple[str, ...] = ()) -> Campaign:
    return Campaign(judged, runs, alarms, 1.0)


def killed(number: int) -> Judged:
    one = Sabotage(f"Z{number}", "z", "z", "C1.backoff", re.compile("x"), "quick", EDITS)
    return Judged(one, Outcome.KILLED, ("C1.backoff",), "x", 1.0)


def test_the_sentence_carries_the_lower_bound() -> None:
    """60 of 60 bounds the rate by 95.13 %, 57 by 87.58 %, 54 by 81.2 %; never rounded up."""
    missed = judge_trial(DEFECT, seen(C1__backoff="PROVEN"))
    for lost, bound in ((0, "95.1"), (3, "87.5"), (6, "81.2")):
        found = campaign(*(killed(number) for number in range(60 - lost)), *([missed] * lost))
        assert f"{60 - lost} of 60 killed by their expected check (≥ {bound} % at 95 %)" in sentence(found)
        assert status_of(found) == (1 if lost else 0)
    found = campaign(missed, not_judged(DEFECT, "unfit"), runs=12, alarms=("C1.backoff: late",))
    assert sentence(found) == (
        "sabotage: 0 of 1 killed by their expected check (≥ 0.0 % at 95 %), 1 missed: R1, 1 not judged: R1,"
        " 1 false alarm in 12 clean runs"
    )
    assert status_of(campaign(not_judged(DEFECT, "unfit"))) == 2
    assert status_of(campaign(alarms=("C1.backoff: late",))) == 1


def test_a_subset_keeps_what_was_known_of_the_others(tmp_path: Path) -> None:
    """Entries of the same id are replaced, others kept, those of gone sabotages dropped; clean runs add up."""
    path = tmp_path / "reports" / "detection.json"
    known = ["Z1", "Z2", "Z3", "R1"]
    how = {"commit": "abc", "known": known, "checks": {"C1.backoff": "d1"}, "all_checks": "same"}
    first = merged(read_detection(path), campaign(killed(2), killed(1), killed(3), runs=5), **how)
    write_detection(path, first)
    assert [entry["id"] for entry in first["sabotages"]] == ["Z1", "Z2", "Z3"]
    how["known"] = ["Z1", "Z2", "R1"]
    missed = judge_trial(DEFECT, seen(C1__backoff="PROVEN"))
    second = merged(read_detection(path), campaign(missed, runs=2, alarms=("x",)), **how)
    assert [(entry["id"], entry["outcome"]) for entry in second["sabotages"]] == [
        ("Z1", "killed"), ("Z2", "killed"), ("R1", "missed"),
    ]  # fmt: skip
    assert (second["clean_runs"]["runs"], second["clean_runs"]["false_alarms"]) == (7, 1)
    assert second["checks"] == {"C1.backoff": "d1"}
    unjudged = merged(
        second, campaign(not_judged(DEFECT, "unfit")), **{**how, "checks": {"C1.backoff": "d2"}}
    )
    assert (unjudged["sabotages"], unjudged["checks"]) == (second["sabotages"], second["checks"])
    retried = merged(second, campaign(missed), **{**how, "checks": {"C1.backoff": "d2"}})
    assert [entry["id"] for entry in retried["sabotages"]] == ["R1"]
    changed = merged(second, campaign(runs=1), **{**how, "all_checks": "other"})
    assert (changed["clean_runs"]["runs"], changed["clean_runs"]["false_alarms"]) == (1, 0)


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    """What is no detection.json of ours is bad input, not an empty beginning."""
    path = tmp_path / "detection.json"
    for content in ("[]", '{"schema": 2}', "no json"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(BadInput, match="expected"):
            read_detection(path)
