"""What an estimator answers, and the sentences that several of them share. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from readiness.judge.figures import count, figure
from readiness.judge.model import Reason, Text, Verdict

NOT_MEASURED = Text("not measured", "측정되지 않음")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, its bound and what they come to; `n` counts the estimator's noun (or seconds of exposure).

    `n_eff` is how many independent ones time-ordered samples are worth; None: their order is not known.
    """

    verdict: Verdict
    measured: Text
    value: float | None = None
    bound: float | None = None
    n: int = 0
    failures: int = 0
    n_needed: int | None = None
    reason: Reason | None = None
    n_eff: int | None = None


def no_data(what: Text) -> Estimate:
    """Return NOT_RUN: nothing of the kind that the estimator takes was recorded."""
    reason = Reason("no_data", {"what_en": what.en, "what_ko": what.ko})
    return Estimate(Verdict.NOT_RUN, NOT_MEASURED, reason=reason)


def too_few(n: int, needed: int, noun: Text) -> Reason:
    """Return the reason "only n of at least needed were observed"."""
    seen = count(n, noun)
    return Reason("too_few", {"n_en": seen.en, "n_ko": seen.ko, "need": needed})


def too_alike(n: int, n_eff: int, needed: int, noun: Text) -> Reason:
    """Return the reason "n were observed, but they are worth only n_eff independent ones"."""
    seen = count(n, noun)
    return Reason("too_alike", {"n_en": seen.en, "n_ko": seen.ko, "n_eff": n_eff, "need": needed})


def worth(n_eff: int | None) -> Text:
    """Return ", worth 120 independent" to go after a number of samples; empty when their order is not known."""
    if n_eff is None:
        return Text("", "")
    return Text(f", worth {n_eff:,} independent", f", 독립 표본 {n_eff:,}건 상당")


def bound_reason(verdict: Verdict, bound: str) -> Reason | None:
    """Return why a bound does not prove the target; None when it does."""
    if verdict == Verdict.PROVEN:
        return None
    return Reason("bound_violates" if verdict == Verdict.FAILED else "bound_straddles", {"bound": bound})


def bounded(bound: float, unit: str, *, upper: bool) -> str:
    """Return "≤ 2.4 %" or "≥ 96.3 %", rounded so that it never flatters."""
    return f"{'≤' if upper else '≥'} {figure(bound, unit, away=1 if upper else -1)}"


def sooner(*numbers: int | None) -> int | None:
    """Return the smallest of the numbers that are there."""
    return min((number for number in numbers if number is not None), default=None)
