"""The scorecard and its page have their parts: eight sections, two scores, a grade, ten chapters in two languages.

The report of this run does not exist yet when checks run. So the run's own profile is judged with made-up verdicts,
the points are counted again here, by other means, and the page that follows is read as a reader would.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.judge.judging import judge
from readiness.judge.model import ClaimResult, EvidenceSummary, RunContext, RunFacts, Scorecard, Verdict
from readiness.judge.profile_model import Profile
from readiness.judge.score import judge_gates, judge_score, judge_sections
from readiness.render import FORMATS

SECTIONS = {
    "reliability": ["durable_worker", "retry_recovery", "resource_management", "security_cleanup"],  # [J1]
    "observability": ["metrics", "alerts", "tracing", "dashboard"],  # [J2]
}
# Headings of the founding report's ten parts [J4] in both languages; the first, its summary, is a sentence.
PARTS = {
    "verification results per area": ("Reliability results", "신뢰성 확인 결과"),
    "observability results": ("Observability results", "관측성 구성 결과"),
    "SLA table": ("SLA", "목표 대비 실측"),
    "reliability figures": ("Reliability figures", "신뢰성 지표"),
    "deployment settings": ("Deployment settings", "배포 설정"),
    "recommendations": ("Recommendations", "권장사항"),
    "final scores": ("Gates", "필수 조건"),
    "operations support": ("Operations", "운영 지원"),
    "conclusion": ("Conclusion", "결론"),
}
GRADES = re.compile(r"[ABC][+-]?|D|F")
TRIES = 20
EMPTY = EvidenceSummary(files=0, records=0, bytes=0, manifest_sha256="0" * 64)


class Words(HTMLParser):
    """The text of a page, its headings apart."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._open:
            self.headings[-1] += data


@pytest.mark.claim("J4.report")
def test_report_has_its_parts_and_its_points_add_up(
    run_dir: Path, evidence: ClaimEvidence, seed: int
) -> None:
    """Structure by the profile, points by a second count, chapters by the page in both languages."""
    profile = Profile.from_json(json.loads((run_dir / "profile.json").read_text(encoding="utf-8")))
    groups = {
        group: [section.id for section in profile.sections if section.group == group] for group in SECTIONS
    }
    cases = {f"J1, J2: sections of {group}": groups[group] == ids for group, ids in SECTIONS.items()}
    blank = judge(profile, {}, context_of(profile), sealed=EMPTY)
    cases["J3: nothing measured is no point, and no proof"] = (
        blank.score.overall == 0
        and blank.status == 2
        and {c.verdict for c in blank.claims} == {Verdict.NOT_RUN}
    )
    draw = random.Random(seed)
    for number in range(TRIES):
        claims = [replace(claim, verdict=draw.choice(list(Verdict)[:5])) for claim in blank.claims]
        cases[f"J3: the points of random verdicts {number}, counted again"] = adds_up(profile, claims)
    cases |= chapters(blank)
    wrong = [name for name, holds in cases.items() if not holds]
    evidence.cases(len(cases), len(wrong), wrong, "sections, points and chapters")
    assert not wrong, f"{len(wrong)} of {len(cases)}: {'; '.join(wrong)}"


def adds_up(profile: Profile, claims: Sequence[ClaimResult]) -> bool:
    """Whether every score is the floored weighted share of proven points, and the grade one there is."""
    sections, gates = judge_sections(profile, claims), judge_gates(profile, claims)
    score = judge_score(sections, gates, claims)
    mine: dict[str, int] = {}
    for section in profile.sections:
        of = [claim for claim in claims if claim.section == section.id]
        mine[section.id] = (
            100 * sum(c.weight for c in of if c.verdict == "PROVEN") // sum(c.weight for c in of)
        )
    weights = {section.id: section.weight for section in profile.sections}

    def mean(ids: Sequence[str]) -> int:
        return sum(mine[one] * weights[one] for one in ids) // sum(weights[one] for one in ids)

    return (
        {one.id: one.score for one in sections} == mine
        and score.reliability == mean(SECTIONS["reliability"])
        and score.observability == mean(SECTIONS["observability"])
        and score.overall == min(mean(list(mine)), min(mine.values()) + 20)
        and GRADES.fullmatch(score.letter) is not None
    )


def chapters(card: Scorecard) -> dict[str, bool]:
    """Whether the page has each part in both languages, both scores, and the runbooks, addresses and contacts."""
    page = Words()
    page.feed(next(face for face in FORMATS.values() if face.filename == "index.html").render(card, "en"))
    headings, text = " | ".join(page.headings), " ".join(page.text)
    operations = card.operations
    links = [*operations.dashboards, *operations.runbooks, *operations.contacts]
    return {
        "J4: executive summary": all(words in text for words in (card.sentence.en, card.sentence.ko)),
        **{f"J4: {part}": all(word in headings for word in words) for part, words in PARTS.items()},
        "J4: three kinds of operations support": bool(
            operations.dashboards and operations.runbooks and operations.contacts
        ),
        "J4: each of them stands on the page": all(link.target in text for link in links),
        "J4: each claim stands on the page": all(claim.id in text for claim in card.claims),
    }


def context_of(profile: Profile) -> RunContext:
    """A run that measured nothing."""
    at = "2026-01-01T00:00:00.000Z"
    facts = RunFacts(
        id="20260101T000000Z-report-0000", started_at=at, finished_at=at, duration_seconds=0.0, argv=("readiness",),
        commit="", dirty=False, seed=0, profile=profile.name, profile_hash=profile.content_hash, target=profile.target,
        target_version="", harness_version="", python="", platform="", cpu_count=1, memory_bytes=0,
    )  # fmt: skip
    return RunContext(run=facts, parts=())
