"""Fold the phases of one test (setup, call, teardown) into the outcome that its claims are given.

Pure: takes pytest's reports, returns values. Writing them down is the plugin's work, judging them the
judge's. A test that passed without having measured anything is an error, not a pass; so is a crash of the
process that ran it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pytest

CLAIMS_PROPERTY = "readiness_claims"  # name of the user property that carries a test's claims across xdist
ERROR_ATTRIBUTE = "readiness_error"  # set on a failed report when the harness, not the target, is at fault
CUT_SHORT = "the session ended before the test did"
REASON_LINES = 3  # an assertion's first lines say what was expected; the rest is pytest's introspection
REASON_CHARACTERS = 600


class Outcome(StrEnum):
    """What became of one test, in the words of the evidence record."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    ERROR = "error"


# The worst phase decides; a failed assertion outranks the teardown error that often follows it.
RANK = (Outcome.PASSED, Outcome.XFAILED, Outcome.SKIPPED, Outcome.ERROR, Outcome.FAILED)


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """The outcome of one test for all of its claims. ``check`` is the node id without the group of xdist."""

    check: str
    claims: tuple[str, ...]
    outcome: Outcome
    reason: str
    duration_seconds: float


def reason_of(report: pytest.TestReport) -> str:
    """The first lines of what went wrong, or the words of a skip; empty for a plain pass."""
    if report.passed and not hasattr(report, "wasxfail"):
        return ""
    if hasattr(report, "wasxfail"):
        passed = "passed although expected to fail" if report.passed else "failed as expected"
        return _short(f"{passed}: {report.wasxfail}")
    long = report.longrepr
    if isinstance(long, tuple):
        return _short(str(long[2]).removeprefix("Skipped: "))
    crash = getattr(long, "reprcrash", None)
    words = str(crash.message) if crash is not None else str(long or "")
    return _short(words.removeprefix("AssertionError: "))


def _short(words: str) -> str:
    lines = [line.rstrip() for line in words.strip().splitlines() if line.strip()]
    return "\n".join(lines[:REASON_LINES])[:REASON_CHARACTERS]


def outcome_of(report: pytest.TestReport) -> Outcome:
    """The outcome that one phase alone would give."""
    if hasattr(report, "wasxfail"):
        return Outcome.XFAILED
    if report.passed:
        return Outcome.PASSED
    if report.skipped:
        return Outcome.SKIPPED
    if report.when != "call" or getattr(report, ERROR_ATTRIBUTE, False):
        return Outcome.ERROR
    return Outcome.FAILED


def claims_of(report: pytest.TestReport) -> tuple[str, ...]:
    """The claims that the report's test was marked with, as they travelled in its user properties."""
    for name, value in report.user_properties:
        if name == CLAIMS_PROPERTY:
            return tuple(str(claim) for claim in _as_sequence(value))
    return ()


def _as_sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


@dataclass(slots=True)
class _Open:
    claims: tuple[str, ...] = ()
    outcome: Outcome = Outcome.PASSED
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0


class OutcomeBook:
    """Collects the reports of a session and gives back each test's outcome once its last phase is in."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def add(self, report: pytest.TestReport) -> CheckOutcome | None:
        """Take one phase; answer the test's outcome when this was its last (teardown, or a crashed
        process).
        """
        entry = self._open.setdefault(report.nodeid, _Open())
        entry.claims = claims_of(report) or entry.claims
        entry.seconds += report.duration or 0.0
        phase = outcome_of(report)
        if RANK.index(phase) > RANK.index(entry.outcome):
            entry.outcome = phase
        if reason := reason_of(report):
            entry.reasons.append(reason)
        return None if report.when in ("setup", "call") else self._close(report.nodeid)

    def rest(self) -> list[CheckOutcome]:
        """Tests whose last phase never came, as when the session is interrupted: each is an error."""
        for entry in self._open.values():
            entry.outcome = max(entry.outcome, Outcome.ERROR, key=RANK.index)
            entry.reasons.append(CUT_SHORT)
        return [self._close(nodeid) for nodeid in list(self._open)]

    def _close(self, nodeid: str) -> CheckOutcome:
        entry = self._open.pop(nodeid)
        return CheckOutcome(
            check=nodeid.rpartition("@")[0] or nodeid,
            claims=entry.claims,
            outcome=entry.outcome,
            reason=_short("\n".join(entry.reasons)),
            duration_seconds=round(entry.seconds, 3),
        )
