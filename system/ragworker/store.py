"""Keep committed documents in SQL: the only module that talks to the database. Synchronous; call it in threads.

The effect of a job is one transaction, keyed by job id and guarded by the job's fence:

    a newer delivery raised the fence     -> STALE, nothing is written
    the document is there already         -> ALREADY, nothing is written: an earlier delivery did it
    else                                  -> document, chunks, vectors and one `commit_log` row, all or none

A worker that dies before COMMIT leaves nothing; one that dies after it, before it could tell Redis, leaves a
job that is delivered again and answered ALREADY. `commit_log` has no unique constraint on purpose: it is what
an outside observer counts, and a repeated effect would show there instead of being hidden by an error.

SQLite runs in WAL mode with synchronous=FULL (a commit survives power loss) and takes its write lock at BEGIN:
a transaction that reads first and writes later would fail with SQLITE_BUSY instead of waiting its turn.
PostgreSQL takes a row lock on the job's fence. Source: https://www.sqlite.org/isolation.html
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url

#: How long a writer waits for SQLite's lock; the longest transaction here is a large document's insert.
BUSY_MS: Final = 10_000

#: Rows per INSERT: memory stays bounded by the batch, not by the document (spec B5).
ROWS_PER_INSERT: Final = 256

#: Any number, the same in all processes: they make the schema one after the other.
SCHEMA_LOCK: Final = 7_210_913

#: Switching a new SQLite file to WAL ignores the busy timeout, so processes that start together try again.
WAL_TRIES: Final = 200
WAL_PAUSE_SECONDS: Final = 0.02

metadata = sql.MetaData()

documents = sql.Table(
    "documents",
    metadata,
    sql.Column("job_id", sql.String(64), primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("media_type", sql.Text, nullable=False),
    sql.Column("sha256", sql.String(64), nullable=False),
    sql.Column("bytes", sql.BigInteger, nullable=False),
    sql.Column("words", sql.BigInteger, nullable=False),
    sql.Column("chunk_count", sql.Integer, nullable=False),
    sql.Column("token_count", sql.BigInteger, nullable=False),
    sql.Column("user_id", sql.Text, nullable=False),
    sql.Column("fence", sql.BigInteger, nullable=False),
    sql.Column("worker", sql.String(64), nullable=False),
    sql.Column("committed_at_ms", sql.BigInteger, nullable=False),
)
chunks_table = sql.Table(
    "chunks",
    metadata,
    sql.Column("job_id", sql.String(64), primary_key=True),
    sql.Column("ordinal", sql.Integer, primary_key=True),
    sql.Column("text", sql.Text, nullable=False),
    sql.Column("token_count", sql.Integer, nullable=False),
)
vectors = sql.Table(
    "vectors",
    metadata,
    sql.Column("job_id", sql.String(64), primary_key=True),
    sql.Column("ordinal", sql.Integer, primary_key=True),
    sql.Column("dimensions", sql.Integer, nullable=False),
    sql.Column("embedding", sql.LargeBinary, nullable=False),
)
job_fences = sql.Table(
    "job_fences",
    metadata,
    sql.Column("job_id", sql.String(64), primary_key=True),
    sql.Column("fence", sql.BigInteger, nullable=False),
)
commit_log = sql.Table(
    "commit_log",
    metadata,
    # SQLite gives row ids by itself to INTEGER keys only.
    sql.Column(
        "id", sql.BigInteger().with_variant(sql.Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    sql.Column("job_id", sql.String(64), nullable=False, index=True),
    sql.Column("fence", sql.BigInteger, nullable=False),
    sql.Column("worker", sql.String(64), nullable=False),
    sql.Column("at_ms", sql.BigInteger, nullable=False),
)


class CommitResult(StrEnum):
    """What became of a commit."""

    COMMITTED = "committed"
    ALREADY = "already"  # an earlier delivery did it; the job is done
    STALE = "stale"  # a newer delivery exists; nothing was written


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """One row of `documents`, without the time, which the store adds."""

    job_id: str
    name: str
    media_type: str
    sha256: str
    bytes: int
    words: int
    chunk_count: int
    token_count: int
    user_id: str
    fence: int
    worker: str


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """One chunk with its vector: little-endian float32, `dimensions` of them."""

    ordinal: int
    text: str
    tokens: int
    dimensions: int
    embedding: bytes


class Store:
    """The database. Raises sqlalchemy.exc.SQLAlchemyError when it cannot do what is asked."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        parsed = make_url(url)
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        if self._is_sqlite and parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        # Parameters are document text: they must not get into an exception's message.
        options: dict[str, Any] = {"pool_pre_ping": not self._is_sqlite, "hide_parameters": True}
        if not (self._is_sqlite and parsed.database in (None, "", ":memory:")):
            options |= {"pool_size": pool_size, "max_overflow": pool_size, "pool_timeout": BUSY_MS / 1000}
        self._engine = sql.create_engine(parsed, **options)
        if self._is_sqlite:
            _prepare_sqlite(self._engine)

    def create_schema(self) -> None:
        """Make missing tables; safe when several processes do it at once: they take turns."""
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            metadata.create_all(connection)

    def ping(self) -> None:
        """Return when the database answers."""
        with self._engine.connect() as connection:
            connection.execute(sql.select(1))

    def raise_fences(self, fences: Iterable[tuple[str, int]]) -> dict[str, DocumentRow]:
        """Make (job id, fence) the newest known deliveries, never lower one; what is committed already, by job id.

        Both in one transaction: a former owner's commit is in the answer, or it is refused from now on.
        """
        rows = [{"job_id": job_id, "fence": fence} for job_id, fence in sorted(fences)]
        if not rows:
            return {}
        with self._writing() as connection:
            connection.execute(_raise_fence(connection), rows)
            found = {str(row["job_id"]): _document(connection, str(row["job_id"])) for row in rows}
        return {job_id: document for job_id, document in found.items() if document is not None}

    def next_fence(self, job_id: str) -> int:
        """Raise the job's fence by one and return it: for deliveries that no queue numbers."""
        with self._writing() as connection:
            fence = (_locked_fence(connection, job_id) or 0) + 1
            connection.execute(_raise_fence(connection), [{"job_id": job_id, "fence": fence}])
        return fence

    def committed(self, job_id: str) -> DocumentRow | None:
        """The job's document, if its effect is committed."""
        with self._engine.connect() as connection:
            return _document(connection, job_id)

    def commit(self, document: DocumentRow, chunks: Iterable[ChunkRow]) -> CommitResult:
        """Write a job's whole effect, or nothing, in one transaction. `chunks` is read once, piece by piece."""
        with self._writing() as connection:
            known = _locked_fence(connection, document.job_id)
            if _document(connection, document.job_id) is not None:
                return CommitResult.ALREADY
            if known is not None and known > document.fence:
                return CommitResult.STALE
            at_ms = time.time_ns() // 1_000_000
            connection.execute(sql.insert(documents), {**asdict(document), "committed_at_ms": at_ms})
            rows = iter(chunks)
            while piece := list(islice(rows, ROWS_PER_INSERT)):
                _insert_chunks(connection, document.job_id, piece)
            effect = {"job_id": document.job_id, "fence": document.fence, "worker": document.worker}
            connection.execute(sql.insert(commit_log), {**effect, "at_ms": at_ms})
        return CommitResult.COMMITTED

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        # See _prepare_sqlite: on SQLite this transaction takes the write lock when it begins.
        engine = self._engine.execution_options(write_lock=True) if self._is_sqlite else self._engine
        with engine.begin() as connection:
            yield connection


def _locked_fence(connection: Connection, job_id: str) -> int | None:
    # On SQLite the lock is held already, and FOR UPDATE is not written out.
    query = sql.select(job_fences.c.fence).where(job_fences.c.job_id == job_id).with_for_update()
    fence: int | None = connection.execute(query).scalar_one_or_none()
    return fence


def _document(connection: Connection, job_id: str) -> DocumentRow | None:
    row = connection.execute(sql.select(documents).where(documents.c.job_id == job_id)).mappings().first()
    if row is None:
        return None
    return DocumentRow(**{name: row[name] for name in DocumentRow.__slots__})


def _raise_fence(connection: Connection) -> Any:
    insert: Any = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(job_fences)
    newer = job_fences.c.fence < insert.excluded.fence
    return insert.on_conflict_do_update(
        index_elements=["job_id"], set_={"fence": insert.excluded.fence}, where=newer
    )


def _insert_chunks(connection: Connection, job_id: str, rows: Iterable[ChunkRow]) -> None:
    texts, embedded = [], []
    for row in rows:
        place = {"job_id": job_id, "ordinal": row.ordinal}
        texts.append({**place, "text": row.text, "token_count": row.tokens})
        embedded.append({**place, "dimensions": row.dimensions, "embedding": row.embedding})
    connection.execute(sql.insert(chunks_table), texts)
    connection.execute(sql.insert(vectors), embedded)


def _prepare_sqlite(engine: Engine) -> None:
    @sql.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: the event below does, in the right mode.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        for tries_left in reversed(range(WAL_TRIES)):
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                break
            except engine.dialect.loaded_dbapi.OperationalError:
                if not tries_left:
                    raise
                time.sleep(WAL_PAUSE_SECONDS)
        connection.execute("PRAGMA synchronous=FULL")

    @sql.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("write_lock")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
