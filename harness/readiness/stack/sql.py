"""SQL: one SQLite file a lane, in the run folder, or one database a lane in a PostgreSQL in a container.

The schema is the target's.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from readiness.errors import BadInput
from readiness.judge.model import Part, PartState, Text
from readiness.stack.docker import require_image

if TYPE_CHECKING:
    from readiness.stack.postgres import PostgresServer

PROVIDERS = ("sqlite", "docker")

POSTGRESQL = "postgresql+psycopg://"

_FLAG = "--sql docker"


def require_sql(wanted: str) -> None:
    """Raise BadInput when `wanted` cannot be had. Starts nothing."""
    if wanted not in PROVIDERS:
        raise BadInput(f"--sql: expected {' or '.join(PROVIDERS)}, got: {wanted!r}")
    if wanted == "docker":
        require_image("postgres", flag=_FLAG)


def new_postgres(run_dir: Path) -> PostgresServer:
    """A PostgreSQL in a container that is yet to be started. BadInput when it cannot be had."""
    image = require_image("postgres", flag=_FLAG)
    from readiness.stack.postgres import PostgresServer  # noqa: PLC0415 - needs the extra `docker`

    return PostgresServer(run_dir, image=image)


def database_url(run_dir: Path, name: str) -> str:
    """SQLAlchemy URL of the database file `data/<name>.db`."""
    folder = run_dir / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / f'{name}.db'}"


def lane_database_url(run_dir: Path, stack_url: str, lane: str) -> str:
    """SQLAlchemy URL of a lane's own database beside that of the stack; in PostgreSQL it is made where it is not."""
    if not stack_url.startswith(POSTGRESQL):
        return database_url(run_dir, lane)
    from readiness.stack.postgres import make_database  # noqa: PLC0415 - only with PostgreSQL

    return make_database(stack_url, re.sub(r"\W", "_", lane))


def sql_part(postgres: PostgresServer | None = None) -> Part:
    """The part as the report shows it."""
    if postgres is not None:
        return Part("sql", PartState.REAL, "docker", postgres.version, postgres.note)
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
