"""ragworker's database in a check's hands: keep commits waiting, refuse rows, see the fences.

`ragworker_rows` reads what was committed and touches nothing; this module is for checks that break something on
purpose. Everything it does ends with its block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from readiness.targets.base import Lane

#: How long a check may wait for a worker's transaction to end before its own begins.
BUSY_MS: Final = 20_000


@contextmanager
def held_commits(lane: Lane) -> Iterator[None]:
    """Let no effect be committed for the time of the block: writers wait, readers go on."""
    with _connected(lane) as connection:
        sqlite = connection.dialect.name == "sqlite"
        connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "LOCK TABLE documents IN EXCLUSIVE MODE")
        try:
            yield
        finally:
            connection.rollback()


def fences(lane: Lane) -> dict[str, int]:
    """Job -> the newest delivery that SQL knows; empty before the tables are there."""
    try:
        with _connected(lane) as connection:
            rows = connection.exec_driver_sql("SELECT job_id, fence FROM job_fences").all()
    except OperationalError:
        return {}
    return {str(job): int(fence) for job, fence in rows}


@contextmanager
def refused_rows(lane: Lane, *, rejected: str, failing: str) -> Iterator[bool]:
    """Refuse chunks that begin with `rejected` as against a constraint, and fail on those that begin with `failing`.

    False, and nothing is done, where the database is not SQLite: another one's triggers are another language.
    """
    with _connected(lane) as connection:
        if connection.dialect.name != "sqlite":
            yield False
            return
        # Two classes of errors to the driver: a constraint, and arithmetic that overflows. The second looks at the row,
        # so that SQLite does not compute it beforehand, for every row.
        overflow = "abs(-9223372036854775807 - length(NEW.text) / length(NEW.text))"
        triggers = {
            "readiness_rejects": (rejected, "RAISE(ABORT, 'refused by a check')"),
            "readiness_fails": (failing, overflow),
        }
        try:
            for name, (text, action) in triggers.items():
                when = f"WHEN NEW.text LIKE '{text}%' BEGIN SELECT {action}; END"
                connection.exec_driver_sql(f"CREATE TRIGGER {name} BEFORE INSERT ON chunks {when}")
            yield True
        finally:
            for name in triggers:
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")


@contextmanager
def _connected(lane: Lane) -> Iterator[Connection]:
    url = make_url(lane.database_url)
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool)
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _patient)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _patient(connection: Any, _: object) -> None:
    """Begin transactions only where the code says so, and wait for those of others."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
