"""Each claim names the checks that it rests on: without one of them it is unproven, and the report says which."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from harness.sample_scorecard import (
    PASSED,
    ROOT,
    SEALED,
    Entry,
    claim_file,
    proven_proof,
    sample_context,
    trials,
)

from readiness.errors import BadInput
from readiness.evidence.records import FIRST_PREV, ClaimFile, make_record, plain, read_chain
from readiness.judge.judging import judge, judge_claims
from readiness.judge.model import PartState, RunContext, Scorecard, Verdict
from readiness.judge.profile import load_profile, profile_names
from readiness.judge.profile_model import CHECK_STEPS, Claim, Profile
from readiness.judge.profile_parse import parse_profile
from readiness.judge.reasons import explain

FILE = "reports/scorecard.yaml"
SOURCE = (ROOT / FILE).read_text(encoding="utf-8")
CHECKS = ROOT / "checks"
PROFILE = load_profile(ROOT, "quick")


def check_files() -> list[str]:
    """Every check and every fault scenario that is there, as a claim names it."""
    found = [*CHECKS.rglob("test_*.py"), *(CHECKS / "faults").glob("*.yaml")]
    return sorted(path.relative_to(CHECKS).as_posix() for path in found)


def all_claims() -> dict[str, Claim]:
    """The claims of every profile, by id."""
    return {claim.id: claim for name in profile_names(ROOT) for claim in load_profile(ROOT, name).claims}


def covers(named: str, file: str) -> bool:
    """Whether a claim's name of a check stands for that file: the file itself, or the step that runs it."""
    return named == file or (file.endswith(".yaml") and named == file.partition("/")[0])


def evidence_of(profile: Profile, *, without: Iterable[str] = ()) -> dict[str, ClaimFile]:
    """Evidence that proves each claim, by the outcomes of the checks that it names; some of them are not there."""
    return {
        claim.id: _file(profile, claim, [check for check in claim.checks if check not in without])
        for claim in profile.claims
    }


def _file(profile: Profile, claim: Claim, checks: list[str]) -> ClaimFile:
    content, prev = b"", FIRST_PREV
    entries: list[tuple[str, Entry]] = [
        (checks[0], entry) for entry in proven_proof(profile, claim.id) if checks
    ]
    for seq, (check, (kind, data)) in enumerate([*entries, *((check, PASSED) for check in checks)]):
        node = f"{check} step" if check in CHECK_STEPS else f"{check}::test_promise"
        record, line = make_record(
            {
                "seq": seq, "prev": prev, "claim": claim.id, "kind": kind, "check": node, "fault": None,
                "at": "2026-11-23T16:22:33.000Z", "command": "readiness run", "data": plain(dict(data)),
            }
        )  # fmt: skip
        content, prev = content + line, record.hash
    return read_chain(claim.id, content)


def real_context() -> RunContext:
    context = sample_context(PROFILE)
    parts = tuple(replace(part, state=PartState.REAL) for part in context.parts)
    return replace(context, parts=parts, previous=None)


def card_without(*checks: str) -> Scorecard:
    evidence = evidence_of(PROFILE, without=checks)
    return judge(PROFILE, evidence, real_context(), sealed=SEALED)


def test_with_every_check_all_is_proven() -> None:
    """The silent case: evidence of all named checks gives 100."""
    card = card_without()
    assert {claim.id: claim.reason for claim in card.claims if claim.verdict != Verdict.PROVEN} == {}
    assert card.score.overall == 100


@pytest.mark.parametrize("check", sorted({check for claim in PROFILE.claims for check in claim.checks}))
def test_removing_a_check_lowers_the_score_and_names_what_is_unproven(check: str) -> None:
    """Whichever check leaves no outcome, its claims are NOT_RUN by its name and the score is below 100."""
    card = card_without(check)
    resting = {claim.id for claim in PROFILE.claims if check in claim.checks}
    open_ = {claim.id: claim for claim in card.claims if claim.verdict != Verdict.PROVEN}
    assert set(open_) == resting
    assert card.score.overall < 100
    for claim in open_.values():
        assert claim.verdict == Verdict.NOT_RUN
        assert claim.reason is not None
        assert claim.reason.code == "check_absent"
        for words in (explain(claim.reason).en, explain(claim.reason).ko):
            assert check in words


def test_one_of_two_checks_is_not_enough() -> None:
    """A claim that rests on two checks is open without either, whatever the other measured."""
    claim = replace(PROFILE.claim("A5.once"), checks=("a/test_one.py", "load"))
    profile = replace(PROFILE, claims=(claim,))
    for without, left in (("a/test_one.py", "load"), ("load", "a/test_one.py")):
        [result] = judge_claims(profile, evidence_of(profile, without=[without]), real_context())
        assert result.verdict == Verdict.NOT_RUN
        assert result.reason is not None
        assert result.reason.params == {"checks": without}
        assert left not in explain(result.reason).en


def test_a_failure_is_told_before_an_absent_check() -> None:
    """What was seen to fail stays FAILED where another check is missing."""
    claim = replace(PROFILE.claim("A5.once"), checks=("a/test_one.py", "a/test_two.py"))
    file = claim_file("A5.once", [trials(500, 1), PASSED], check="a/test_one.py::test_it")
    [result] = judge_claims(replace(PROFILE, claims=(claim,)), {"A5.once": file}, real_context())
    assert result.verdict == Verdict.FAILED


def test_a_scenario_counts_for_itself_and_for_its_step() -> None:
    """The outcome of checks/faults/kill.yaml serves a claim that names the file and one that names `faults`."""
    file = claim_file("A5.once", [trials(500), PASSED], check="faults/kill.yaml")
    for named, verdict in (
        ("faults/kill.yaml", Verdict.PROVEN),
        ("faults", Verdict.PROVEN),
        ("faults/other.yaml", Verdict.NOT_RUN),
    ):
        claim = replace(PROFILE.claim("A5.once"), checks=(named,))
        [result] = judge_claims(replace(PROFILE, claims=(claim,)), {"A5.once": file}, real_context())
        assert result.verdict == verdict, named


def test_every_claim_names_its_checks_and_every_check_is_named() -> None:
    """Each claim of each profile rests on a named check, every named file is there, and no file is for nothing."""
    claims, files = all_claims(), check_files()
    assert len(files) >= 25
    assert [claim for claim, block in claims.items() if not block.checks] == []
    named = {check for claim in claims.values() for check in claim.checks}
    assert sorted(named - set(files) - set(CHECK_STEPS)) == []
    assert [file for file in files if not any(covers(name, file) for name in named)] == []


def test_files_name_the_claims_that_name_them() -> None:
    """A claim that names a pytest file is in a mark of that file, and each mark's claim names its file."""
    marks = {
        (claim, file) for file in check_files() if file.endswith(".py") for claim in _marks(CHECKS / file)
    }
    named = {
        (claim.id, check)
        for claim in all_claims().values()
        for check in claim.checks
        if check.endswith(".py")
    }
    assert marks == named


def _marks(path: Path) -> set[str]:
    return {
        str(ast.literal_eval(argument))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.claim")
        for argument in node.args
    }


ONCE = "    checks: [durable_worker/test_recount.py]\n"


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("    checks: [laod]\n", "expected a file below checks/ like durable_worker/test_kill.py, or one of load, "
         "faults, got 'laod' (str). Did you mean 'load'?"),
        ("    checks: [../test_x.py]\n", "claims.H10.recount.checks[0]: expected a file below checks/"),
        ("    checks: [/etc/test_x.py]\n", "expected a file below checks/"),
        ("    checks: []\n", "claims.H10.recount.checks: expected at least 1 item, got a list of 0."),
        ("    checks: durable_worker/test_recount.py\n", "expected a list [a, b]"),
        ("    check: [load]\n", "unknown key 'check'. Did you mean 'checks'?"),
        (ONCE + "    profiles: [qick]\n", "expected a profile of this file, got 'qick' (str). Did you mean 'quick'?"),
        (ONCE + "    profiles: []\n", "claims.H10.recount.profiles: expected at least 1 item"),
        (ONCE + "    profile: [quick]\n", "unknown key 'profile'. Did you mean 'profiles'?"),
    ],
)  # fmt: skip
def test_mistakes_in_checks_and_profiles_are_one_line(new: str, words: str) -> None:
    """File, line, key, and the nearest word there is."""
    assert SOURCE.count(ONCE) == 1
    with pytest.raises(BadInput) as caught:
        parse_profile(SOURCE.replace(ONCE, new).encode(), name="quick", file=FILE)
    said = str(caught.value)
    assert words in said
    line = SOURCE[: SOURCE.index(ONCE)].count("\n") + 1 + (new.startswith(ONCE))
    assert said.startswith(f"{FILE}:{line}: ")
    assert "\n" not in said


def test_a_claim_belongs_to_the_profiles_that_it_names() -> None:
    """A claim for release is in no list of quick, which only knows that it is elsewhere; the hash follows."""
    source = SOURCE.replace(ONCE, ONCE + "    profiles: [release]\n").encode()
    quick, release = (parse_profile(source, name=name, file=FILE) for name in ("quick", "release"))
    assert "H10.recount" not in {claim.id for claim in quick.claims}
    assert "H10.recount" in quick.elsewhere
    assert "H10.recount" in {claim.id for claim in release.claims}
    assert "H10.recount" not in release.elsewhere
    assert quick.content_hash != PROFILE.content_hash
    assert Profile.from_json(quick.to_json()) == quick


def test_no_gate_and_no_section_is_left_empty_by_a_profile() -> None:
    """A gate whose only claim a profile leaves out would hold nothing: the file is refused, at that gate."""
    head = "  A5.kill:\n    section: durable_worker\n"
    assert SOURCE.count(head) == 1
    source = SOURCE.replace(head, head + "    profiles: [release]\n")
    with pytest.raises(
        BadInput, match=r"gates.acknowledged_job_lost.claims: expected at least one claim that is"
    ):
        parse_profile(source.encode(), name="release", file=FILE)
    section = SOURCE.replace("section: dashboard\n", "section: dashboard\n    profiles: [release]\n")
    with pytest.raises(BadInput, match="at least one claim of the section dashboard in the profile quick"):
        parse_profile(section.encode(), name="release", file=FILE)
