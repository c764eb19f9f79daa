"""What the checks can notice: killed and missed sabotages, and what that leaves of a proven claim's points.

A check is worth what it catches. A proven claim earns weight x killed / mapped; one that no sabotage was mapped to, or
whose check files changed since, earns weight x `unmapped`. The facts come from reports/detection.json, which
`readiness sabotage` writes; reading it is readiness/power_file.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from readiness.judge.bounds import rate_lower, rate_upper


class Noticed(StrEnum):
    """What became of one sabotage. NOT_JUDGED: its claim does not hold on a clean tree either."""

    KILLED = "killed"
    WRONG_CHECK = "wrong_check"
    MISSED = "missed"
    CRASHED = "crashed"
    NOT_JUDGED = "not_judged"


class CapState(StrEnum):
    """Why a claim has the share that it has."""

    MEASURED = "measured"
    UNMAPPED = "unmapped"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class DetectionRule:
    """The profile's word on detection: which file has the facts, and what a claim without them is worth (0 to 1)."""

    file: str
    unmapped: float


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One planted defect, the claim that had to notice it, and what became of it."""

    id: str
    title: str
    expected: str
    outcome: Noticed
    noticed_by: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DetectionFacts:
    """reports/detection.json as a run found it, kept in context.json.

    `changed` names the claims that were tried with other check files than this run had.
    """

    commit: str
    measured_at: str
    sabotages: tuple[Sabotage, ...]
    clean_runs: int = 0
    false_alarms: int = 0
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimDetection:
    """What the checks of one claim caught; `share` (0 to 1) is what its points are multiplied with when proven."""

    state: CapState
    killed: int
    mapped: int
    share: float


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """The detection power of all checks: `power_bound` is the lower 95 % bound of the share that is killed.

    `false_alarm_bound` is the upper 95 % bound of the share of clean runs with a false alarm. Both are None without
    anything to bound. `measured_at` is empty when there is no file.
    """

    file: str
    commit: str
    measured_at: str
    judged: int
    killed: int
    wrong_check: int
    missed: int
    crashed: int
    not_judged: int
    power_bound: float | None
    clean_runs: int
    false_alarms: int
    false_alarm_bound: float | None
    sabotages: tuple[Sabotage, ...]
    changed: tuple[str, ...]


def judge_detection(rule: DetectionRule, facts: DetectionFacts | None) -> DetectionResult:
    """Return the totals over all sabotages; of no file: nothing measured."""
    known = facts or DetectionFacts("", "", ())
    outcomes = Counter(sabotage.outcome for sabotage in known.sabotages)
    judged = len(known.sabotages) - outcomes[Noticed.NOT_JUDGED]
    return DetectionResult(
        file=rule.file,
        commit=known.commit,
        measured_at=known.measured_at,
        judged=judged,
        killed=outcomes[Noticed.KILLED],
        wrong_check=outcomes[Noticed.WRONG_CHECK],
        missed=outcomes[Noticed.MISSED],
        crashed=outcomes[Noticed.CRASHED],
        not_judged=outcomes[Noticed.NOT_JUDGED],
        power_bound=rate_lower(outcomes[Noticed.KILLED], judged) if judged else None,
        clean_runs=known.clean_runs,
        false_alarms=known.false_alarms,
        false_alarm_bound=rate_upper(known.false_alarms, known.clean_runs) if known.clean_runs else None,
        sabotages=known.sabotages,
        changed=known.changed,
    )


def claim_detection(claim: str, rule: DetectionRule, facts: DetectionFacts | None) -> ClaimDetection:
    """Return what a claim's checks caught, and the share of its points that this leaves."""
    sabotages: Sequence[Sabotage] = facts.sabotages if facts else ()
    mapped = [one for one in sabotages if one.expected == claim and one.outcome != Noticed.NOT_JUDGED]
    killed = sum(one.outcome == Noticed.KILLED for one in mapped)
    if not mapped:
        return ClaimDetection(CapState.UNMAPPED, 0, 0, rule.unmapped)
    if facts and claim in facts.changed:
        return ClaimDetection(CapState.CHANGED, killed, len(mapped), rule.unmapped)
    return ClaimDetection(CapState.MEASURED, killed, len(mapped), killed / len(mapped))


def earned_share(found: ClaimDetection | None) -> Fraction:
    """Return the exact share of its points that a proven claim earns; all of them where nothing caps it."""
    if found is None:
        return Fraction(1)
    if found.state == CapState.MEASURED:
        return Fraction(found.killed, found.mapped)
    # 0.5 of the profile is a half, whatever floats make of other decimals.
    return Fraction(str(found.share))
