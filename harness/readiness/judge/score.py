"""Points, bands, gates and the exit status: from claim results to the figures at the top of the report.

Whole-number arithmetic throughout, always floored in the disfavour of the system: only PROVEN earns points, an
unknown is no pass, and 100 is reached only when every claim is proven. What a proven claim's checks have not been seen
to catch (judge/detection.py) earns nothing and counts as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from readiness.judge.detection import earned_share
from readiness.judge.model import (
    Band,
    ClaimResult,
    GateResult,
    GateState,
    Group,
    Score,
    SectionResult,
    Status,
    Step,
    Verdict,
)
from readiness.judge.profile_model import Gate, Profile, Section
from readiness.judge.verdicts import WAIVED

# No section may lag more than this behind the overall score: dashboards do not make up for durability.
LARGEST_LEAD = 20
LETTERS = (
    (97, "A+"),
    (93, "A"),
    (90, "A-"),
    (87, "B+"),
    (83, "B"),
    (80, "B-"),
    (77, "C+"),
    (73, "C"),
    (70, "C-"),
    (60, "D"),
    (0, "F"),
)
PROVEN, FAILED, OPEN, BROKEN = 0, 1, 2, 3


def judge_sections(profile: Profile, claims: Sequence[ClaimResult]) -> tuple[SectionResult, ...]:
    """Return each section of the profile with its score and band."""
    return tuple(
        _section(section, [c for c in claims if c.section == section.id]) for section in profile.sections
    )


def judge_gates(profile: Profile, claims: Sequence[ClaimResult]) -> tuple[GateResult, ...]:
    """Return each gate: FAILED by one failed claim, HELD only by all proven."""
    by_id = {claim.id: claim.verdict for claim in claims}
    return tuple(
        GateResult(gate.id, gate.title, _gate_state(gate, by_id), gate.claims) for gate in profile.gates
    )


def judge_score(
    sections: Sequence[SectionResult], gates: Sequence[GateResult], claims: Sequence[ClaimResult]
) -> Score:
    """Return min(floor(weighted mean), worst section + 20), the two group scores, the letter and the band."""
    mean = _mean(sections)
    overall = min(mean, min((section.score for section in sections), default=0) + LARGEST_LEAD)
    return Score(
        overall=overall,
        letter=letter(overall),
        reliability=_mean(section for section in sections if section.group == Group.RELIABILITY),
        observability=_mean(section for section in sections if section.group == Group.OBSERVABILITY),
        struck=any(gate.state == GateState.FAILED for gate in gates),
        band=_overall_band(sections, claims),
    )


def judge_status(claims: Sequence[ClaimResult], gates: Sequence[GateResult], steps: Sequence[Step]) -> int:
    """Return the exit status: 1 a failure, 3 the harness broke or disturbed a measurement, 2 open claims, 0 proven."""
    verdicts = [claim.verdict for claim in claims]
    if Verdict.FAILED in verdicts or any(gate.state == GateState.FAILED for gate in gates):
        return FAILED
    if Verdict.INVALID in verdicts or any(step.status == Status.FAILED for step in steps):
        return BROKEN
    settled = all(verdict in (Verdict.PROVEN, Verdict.NOT_APPLICABLE) for verdict in verdicts)
    return PROVEN if settled and Verdict.PROVEN in verdicts else OPEN


def letter(overall: int) -> str:
    """Return the grade of an overall score."""
    return next(name for least, name in LETTERS if overall >= least)


def _section(section: Section, claims: Sequence[ClaimResult]) -> SectionResult:
    band = _band(_shares(claims))
    return SectionResult(
        id=section.id,
        group=section.group,
        title=section.title,
        weight=section.weight,
        score=band.proven,
        band=band,
        claims=tuple(claim.id for claim in claims),
    )


def _shares(claims: Sequence[ClaimResult]) -> tuple[Fraction, Fraction]:
    """Return the proven and the failed share of the points.

    Only what the target's own guarantees rule out leaves the denominator: excluding a claim earns nobody a point.
    """
    counted = [claim for claim in claims if claim.verdict != Verdict.NOT_APPLICABLE or _is_waived(claim)]
    total = sum(claim.weight for claim in counted)
    if total == 0:
        return Fraction(0), Fraction(0)
    proven = sum(
        (
            claim.weight * earned_share(claim.detection)
            for claim in counted
            if claim.verdict == Verdict.PROVEN
        ),
        Fraction(0),
    )
    failed = sum(claim.weight for claim in counted if claim.verdict == Verdict.FAILED)
    return proven / total, Fraction(failed, total)


def _is_waived(claim: ClaimResult) -> bool:
    return claim.reason is not None and claim.reason.code == WAIVED


def _band(shares: tuple[Fraction, Fraction]) -> Band:
    proven = int(100 * shares[0])
    failed = -int(-100 * shares[1] // 1)
    return Band(proven, 100 - proven - failed, failed)


def _overall_band(sections: Sequence[SectionResult], claims: Sequence[ClaimResult]) -> Band:
    total = sum(section.weight for section in sections)
    if total == 0:
        return Band(0, 100, 0)
    proven = failed = Fraction(0)
    for section in sections:
        shares = _shares([claim for claim in claims if claim.section == section.id])
        proven += shares[0] * section.weight / total
        failed += shares[1] * section.weight / total
    return _band((proven, failed))


def _mean(sections: Iterable[SectionResult]) -> int:
    chosen = list(sections)
    total = sum(section.weight for section in chosen)
    return sum(section.score * section.weight for section in chosen) // total if total else 0


def _gate_state(gate: Gate, verdicts: dict[str, Verdict]) -> GateState:
    states = [verdicts.get(claim, Verdict.NOT_RUN) for claim in gate.claims]
    if Verdict.FAILED in states:
        return GateState.FAILED
    return GateState.HELD if all(state == Verdict.PROVEN for state in states) else GateState.UNKNOWN
