"""Which claims a reader meets first, and the sentence that says why one is not proven.

Shared by every face.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from readiness.judge.model import ClaimResult, Reason, Scorecard, Text, Verdict
from readiness.judge.reasons import explain
from readiness.render.catalogue import PHRASES
from readiness.render.escape import one_line

#: Failures first, then what disturbed the measurement, then what more samples settle, then what did not run.
ISSUE_ORDER: Final = (Verdict.FAILED, Verdict.INVALID, Verdict.INCONCLUSIVE, Verdict.NOT_RUN)
_ROW: Final = re.compile(r"^([A-Za-z]*)(\d*)")


def issues_of(card: Scorecard) -> tuple[ClaimResult, ...]:
    """Return the failed and open claims, worst verdict first, claims behind a gate first, then by weight."""
    issues = [claim for claim in card.claims if claim.verdict in ISSUE_ORDER]
    return tuple(
        sorted(
            issues, key=lambda c: (ISSUE_ORDER.index(c.verdict), c.gate is None, -c.weight, row_order(c.id))
        )
    )


def sla_rows(card: Scorecard) -> tuple[ClaimResult, ...]:
    """Return the claims of the SLA table in the order of the specification's rows (H2 before H10)."""
    return tuple(
        sorted((c for c in card.claims if c.sla), key=lambda c: (row_order(c.sla or ""), row_order(c.id)))
    )


def row_order(row: str) -> tuple[str, int, str]:
    """Sort key that puts H2 before H10."""
    match = _ROW.match(row)
    letters, digits = match.groups() if match else ("", "")
    return letters, int(digits or 0), row


def sentence(reason: Reason) -> Text:
    """Return why a claim is not proven, without the verbatim words of the check; they are shown apart.

    A code that this version does not know, or one without its parameters, is shown as it is: a scorecard of
    another version can still be read.
    """
    try:
        return explain(replace(reason, detail=""))
    except (KeyError, ValueError):
        facts = ", ".join(f"{name} = {value}" for name, value in reason.params.items())
        shown = f"{reason.code} ({facts})" if facts else reason.code
        return Text(shown, shown)


def fault_name(name: str) -> Text:
    """Return a fault's name in both languages; the profile and the run name faults in English only."""
    return PHRASES.get(f"fault.{name}", Text(one_line(name), one_line(name)))
