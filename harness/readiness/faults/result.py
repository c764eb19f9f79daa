"""What came of one played scenario: the line of the fault ledger, as a value and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from readiness.errors import HarnessFailure

OUTCOMES = ("survived", "failed", "not_run", "unproven", "error")
"""survived: proven active, all promises held, healed. failed: a promise was broken. not_run: this machine cannot.
unproven: the fault or its end could not be proven. error: the harness could not play it. The last three show nothing.
"""

RESULT_FILE = "result.json"


@dataclass(frozen=True, slots=True)
class Played:
    """One scenario, played. Times are ms since the epoch; None where it did not come to that."""

    name: str
    title_en: str
    title_ko: str
    row: int
    seed: int
    outcome: str
    reason: str = ""
    acts: tuple[Mapping[str, Any], ...] = ()
    active: tuple[str, ...] = ()
    healed: tuple[str, ...] = ()
    submitted: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    redelivered: int = 0
    lost: int = 0
    declared_lost: int = 0
    repeated: int = 0
    lost_jobs: tuple[str, ...] = ()
    repeated_jobs: tuple[str, ...] = ()
    recovery_seconds: float | None = None
    recovery_limit_seconds: float = 0.0
    recovery_from: str = "heal"
    injected_ms: int | None = None
    healed_ms: int | None = None
    recovered_ms: int | None = None
    seconds: float = 0.0
    violations: tuple[str, ...] = ()
    unjudged: Mapping[str, str] = field(default_factory=dict)
    shrunk_to: tuple[str, ...] = ()
    history: str = ""

    @property
    def verdict(self) -> str:
        """One line with figures."""
        if self.outcome in ("not_run", "unproven", "error"):
            return f"{self.name}: {self.outcome.replace('_', ' ')}: {self.reason}"
        took = "never" if self.recovery_seconds is None else f"{self.recovery_seconds:.1f} s"
        figures = (
            f"{self.acknowledged} jobs acknowledged of {self.submitted} submitted, {self.lost} lost,"
            f" {self.repeated} repeated, recovered in {took} (at most {self.recovery_limit_seconds:g} s)"
        )
        tail = f"; {len(self.violations)} violations, first: {self.violations[0]}" if self.violations else ""
        return f"{self.name}: {self.outcome}: {figures}{tail}"

    def write(self, folder: Path) -> None:
        """Keep it as result.json, in one step."""
        draft = folder / f".{RESULT_FILE}"
        draft.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(folder / RESULT_FILE)

    @classmethod
    def read(cls, folder: Path) -> Played:
        """The inverse of `write`. HarnessFailure when there is none."""
        try:
            raw = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
            known = {one.name for one in fields(cls)}
            plain: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
            }
            return cls(**{name: value for name, value in plain.items() if name in known})
        except (OSError, ValueError, TypeError) as error:
            raise HarnessFailure(
                f"{folder / RESULT_FILE}: expected the result of a fault, got: {error}"
            ) from None
