"""What a run of a sabotaged copy says about the checks: killed, wrong check, missed, crashed. Pure.

killed       the expected claim is FAILED, and for the expected reason
wrong check  something is noticed, but by another claim or for another reason
missed       nothing is noticed
crashed      the run left no scorecard, so a person would learn of trouble but not of which
not judged   the expected claim does not hold on the clean copy, or not again after the sabotage was taken back
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from readiness.sabotage.catalogue import SELF_TEST, Sabotage
from readiness.sabotage.trial import Seen

HARNESS_FAILED = 3
HOLDS = ("PROVEN", "INCONCLUSIVE")
LONGEST_REASON = 300


class Outcome(StrEnum):
    """What became of one sabotage; the values stand in detection.json."""

    KILLED = "killed"
    WRONG_CHECK = "wrong_check"
    MISSED = "missed"
    CRASHED = "crashed"
    NOT_JUDGED = "not_judged"


@dataclass(frozen=True, slots=True)
class Judged:
    """One sabotage with its outcome, who noticed it, and the words that say so."""

    sabotage: Sabotage
    outcome: Outcome
    noticed_by: tuple[str, ...] = ()
    reason: str = ""
    seconds: float = 0.0


def judge_trial(sabotage: Sabotage, seen: Seen) -> Judged:
    """Return what the run of the sabotaged copy shows."""
    if sabotage.of_the_harness:
        return _self_test(sabotage, seen)
    if not seen.verdicts:
        why = "no end before its deadline" if seen.status is None else f"status {seen.status}, no scorecard"
        return _judged(sabotage, Outcome.CRASHED, seen, (), f"{why}: {seen.last_lines}")
    verdict = seen.verdicts.get(sabotage.claim, "NOT_RUN")
    others = tuple(claim for claim in seen.failed if claim != sabotage.claim)
    if verdict == "FAILED":
        return _failed(sabotage, seen, others)
    if verdict not in HOLDS:
        why = f"{verdict}, not FAILED: {_first(seen.words.get(sabotage.claim, ''))}"
        return _judged(sabotage, Outcome.WRONG_CHECK, seen, (f"{sabotage.claim} ({verdict})", *others), why)
    if others:
        return _judged(sabotage, Outcome.WRONG_CHECK, seen, others, _first(seen.words.get(others[0], "")))
    return _judged(sabotage, Outcome.MISSED, seen, (), f"{sabotage.claim} is {verdict} all the same")


def judge_whole(missed: Judged, seen: Seen) -> Judged:
    """Return a missed sabotage as the whole profile sees it: another check may notice."""
    if not seen.failed:
        return missed
    words = _first(seen.words.get(seen.failed[0], ""))
    return Judged(
        missed.sabotage, Outcome.WRONG_CHECK, seen.failed, words, round(missed.seconds + seen.seconds, 1)
    )


def not_judged(sabotage: Sabotage, why: str) -> Judged:
    """Return a sabotage about which nothing can be said."""
    return Judged(sabotage, Outcome.NOT_JUDGED, (), why)


def clean_fault(claim: str, seen: Seen) -> str:
    """Why ``claim`` cannot be expected to notice anything: it does not hold on a clean copy. "" when it does."""
    if not seen.verdicts:
        why = "no end before the deadline" if seen.status is None else f"status {seen.status}"
        return f"the clean run left no scorecard ({why}): {seen.last_lines}"[:LONGEST_REASON]
    if claim == SELF_TEST:
        return ""
    verdict = seen.verdicts.get(claim, "not in the profile")
    return (
        ""
        if verdict in HOLDS
        else f"{claim} is {verdict} without any sabotage: {_first(seen.words.get(claim, ''))}"
    )


def _failed(sabotage: Sabotage, seen: Seen, others: tuple[str, ...]) -> Judged:
    words = seen.words.get(sabotage.claim, "")
    found = sabotage.reason.search(words)
    outcome = Outcome.KILLED if found else Outcome.WRONG_CHECK
    why = _around(words, found.start()) if found else f"for another reason: {_first(words)}"
    return _judged(sabotage, outcome, seen, (sabotage.claim, *others), why)


def _self_test(sabotage: Sabotage, seen: Seen) -> Judged:
    named = SELF_TEST in seen.last_lines
    if seen.status == HARNESS_FAILED and not seen.verdicts and named:
        found = sabotage.reason.search(seen.last_lines)
        if found:
            return _judged(
                sabotage, Outcome.KILLED, seen, (SELF_TEST,), _around(seen.last_lines, found.start())
            )
        return _judged(
            sabotage, Outcome.WRONG_CHECK, seen, (SELF_TEST,), f"for another reason: {seen.last_lines}"
        )
    if not seen.verdicts:
        return _judged(sabotage, Outcome.CRASHED, seen, (), seen.last_lines)
    if seen.failed:
        return _judged(
            sabotage, Outcome.WRONG_CHECK, seen, seen.failed, _first(seen.words.get(seen.failed[0], ""))
        )
    return _judged(sabotage, Outcome.MISSED, seen, (), "the run judged as if nothing were wrong")


def _judged(
    sabotage: Sabotage, outcome: Outcome, seen: Seen, noticed_by: tuple[str, ...], reason: str
) -> Judged:
    return Judged(sabotage, outcome, noticed_by, " ".join(reason.split())[:LONGEST_REASON], seen.seconds)


def _first(words: str) -> str:
    return " ".join(next((line for line in words.splitlines() if line.strip()), "no words").split())[
        :LONGEST_REASON
    ]


def _around(words: str, start: int) -> str:
    """The line of the words in which the expected reason begins."""
    begin = words.rfind("\n", 0, start) + 1
    return words[begin:].partition("\n")[0]
