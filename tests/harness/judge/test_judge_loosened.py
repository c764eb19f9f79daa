"""A target that was moved until it was met is named: by comparison with the base, in the report, in both languages."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from harness.sample_scorecard import ROOT, sample_profile, sample_scorecard

from readiness.baseline import NO_BASE, find_baseline
from readiness.errors import BadInput
from readiness.judge.loosened import loosened
from readiness.judge.model import Baseline, Loosened, Scorecard, Text
from readiness.judge.profile import load_profile
from readiness.judge.profile_model import Claim, Estimator, Exclusion, Profile
from readiness.render import FORMATS

BASE = load_profile(ROOT, "quick")


def with_claim(claim_id: str, change: Callable[[Claim], Claim]) -> Profile:
    claims = tuple(change(claim) if claim.id == claim_id else claim for claim in BASE.claims)
    return replace(BASE, claims=claims)


def with_target(claim_id: str, **changes: object) -> Profile:
    def change(claim: Claim) -> Claim:
        fields: dict[str, object] = {name: getattr(claim.estimator, name) for name in Estimator.__slots__}
        return replace(claim, estimator=Estimator(**{**fields, **changes}))  # type: ignore[arg-type]  # by name

    return with_claim(claim_id, change)


def without(claim_id: str) -> Profile:
    return replace(BASE, claims=tuple(claim for claim in BASE.claims if claim.id != claim_id))


@pytest.mark.parametrize(
    ("now", "subject", "en", "ko"),
    [
        (with_target("H6.api_p95", limit=800.0), "H6.api_p95", "target P95 < 800 ms (requests), was P95 < 500", "이전"),
        (with_target("H6.api_p95", quantile=0.9), "H6.api_p95", "target P90 < 500 ms (requests), was P95", "이전"),
        (with_target("H8.mtbf", limit=12.0), "H8.mtbf", "target > 12 h (s), was > 24 h", "목표"),
        (with_target("H9.availability", limit=0.99), "H9.availability", "target ≥ 99 %", "목표"),
        (with_target("A5.kill", minimum_n=10), "A5.kill", "0 violations in at least 10 jobs", "위반 0건"),
        (with_target("H2.dlq", window=100), "H2.dlq", "target < 10 per 100 jobs (jobs), was < 10 per 500", "작업"),
        (with_target("H6.api_p95", unit="s"), "H6.api_p95", "target P95 < 500 s", "목표"),
        (with_claim("A5.kill", lambda c: replace(c, weight=1)), "A5.kill", "weight 1, was 5", "가중치 1 (이전: 5)"),
        (with_claim("A5.kill", lambda c: replace(c, checks=())), "A5.kill", "rests no longer on durable", "검사"),
        (with_claim("A5.kill", lambda c: replace(c, needs=())), "A5.kill", "no longer needs a real redis", "구성 요소"),
        (with_claim("A5.kill", lambda c: replace(c, section="metrics")), "A5.kill", "section metrics, was", "영역"),
        (without("D1.cancel"), "D1.cancel", "claim removed", "항목 삭제"),
        (replace(without("D1.cancel"), elsewhere=("D1.cancel",)), "D1.cancel", "no longer in this profile", "제외된"),
        (replace(BASE, gates=BASE.gates[1:]), BASE.gates[0].id, "gate removed", "필수 조건 삭제"),
        (replace(BASE, sections=BASE.sections[1:]), BASE.sections[0].id, "section removed", "영역 삭제"),
        (replace(BASE, exclusions=(Exclusion("H8.mtbf", Text("a", "b"), "Kim", "2026-12-31"),)), "H8.mtbf",
         "not applicable until 2026-12-31", "2026-12-31까지"),
        (replace(BASE, evidence_days=90), "evidence_days", "days that evidence counts 90, was 14", "90 (이전: 14)"),
        (replace(BASE, knobs=replace(BASE.knobs, kills=3)), "kills", "kills 3, was 20", "강제 종료"),
    ],
)  # fmt: skip
def test_what_asks_less_is_named(now: Profile, subject: str, en: str, ko: str) -> None:
    """One change of a profile is one line, in both languages."""
    found = [item for item in loosened(BASE, now) if item.subject == subject]
    assert len(found) == 1, loosened(BASE, now)
    assert en in found[0].what.en
    assert ko in found[0].what.ko


def test_a_gate_that_holds_fewer_claims_is_named() -> None:
    """A claim that leaves a gate is named with the gate."""
    first = BASE.gates[0]
    now = replace(BASE, gates=(replace(first, claims=("A4.idempotent",)), *BASE.gates[1:]))
    [found] = loosened(BASE, now)
    assert (found.subject, first.claims[0] in found.what.en) == (first.id, True)


@pytest.mark.parametrize(
    "now",
    [
        BASE,
        with_target("H6.api_p95", limit=400.0),
        with_target("H6.api_p95", quantile=0.99),
        with_target("H8.mtbf", limit=48.0),
        with_target("A5.kill", minimum_n=1000),
        with_claim("A5.kill", lambda claim: replace(claim, weight=10, checks=(*claim.checks, "a/test_b.py"))),
        replace(BASE, evidence_days=7, knobs=replace(BASE.knobs, kills=100)),
    ],
)
def test_what_asks_more_is_nobodys_worry(now: Profile) -> None:
    """The silent case: the same, or stricter, is no line."""
    assert loosened(BASE, now) == ()


# The base in git


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, timeout=30)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with this profile on main, and a branch on which two targets are loosened."""
    (tmp_path / "reports" / "slo").mkdir(parents=True)
    for name in ("reports/scorecard.yaml", "reports/slo/ragworker.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "base")
    git(tmp_path, "checkout", "-qb", "easier")
    for name in ("min_hours: 24", "min_hours: 2"), ("min: 0.999", "min: 0.9"):
        loosen(tmp_path, *name)
        git(tmp_path, "commit", "-qam", "easier")
    return tmp_path


def loosen(folder: Path, old: str, new: str) -> None:
    path = folder / "reports" / "scorecard.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def subjects(found: Baseline) -> set[str]:
    return {item.subject for item in found.loosened}


def test_the_whole_branch_is_compared_and_what_is_not_committed_too(checkout: Path) -> None:
    """Both commits of the branch and an edit that is in no commit yet are seen, against where the branch left main."""
    assert subjects(baseline(checkout)) == {"H8.mtbf", "H9.availability"}
    loosen(checkout, "kills: 20", "kills: 2")
    assert subjects(baseline(checkout)) == {"H8.mtbf", "H9.availability", "kills"}


def test_on_main_the_parent_is_the_base(checkout: Path) -> None:
    """What the last commit of main loosened is seen; --base looks further back."""
    git(checkout, "checkout", "-q", "main")
    git(checkout, "merge", "-q", "--ff-only", "easier")
    assert subjects(baseline(checkout)) == {"H9.availability"}
    assert subjects(baseline(checkout, ref="HEAD~2")) == {"H8.mtbf", "H9.availability"}


def test_without_a_base_the_report_says_so(tmp_path: Path, checkout: Path) -> None:
    """No git and no such profile are sentences; a --base that git does not know is an error of the person."""
    bare = tmp_path.parent / "no-git-here"
    (bare / "reports").mkdir(parents=True)
    assert find_baseline(bare, "quick", BASE) == Baseline(note=NO_BASE)
    (checkout / "mine.yaml").write_text("extends: quick\n", encoding="utf-8")
    assert baseline(checkout, name=str(checkout / "mine.yaml")).note is None
    for ref in ("nosuch", "--output=x", ""):
        with pytest.raises(BadInput, match="--base"):
            baseline(checkout, ref=ref)


def baseline(folder: Path, *, ref: str | None = None, name: str = "quick") -> Baseline:
    return find_baseline(folder, name, load_profile(folder, name), ref=ref)


# The report


def faces(card: Scorecard) -> dict[str, str]:
    return {face.filename: face.render(card, "en") for face in FORMATS.values()}


def test_page_and_markdown_list_what_was_loosened() -> None:
    """What was loosened stands in the appendix, with the base; hostile names are harmless there."""
    item = Loosened("<b>loose</b>", Text("target < 2, was < 1", "목표 2 (이전: 1)"))
    card = replace(sample_scorecard(), baseline=Baseline(base="c0ffee123456", loosened=(item,)))
    said = faces(card)
    assert "c0ffee123456, this profile asks less in 1 places" in said["index.html"]
    visible = said["index.html"].partition('<script type="application/json"')[0]
    assert "<b>loose</b>" not in visible + said["scorecard.md"].replace("`<b>loose</b>`", "")
    for text in (visible, said["scorecard.md"]):
        assert "was &lt; 1" in text
    assert "목표 2 (이전: 1)" in said["index.html"]


def test_page_says_that_nothing_was_loosened_or_that_there_was_no_base() -> None:
    """Three ways to have nothing to list, told apart."""
    card = sample_scorecard()
    assert sample_profile().name == "quick"
    assert "asks for nothing less" in faces(replace(card, baseline=Baseline(base="c0ffee")))["index.html"]
    assert NO_BASE.en in faces(replace(card, baseline=Baseline(note=NO_BASE)))["index.html"]
    assert "There was no base" in faces(replace(card, baseline=Baseline()))["index.html"]
