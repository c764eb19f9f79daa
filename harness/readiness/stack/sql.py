"""SQL: one SQLite file a lane, in the run folder. Nothing to start; the schema is the target's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from readiness.judge.model import Part, PartState, Text


def database_url(run_dir: Path, name: str) -> str:
    """SQLAlchemy URL of the database file `data/<name>.db`."""
    folder = run_dir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / f'{name}.db'}"


def sql_part() -> Part:
    """The part as the report shows it."""
    return Part(
        name="sql",
        state=PartState.REAL,
        provider="sqlite",
        version=sqlite3.sqlite_version,
        note=Text(
            en="SQLite, one file a lane",
            ko="SQLite이며 레인마다 파일이 하나입니다.",
        ),
    )
