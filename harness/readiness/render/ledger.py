"""The fault ledger as the faces of the report show it: one row a fault, and the sum over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from readiness.judge.ledger import FaultLine
from readiness.judge.model import Scorecard, Text, Verdict
from readiness.render import figures
from readiness.render.escape import one_line
from readiness.render.words import phrase

WORDS_MAX: Final = 240
"""Characters of proof or reason in a row; the evidence has all of it."""

SHOWN: Final = ("survived", "failed")
"""Outcomes of faults that were proven active."""

_VERDICTS: Final = {
    "survived": Verdict.PROVEN,
    "failed": Verdict.FAILED,
    "not_run": Verdict.NOT_RUN,
    "unproven": Verdict.INVALID,
    "error": Verdict.INVALID,
}


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One fault. `words` say how it was proven active, or why it shows nothing; figures are empty where none are."""

    name: str
    title: Text
    verdict: Verdict
    outcome: str  # key of a phrase
    words: str
    jobs: str
    lost: str
    repeated: str
    recovered: Text


def ledger_rows(card: Scorecard) -> list[LedgerRow]:
    """Every fault of the run: those that failed or could not be played first, then in the order of the catalogue."""
    order = ("failed", "error", "unproven", "survived", "not_run")
    return [_row(line) for line in sorted(card.ledger, key=lambda one: order.index(one.outcome))]


def ledger_sum(card: Scorecard) -> Text:
    """The figures of all faults in one sentence."""
    lines = card.ledger
    shown = [line for line in lines if line.outcome in SHOWN]
    return phrase(
        "ledger.sum",
        planned=len(lines),
        active=len(shown),
        survived=sum(line.outcome == "survived" for line in lines),
        not_run=len(lines) - len(shown),
        jobs=f"{sum(line.jobs for line in shown):,}",
        lost=sum(line.lost for line in shown),
        repeated=sum(line.repeated for line in shown),
    )


def _row(line: FaultLine) -> LedgerRow:
    shown = line.outcome in SHOWN
    words = line.proof if line.outcome == "survived" else line.reason
    return LedgerRow(
        name=line.name,
        title=Text(one_line(line.title_en), one_line(line.title_ko)),
        verdict=_VERDICTS[line.outcome],
        outcome=f"ledger.{line.outcome}",
        words=one_line(words)[:WORDS_MAX],
        jobs=f"{line.jobs:,}" if shown else "",
        lost=str(line.lost) if shown else "",
        repeated=str(line.repeated) if shown else "",
        recovered=_recovered(line) if shown else Text("", ""),
    )


def _recovered(line: FaultLine) -> Text:
    at_most = phrase("ledger.at_most", limit=f"{line.limit_seconds:g}")
    took = phrase("ledger.never")
    if line.recovery_seconds is not None:
        took = Text(*[figures.seconds(line.recovery_seconds)] * 2)
    return Text(f"{took.en} ({at_most.en})", f"{took.ko} ({at_most.ko})")
