"""What to do next, made from open claims and missing parts and sorted by the points that it would earn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from readiness.judge.figures import SECONDS
from readiness.judge.model import (
    ClaimResult,
    Part,
    PartState,
    Recommendation,
    SectionResult,
    Term,
    Text,
    Verdict,
)
from readiness.judge.parts import part_title
from readiness.judge.reasons import explain

# Samples that a few more minutes of the same run bring; more of them is a plan for the quarter.
SOON_SAMPLES = 5_000


def recommend(
    claims: Sequence[ClaimResult], sections: Sequence[SectionResult], parts: Sequence[Part]
) -> tuple[Recommendation, ...]:
    """Return the recommendations, most points first; parts that hold no claim back come last."""
    points = claim_points(claims, sections)
    found: list[Recommendation] = []
    by_part: dict[str, list[ClaimResult]] = {}
    for claim in claims:
        if claim.verdict in (Verdict.PROVEN, Verdict.NOT_APPLICABLE):
            continue
        if claim.reason and claim.reason.code in ("part_missing", "part_simulated"):
            by_part.setdefault(str(claim.reason.params["part"]), []).append(claim)
        else:
            found.append(_claim(claim, points[claim.id]))
    for name, blocked in by_part.items():
        found.append(_part(name, blocked, sum(points[claim.id] for claim in blocked)))
    for part in parts:
        if part.state == PartState.SIMULATED and part.name not in by_part:
            found.append(_real_part(part))
    return tuple(sorted(found, key=lambda item: (-item.points, item.claim or item.part or "")))


def claim_points(claims: Sequence[ClaimResult], sections: Sequence[SectionResult]) -> Mapping[str, float]:
    """Return what each claim is worth of the 100 points of the weighted mean, floored to a tenth."""
    total = sum(section.weight for section in sections)
    worth: dict[str, float] = {}
    for section in sections:
        members = [c for c in claims if c.section == section.id and c.verdict != Verdict.NOT_APPLICABLE]
        weights = sum(claim.weight for claim in members)
        for claim in members:
            worth[claim.id] = math.floor(1000 * section.weight * claim.weight / (total * weights)) / 10
    return worth


def _claim(claim: ClaimResult, points: float) -> Recommendation:
    why = explain(claim.reason) if claim.reason else Text("", "")
    if claim.verdict == Verdict.FAILED:
        text = Text(
            f"Repair {claim.id} and prove it by another run. {why.en}",
            f"{claim.id} 항목을 수정하고 다시 실행하여 입증하십시오. {why.ko}",
        )
        return Recommendation(points, Term.SHORT, text, claim=claim.id)
    if claim.needed and claim.n_unit == SECONDS:
        text = Text(
            f"Keep the system under observation for {claim.id}: {claim.needed.en}.",
            f"{claim.id} 항목을 위해 시스템을 계속 관측하십시오. {claim.needed.ko}.",
        )
        return Recommendation(points, Term.LONG, text, claim=claim.id)
    if claim.needed:
        soon = (claim.n_needed or 0) <= SOON_SAMPLES
        text = Text(
            f"Run {claim.id} longer: {claim.needed.en}.",
            f"{claim.id} 항목을 더 길게 실행하십시오. {claim.needed.ko}.",
        )
        return Recommendation(points, Term.SHORT if soon else Term.MIDDLE, text, claim=claim.id)
    if claim.verdict == Verdict.INCONCLUSIVE:
        text = Text(
            f"Improve {claim.id} itself; more samples alone will not settle it. {why.en}",
            f"{claim.id} 항목은 표본을 늘려도 판정되지 않으므로 시스템 개선이 필요합니다. {why.ko}",
        )
        return Recommendation(points, Term.MIDDLE, text, claim=claim.id)
    text = Text(f"Get {claim.id} measured. {why.en}", f"{claim.id} 항목이 측정되도록 조치하십시오. {why.ko}")
    return Recommendation(points, Term.SHORT, text, claim=claim.id)


def _part(name: str, blocked: Sequence[ClaimResult], points: float) -> Recommendation:
    ids, title = ", ".join(claim.id for claim in blocked), part_title(name)
    text = Text(
        f"Provide a real {title} and run again, so that {ids} can be judged (`readiness doctor` says how).",
        f"실제 {title} 환경을 준비하여 다시 실행하면 {ids} 항목을 판정할 수 있습니다(`readiness doctor` 참고).",
    )
    return Recommendation(math.floor(points * 10 + 1e-6) / 10, Term.SHORT, text, part=name)


def _real_part(part: Part) -> Recommendation:
    title = part_title(part.name)
    text = Text(
        f"Repeat the run against the real {title} once before a release; {part.provider} only stood in.",
        f"출시 전에 한 번은 실제 {title} 환경에서 다시 실행하십시오. 이번에는 {part.provider} 환경이었습니다.",
    )
    return Recommendation(0.0, Term.MIDDLE, text, part=part.name)
