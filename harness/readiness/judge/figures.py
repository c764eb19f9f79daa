"""Figures as people read them: value, unit, bound and n, in both languages.

Rounding never flatters: a bound is rounded away from the target, three significant digits at most, because a
run's samples carry no more.
"""

from __future__ import annotations

import math

from readiness.judge.model import Text

SIGNIFICANT = 3
MINUTE, HOUR = 60, 3600
SECONDS = Text("s", "초")
CASES = Text("cases", "사례")
SAMPLES = Text("samples", "표본")

# What is counted, as the profile may name it: English plural, Korean noun (counted with 건).
NOUNS: dict[str, Text] = {
    "accesses": Text("accesses", "접근"),
    "alerts": Text("alerts", "알림"),
    "cancellations": Text("cancellations", "취소"),
    "cases": CASES,
    "connections": Text("connections", "연결"),
    "documents": Text("documents", "문서"),
    "files": Text("files", "파일"),
    "jobs": Text("jobs", "작업"),
    "lines": Text("log lines", "로그 줄"),
    "recoveries": Text("recoveries", "복구"),
    "requests": Text("requests", "요청"),
    "samples": SAMPLES,
    "streams": Text("streams", "스트림"),
    "windows": Text("windows", "구간"),
}


def count(n: int, noun: Text) -> Text:
    """Return "312 jobs" / "작업 312건"; "1 job"; seconds as the span they are."""
    if noun == SECONDS:
        return span(n)
    word = noun.en
    if n == 1:
        word = _singular(word)
    return Text(f"{n:,} {word}", f"{noun.ko} {n:,}건")


def span(seconds: float, *, away: int = 0) -> Text:
    """Return a span of time in the unit that reads best: "24 s", "10.5 min", "71.9 h"."""
    if seconds < 2 * MINUTE:
        shown = plain(seconds, away=away)
        return Text(f"{shown} s", f"{shown}초")
    if seconds < 2 * HOUR:
        shown = plain(seconds / MINUTE, away=away)
        return Text(f"{shown} min", f"{shown}분")
    shown = plain(seconds / HOUR, away=away)
    return Text(f"{shown} h", f"{shown}시간")


def plain(value: float, *, away: int = 0) -> str:
    """Return a number with at most three significant digits.

    `away` 1 rounds up, -1 rounds down, 0 to nearest.
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    digits = max(0, SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))
    digits = min(digits, 9)
    scale: float = 10.0**digits
    # A hair less or more, so that 0.3 * 10 does not become 4.
    scaled = value * scale
    if away > 0:
        scaled = math.ceil(scaled - 1e-9 * abs(scaled))
    elif away < 0:
        scaled = math.floor(scaled + 1e-9 * abs(scaled))
    else:
        scaled = round(scaled)
    shown = f"{scaled / scale:,.{digits}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def figure(value: float, unit: str, *, away: int = 0) -> str:
    """Return a value with its unit; "fraction" is shown as a percentage."""
    if unit == "fraction":
        return f"{plain(value * 100, away=away)} %"
    return f"{plain(value, away=away)} {unit}".strip()


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith("sses"):
        return word[:-2]
    return word.removesuffix("s")
