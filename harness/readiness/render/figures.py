"""How numbers are written on every face: digits, thousands, durations, bytes, lead and rest of a figure.

The judge words what a claim measured (`ClaimResult.measured`: value, unit, bound and n together); this module
cuts it into lead and rest and writes the numbers that belong to no claim. Values are never shown with more
digits than they carry; points are rounded down.
"""

from __future__ import annotations

import math
from typing import Final

from readiness.judge.figures import SECONDS, count, plain
from readiness.judge.model import ClaimResult, Text
from readiness.render.words import phrase

_BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_SECONDS_PER_MINUTE: Final = 60
_SECONDS_PER_HOUR: Final = 3600


def split_measured(measured: Text) -> tuple[Text, Text | None]:
    """Cut "38.4 s (P95 ≤ 41.2 s at 95 %, n = 312)" into "38.4 s" and "P95 ≤ 41.2 s at 95 %, n = 312".

    The second is None when there is nothing in brackets in either language.
    """
    english, rest_english = _cut(measured.en)
    korean, rest_korean = _cut(measured.ko)
    if not rest_english and not rest_korean:
        return measured, None
    return Text(english, korean), Text(rest_english, rest_korean)


def _cut(words: str) -> tuple[str, str]:
    lead, opened, rest = words.partition(" (")
    if not opened or not rest.endswith(")"):
        return words, ""
    return lead, rest[:-1]


def amount(n: int, claim: ClaimResult) -> Text:
    """Write a number of samples of a claim for a table's column: bare, but seconds of observation as a span."""
    bare = Text(f"{n:,}", f"{n:,}")
    return count(n, claim.n_unit) if claim.n_unit == SECONDS else bare


def seconds(value: float) -> str:
    """Write a length of time in seconds: a tenth below ten minutes, whole seconds above."""
    return f"{value:.1f}" if value < 10 * _SECONDS_PER_MINUTE else f"{value:,.0f}"


def duration(value: float) -> Text:
    """Write a length of time for people: "64 s", "12 min 4 s", "2 h 3 min"."""
    whole = round(value)
    if whole < 2 * _SECONDS_PER_MINUTE:
        return phrase("unit.seconds", value=whole)
    if whole < 2 * _SECONDS_PER_HOUR:
        minutes, rest = divmod(whole, _SECONDS_PER_MINUTE)
        return phrase("unit.minutes", minutes=minutes, seconds=rest)
    hours, rest = divmod(whole, _SECONDS_PER_HOUR)
    return phrase("unit.hours", hours=hours, minutes=rest // _SECONDS_PER_MINUTE)


def points(value: float) -> str:
    """Write the points that a recommendation would earn, rounded down to a tenth."""
    tenths = math.floor(value * 10 + 1e-9) / 10
    return f"+{tenths:.1f}" if tenths > 0 else "–"


def size(count: int) -> str:
    """Write a number of bytes in decimal units with three significant digits."""
    value = float(count)
    for unit in _BYTE_UNITS:
        if value < 1000 or unit == _BYTE_UNITS[-1]:
            return f"{plain(value)} {unit}"
        value /= 1000
    raise AssertionError("the loop returns at the last unit")


def memory(count: int) -> str:
    """Write a machine's memory in binary gigabytes, as machines are sold."""
    return f"{plain(count / 2**30)} GiB"


def moment(iso: str) -> str:
    """Write an ISO 8601 moment to the second: "2026-11-23 16:22:33 UTC"; leave any other text as it is."""
    date, separator, clock = iso.partition("T")
    if not separator or not clock.endswith("Z"):
        return iso
    return f"{date} {clock.removesuffix('Z').partition('.')[0]} UTC"
