"""Detection power and attempts as the faces of the report show them: sentences and rows, no markup."""

from __future__ import annotations

from dataclasses import dataclass

from readiness.judge.detection import CapState, DetectionResult, Noticed, Sabotage
from readiness.judge.figures import figure
from readiness.judge.model import ClaimResult, Scorecard, Text
from readiness.judge.pooling import Attempt
from readiness.render import figures
from readiness.render.words import phrase


@dataclass(frozen=True, slots=True)
class DetectionRow:
    """One claim that planted defects tried: how many its checks noticed, what that leaves of its points, and which."""

    claim: str
    caught: str
    share: str
    changed: bool
    defects: tuple[Sabotage, ...]


def share_of(value: float) -> str:
    """Write a share of points, rounded down."""
    return figure(value, "fraction", away=-1)


def detection_sentences(card: Scorecard) -> list[Text]:
    """Return what is known of the checks' power, in whole sentences; one when nothing is."""
    found = card.detection
    if found is None:
        return [phrase("detection.no_rule")]
    if not found.measured_at:
        return [phrase("detection.no_file", file=found.file)]
    sentences = [_sum(found), _clean(found)]
    if found.not_judged:
        sentences.append(phrase("detection.not_judged", count=found.not_judged))
    rest = [c for c in card.claims if c.detection and c.detection.state == CapState.UNMAPPED]
    if rest and rest[0].detection:
        sentences.append(phrase("detection.rest", count=len(rest), share=share_of(rest[0].detection.share)))
    when = figures.moment(found.measured_at)
    return [*sentences, phrase("detection.measured", commit=found.commit[:12], when=when)]


def detection_line(card: Scorecard) -> Text | None:
    """Return the terminal's line; None where the profile asks for none."""
    found = card.detection
    if found is None:
        return None
    if not found.judged:
        return phrase("detection.terminal.none")
    return phrase("detection.terminal", killed=found.killed, judged=found.judged, bound=_at_least(found))


def detection_rows(card: Scorecard) -> list[DetectionRow]:
    """Return the claims that were tried, those that missed most first."""
    by_claim: dict[str, list[Sabotage]] = {}
    for sabotage in card.detection.sabotages if card.detection else ():
        if sabotage.outcome != Noticed.NOT_JUDGED:
            by_claim.setdefault(sabotage.expected, []).append(sabotage)
    rows = [
        DetectionRow(
            claim=claim.id,
            caught=f"{claim.detection.killed} / {claim.detection.mapped}",
            share=share_of(claim.detection.share),
            changed=claim.detection.state == CapState.CHANGED,
            defects=tuple(by_claim.get(claim.id, ())),
        )
        for claim in card.claims
        if claim.detection and claim.detection.mapped
    ]
    return sorted(
        rows, key=lambda row: (all(one.outcome == Noticed.KILLED for one in row.defects), not row.changed)
    )


def unnoticed(card: Scorecard) -> list[Sabotage]:
    """Return the planted defects that their own check did not notice, the missed ones first."""
    order = (Noticed.MISSED, Noticed.CRASHED, Noticed.WRONG_CHECK)
    sabotages = card.detection.sabotages if card.detection else ()
    return sorted(
        (one for one in sabotages if one.outcome in order), key=lambda one: order.index(one.outcome)
    )


def claim_detection_words(claim: ClaimResult) -> Text | None:
    """Return what caps the points of one claim; None where nothing does."""
    found = claim.detection
    if found is None:
        return None
    if found.state == CapState.MEASURED:
        return phrase("claim.detection.measured", killed=found.killed, mapped=found.mapped)
    return phrase(f"claim.detection.{found.state}", share=share_of(found.share))


def chance_words(claim: ClaimResult) -> Text | None:
    """Return how likely a run of this size proves the claim; None where no chance is involved."""
    if claim.chance is None:
        return None
    # Certainty is never shown for a chance.
    return phrase("claim.chance.value", chance=figure(min(claim.chance, 0.999), "fraction", away=-1))


def attempts_sentence(card: Scorecard) -> Text:
    """Return what is to be said about earlier runs of the same commit and profile."""
    if card.attempts:
        return phrase("attempts.some", count=len(card.attempts))
    return phrase("attempts.dirty" if card.run.dirty else "attempts.none")


def failed_claims(attempt: Attempt) -> list[str]:
    """Return the claims that an attempt saw fail."""
    return [claim for claim, counts in attempt.claims.items() if counts.failed]


def _sum(found: DetectionResult) -> Text:
    return phrase(
        "detection.sum",
        killed=found.killed,
        judged=found.judged,
        bound=_at_least(found),
        missed=found.missed,
        wrong=found.wrong_check,
        crashed=found.crashed,
    )


def _clean(found: DetectionResult) -> Text:
    if found.false_alarm_bound is None:
        return phrase("detection.no_clean")
    bound = f"≤ {figure(found.false_alarm_bound, 'fraction', away=1)}"
    return phrase("detection.clean", alarms=found.false_alarms, runs=found.clean_runs, bound=bound)


def _at_least(found: DetectionResult) -> str:
    return f"≥ {figure(found.power_bound or 0.0, 'fraction', away=-1)}"
