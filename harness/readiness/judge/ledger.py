"""The fault ledger of a run, as the fault step wrote it: what was planned, proven active, healed, and how it recovered.

Shown, not judged: the claims of the fault step have records of their own. What does not fit a line is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from readiness.evidence.records import ClaimFile

LEDGER = "fault_ledger"
"""Key of the `facts` record that holds the lines; written by `faults/step.py`."""

OUTCOMES = ("survived", "failed", "not_run", "unproven", "error")


@dataclass(frozen=True, slots=True)
class FaultLine:
    """One fault of the run. `proof` is empty when it was not proven active; without recovery its time is None."""

    name: str
    title_en: str
    title_ko: str
    row: int
    outcome: str
    reason: str
    proof: str
    healed: str
    jobs: int
    lost: int
    repeated: int
    recovery_seconds: float | None
    limit_seconds: float
    seed: int


def read_ledger(evidence: Mapping[str, ClaimFile]) -> tuple[FaultLine, ...]:
    """The lines of the last ledger that the evidence holds; none when no fault step ran."""
    found: list[object] = []
    for file in evidence.values():
        for record in file.records:
            lines = record.data.get(LEDGER) if record.kind == "facts" else None
            if isinstance(lines, list):
                found = lines
    return tuple(line for line in map(_line, found) if line is not None)


def _line(raw: object) -> FaultLine | None:
    if not isinstance(raw, Mapping) or raw.get("outcome") not in OUTCOMES:
        return None
    took = raw.get("recovery_seconds")
    return FaultLine(
        name=str(raw.get("name", "")),
        title_en=str(raw.get("title_en", "")),
        title_ko=str(raw.get("title_ko", "")),
        row=_whole(raw.get("row")),
        outcome=str(raw["outcome"]),
        reason=str(raw.get("reason", "")),
        proof="; ".join(_words(raw.get("active"))),
        healed="; ".join(_words(raw.get("healed"))),
        jobs=_whole(raw.get("acknowledged")),
        lost=_whole(raw.get("lost")),
        repeated=_whole(raw.get("repeated")),
        recovery_seconds=None if took is None else _number(took),
        limit_seconds=_number(raw.get("recovery_limit_seconds")),
        seed=_whole(raw.get("seed")),
    )


def _words(raw: object) -> list[str]:
    return [str(word) for word in raw] if isinstance(raw, list) else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
