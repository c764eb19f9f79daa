"""junit.xml: one test case a claim, one test suite a section, for every CI server that reads JUnit.

FAILED is a failure, INVALID an error; NOT_RUN, INCONCLUSIVE and NOT_APPLICABLE are skipped with their reason, never
passed. In English, because CI servers sort and compare by these words.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from typing import Final

from readiness.judge.model import ClaimResult, Scorecard, SectionResult, Verdict
from readiness.render.claims import sentence
from readiness.render.escape import clip, one_line, visible

_TAGS: Final = {
    Verdict.FAILED: "failure",
    Verdict.INVALID: "error",
    Verdict.NOT_RUN: "skipped",
    Verdict.INCONCLUSIVE: "skipped",
    Verdict.NOT_APPLICABLE: "skipped",
}
#: CI servers show the message in one line and keep every run's; the whole text is in the evidence.
_TEXT_MAX: Final = 8000


def render_junit(card: Scorecard) -> str:
    """Return the JUnit XML document."""
    claims = {claim.id: claim for claim in card.claims}
    root = ET.Element("testsuites", name=one_line(f"readiness {card.run.target} {card.run.profile}"))
    root.set("time", f"{card.run.duration_seconds:.3f}")
    _count(root, card.claims)
    for section in card.sections:
        _suite(root, section, tuple(claims[item] for item in section.claims if item in claims), card)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(
    root: ET.Element, section: SectionResult, claims: tuple[ClaimResult, ...], card: Scorecard
) -> None:
    suite = ET.SubElement(
        root, "testsuite", name=one_line(section.title.en), timestamp=card.run.started_at[:19]
    )
    _count(suite, claims)
    for claim in claims:
        case = ET.SubElement(suite, "testcase", classname=f"readiness.{section.id}", name=one_line(claim.id))
        case.set("time", "0")
        tag = _TAGS.get(claim.verdict)
        if tag is not None:
            result = ET.SubElement(case, tag, message=_message(claim))
            if tag != "skipped":
                result.set("type", str(claim.verdict))
            result.text = _body(claim)


def _count(element: ET.Element, claims: tuple[ClaimResult, ...]) -> None:
    counts = Counter(_TAGS.get(claim.verdict) for claim in claims)
    element.set("tests", str(len(claims)))
    element.set("failures", str(counts["failure"]))
    element.set("errors", str(counts["error"]))
    element.set("skipped", str(counts["skipped"]))


def _message(claim: ClaimResult) -> str:
    why = sentence(claim.reason).en if claim.reason else claim.measured.en
    return clip(one_line(f"{claim.verdict}: {why}"), _TEXT_MAX)[0]


def _body(claim: ClaimResult) -> str:
    lines = [
        claim.statement.en,
        f"measured: {claim.measured.en}",
        f"target: {claim.target.en}",
        *([f"to settle it: {claim.needed.en}"] if claim.needed else []),
        *([f"repeat: {claim.repeat}"] if claim.repeat else []),
        *([f"evidence: {', '.join(claim.evidence)}"] if claim.evidence else []),
        *([claim.reason.detail] if claim.reason and claim.reason.detail else []),
    ]
    return clip(visible("\n".join(lines)), _TEXT_MAX)[0]
