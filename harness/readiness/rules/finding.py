"""What an analysis of rules or dashboards says: a value, one line for the person who can act."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One defect. `line` counts from 1; `id` is `<family>/<check>` and never changes its meaning."""

    file: Path
    line: int
    id: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} {self.remedy} [{self.id}]"
