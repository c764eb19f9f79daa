"""Keep committed documents in SQL: the only module that talks to the database. Synchronous; call it in threads.

The effect of a job is one transaction, keyed by job id and guarded by the job's fence:

    the document is there already         -> ALREADY, nothing is written: an earlier delivery did it
    a newer delivery raised the fence     -> STALE, nothing is written
    else                                  -> document, chunks, vectors and one `commit_log` row, all or none

A worker that dies before COMMIT leaves nothing; one that dies after it, before it could tell Redis, leaves a
job that is delivered again and answered ALREADY. `commit_log` has no unique constraint on purpose: it is what
an outside observer counts, and a repeated effect would show there instead of being hidden by an error.

So there is no partly committed work to undo (spec D3): what a crash or a cancellation interrupts was never there.
What the rollback window adds is a way back from a commit that succeeded but was not wanted: a cancellation that came
a moment too late, a wrong document. For `window_seconds` `rollback` takes document, chunks and vectors out again, at
most once a commit (`rollback_log` is keyed by job and fence), and raises the fence past every delivery that SQL has
seen, so that none of them can put it back. A new life of the same work has a newer fence and may commit. Rows of
`commit_log` stay: a job's effect is there once when it has one row more in `commit_log` than in `rollback_log`.

Times are the database's: on PostgreSQL its server's clock; on SQLite, which has none of its own, that of the machine
with the file, which is the same for all its processes, because WAL works through shared memory.

SQLite runs in WAL mode with synchronous=FULL (a commit survives power loss) and takes its write lock at BEGIN:
a transaction that reads first and writes later would fail with SQLITE_BUSY instead of waiting its turn. A large
document keeps the lock for as long as its rows take (about 3 s for 100 MB of text, 15 s with vectors of 1,536 numbers),
and others wait up to BUSY_MS for it.
PostgreSQL locks the job's row in `job_fences`; a client that freezes or vanishes inside a transaction loses it after
IDLE_MS. Source: https://www.sqlite.org/isolation.html, https://www.postgresql.org/docs/current/transaction-iso.html
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, TypeVar

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine, make_url

#: How long a writer waits for another's lock; the longest transaction here is a large document's insert.
BUSY_MS: Final = 60_000

#: PostgreSQL ends a transaction whose client says nothing for this long. Ours pause only to read their spools.
IDLE_MS: Final = 30_000

#: Connecting to a PostgreSQL that does not answer, and noticing that one is gone, both in seconds.
CONNECT_SECONDS: Final = 10
KEEPALIVE_SECONDS: Final = 10

#: What goes to the driver at once, and what a row takes beside its text or vector: this bounds the memory (spec B5).
BYTES_PER_INSERT: Final = 1 << 20
ROW_BYTES: Final = 1 << 11

#: SQLite gives the space of a large document's log back to the disk beyond this.
WAL_BYTES: Final = 1 << 26

#: Any number, the same in all processes: they make the schema one after the other.
SCHEMA_LOCK: Final = 7_210_913

#: Switching a new SQLite file to WAL ignores the busy timeout, so processes that start together try again.
WAL_TRIES: Final = 200
WAL_PAUSE_SECONDS: Final = 0.02

#: PostgreSQL asks for these to be tried again: serialization failure, deadlock. Pauses in seconds, jittered.
TRIED_AGAIN: Final = frozenset({"40001", "40P01"})
PAUSES: Final = (0.02, 0.1, 0.5)

Answer = TypeVar("Answer")
Given = ParamSpec("Given")

metadata = sql.MetaData()

#: A column of one name has one type in all tables.
_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("job_id", "sha256", "worker"), sql.String(64)),
    **dict.fromkeys(("name", "media_type", "user_id", "text", "by"), sql.Text()),
    **dict.fromkeys(("bytes", "words", "token_count", "fence"), sql.BigInteger()),
    **dict.fromkeys(("committed_at_ms", "at_ms"), sql.BigInteger()),
    **dict.fromkeys(("chunk_count", "ordinal", "dimensions"), sql.Integer()),
    "embedding": sql.LargeBinary(),
    # SQLite gives row ids by itself to INTEGER keys only.
    "id": sql.BigInteger().with_variant(sql.Integer, "sqlite"),
}


def _table(name: str, columns: str, *, key: str) -> sql.Table:
    """Columns by name, none of which may be NULL; those named in `key` are the primary key."""
    keys = key.split()
    made = (
        sql.Column(column, _TYPES[column], primary_key=column in keys, nullable=False)
        for column in columns.split()
    )
    return sql.Table(name, metadata, *made)


documents = _table(
    "documents",
    "job_id name media_type sha256 bytes words chunk_count token_count user_id fence worker committed_at_ms",
    key="job_id",
)
chunks_table = _table("chunks", "job_id ordinal text token_count", key="job_id ordinal")
vectors_table = _table("vectors", "job_id ordinal dimensions embedding", key="job_id ordinal")
job_fences = _table("job_fences", "job_id fence", key="job_id")
commit_log = _table("commit_log", "id job_id fence worker at_ms", key="id")
rollback_log = _table("rollback_log", "job_id fence by at_ms", key="job_id fence")
sql.Index("ix_commit_log_job_id", commit_log.c.job_id)

#: Both databases understand these; PostgreSQL locks the row also when the fence in it is the newer one.
_RAISE_FENCE: Final = sql.text(
    "INSERT INTO job_fences (job_id, fence) VALUES (:job_id, :fence) "
    "ON CONFLICT (job_id) DO UPDATE SET fence = excluded.fence WHERE job_fences.fence < excluded.fence"
)

#: The time in ms since 1970, now and not when the transaction began.
_NOW_MS: Final = {
    "sqlite": sql.text("SELECT CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"),
    "postgresql": sql.text("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"),
}


class CommitResult(StrEnum):
    """What became of a commit."""

    COMMITTED = "committed"
    ALREADY = "already"  # an earlier delivery did it; the job is done
    STALE = "stale"  # a newer delivery exists; nothing was written


class RollbackResult(StrEnum):
    """What became of a rollback."""

    UNDONE = "undone"
    ALREADY = "already"  # an earlier rollback did it, and nothing was committed since
    TOO_LATE = "too_late"  # the window is over; the effect stays
    NOTHING = "nothing"  # the job has no effect to undo


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


class ChunkRow(NamedTuple):
    """One chunk of a document. The bulky field comes last, see `_insert`."""

    ordinal: int
    token_count: int
    text: str


class VectorRow(NamedTuple):
    """A chunk's vector: little-endian float32, `dimensions` of them."""

    ordinal: int
    dimensions: int
    embedding: bytes


def _in_transaction(
    work: Callable[Concatenate[Store, Connection, Given], Answer],
) -> Callable[Concatenate[Store, Given], Answer]:
    """Do `work` in one transaction that may write; again when the database asks for it or the connection broke.

    After a connection that broke at COMMIT nobody knows what became of it; the repetition finds out.
    """

    @wraps(work)
    def done(self: Store, /, *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        # See _prepare_sqlite: on SQLite this transaction takes the write lock when it begins.
        engine = self._engine.execution_options(write_lock=True)
        for pause in (*PAUSES, None):
            try:
                with engine.begin() as connection:
                    return work(self, connection, *args, **kwargs)
            except sql.exc.DBAPIError as error:
                again = error.connection_invalidated or getattr(error.orig, "sqlstate", "") in TRIED_AGAIN
                if pause is None or not again:
                    raise
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
        raise AssertionError("the last try returns or raises")

    return done


class Store:
    """The database. Raises sqlalchemy.exc.SQLAlchemyError when it cannot do what is asked."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self._backend = parsed.get_backend_name()
        # Parameters are document text: they must not get into an exception's message.
        options: dict[str, Any] = {"hide_parameters": True, "pool_timeout": BUSY_MS / 1000}
        if self._backend == "postgresql":
            options |= {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
            options["connect_args"] = {
                "connect_timeout": CONNECT_SECONDS,
                "keepalives_idle": KEEPALIVE_SECONDS,
                "tcp_user_timeout": BUSY_MS,
            }
        else:
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        self._engine = sql.create_engine(parsed, pool_size=pool_size, max_overflow=pool_size, **options)
        (_prepare_postgresql if self._backend == "postgresql" else _prepare_sqlite)(self._engine)

    @_in_transaction
    def create_schema(self, connection: Connection) -> None:
        """Make missing tables; safe when several processes do it at once: they take turns."""
        if self._backend == "postgresql":
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
        metadata.create_all(connection)

    def ping(self) -> None:
        """Return when the database answers."""
        with self._engine.connect() as connection:
            connection.execute(sql.select(1))

    @_in_transaction
    def raise_fences(
        self, connection: Connection, fences: Collection[tuple[str, int]]
    ) -> dict[str, DocumentRow]:
        """Make (job id, fence) the newest known deliveries, never lower one; what is committed already, by job id.

        Both in one transaction: a former owner's commit is in the answer, or it is refused from now on.
        """
        # All in the same order: two batches with jobs in common must not wait for each other.
        rows = [{"job_id": job_id, "fence": fence} for job_id, fence in sorted(fences)]
        if rows:
            connection.execute(_RAISE_FENCE, rows)
        return _documents(connection, [job_id for job_id, _ in fences])

    def committed(self, job_id: str) -> DocumentRow | None:
        """The job's document, if its effect is committed."""
        with self._engine.connect() as connection:
            return _documents(connection, [job_id]).get(job_id)

    @_in_transaction
    def commit(
        self,
        connection: Connection,
        document: DocumentRow,
        chunks: Iterable[ChunkRow],
        vectors: Iterable[VectorRow],
    ) -> CommitResult:
        """Write a job's whole effect, or nothing, in one transaction.

        `chunks` and `vectors` are read piece by piece, from the start again when the transaction is tried again;
        ValueError when there are not `document.chunk_count` of each.
        """
        effect = {"job_id": document.job_id, "fence": document.fence}
        connection.execute(_RAISE_FENCE, effect)
        if _documents(connection, [document.job_id]):
            return CommitResult.ALREADY
        if _locked_fence(connection, document.job_id) > document.fence:
            return CommitResult.STALE
        for table, rows in ((chunks_table, chunks), (vectors_table, vectors)):
            written = _insert(connection, table, document.job_id, rows)
            if written != document.chunk_count:
                raise ValueError(f"{table}: expected {document.chunk_count} rows, got: {written}")
        # Last, so that the rollback window begins when the effect appears.
        at_ms = self._now_ms(connection)
        connection.execute(sql.insert(documents), {**asdict(document), "committed_at_ms": at_ms})
        connection.execute(sql.insert(commit_log), {**effect, "worker": document.worker, "at_ms": at_ms})
        return CommitResult.COMMITTED

    @_in_transaction
    def rollback(
        self, connection: Connection, job_id: str, *, by: str, window_seconds: float = 60.0
    ) -> RollbackResult:
        """Undo a commit that is at most `window_seconds` old (spec D3), at most once; safe to repeat.

        Call it for jobs that the queue says are done: a delivery that was claimed but has not reached SQL yet is
        newer than every fence seen here, and so may commit again.
        """
        fence = _locked_fence(connection, job_id)
        query = sql.select(documents.c.fence, documents.c.committed_at_ms)
        found = connection.execute(query.where(documents.c.job_id == job_id)).one_or_none()
        if found is None:
            undone = sql.select(rollback_log.c.fence).where(rollback_log.c.job_id == job_id)
            was_undone = connection.execute(undone).first() is not None
            return RollbackResult.ALREADY if was_undone else RollbackResult.NOTHING
        now_ms = self._now_ms(connection)
        if now_ms - found.committed_at_ms > window_seconds * 1000:
            return RollbackResult.TOO_LATE
        for table in (vectors_table, chunks_table, documents):
            connection.execute(sql.delete(table).where(table.c.job_id == job_id))
        row = {"job_id": job_id, "fence": found.fence, "by": by, "at_ms": now_ms}
        connection.execute(sql.insert(rollback_log), row)
        connection.execute(_RAISE_FENCE, {"job_id": job_id, "fence": max(fence, found.fence) + 1})
        return RollbackResult.UNDONE

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _now_ms(self, connection: Connection) -> int:
        return int(connection.execute(_NOW_MS[self._backend]).scalar_one())


def _locked_fence(connection: Connection, job_id: str) -> int:
    """The newest delivery that SQL knows, 0 for none; nobody else changes it during this transaction."""
    # On SQLite the lock is held already, and FOR UPDATE is not written out.
    query = sql.select(job_fences.c.fence).where(job_fences.c.job_id == job_id).with_for_update()
    return connection.execute(query).scalar_one_or_none() or 0


def _documents(connection: Connection, job_ids: list[str]) -> dict[str, DocumentRow]:
    columns = [documents.c[name] for name in DocumentRow.__slots__]
    rows = connection.execute(sql.select(*columns).where(documents.c.job_id.in_(job_ids)))
    return {row.job_id: DocumentRow(**row._asdict()) for row in rows}


def _insert(
    connection: Connection, table: sql.Table, job_id: str, rows: Iterable[ChunkRow] | Iterable[VectorRow]
) -> int:
    insert: Any = sql.insert(table)
    if connection.dialect.name == "postgresql":
        # Makes one statement of a piece. Psycopg's pipeline of many sometimes leaves PostgreSQL without its idle timer.
        insert = insert.returning(table.c.ordinal)
    piece: list[dict[str, Any]] = []
    count = size = 0
    for row in rows:
        count += 1
        piece.append({"job_id": job_id, **row._asdict()})
        size += ROW_BYTES + len(row[-1])
        if size >= BYTES_PER_INSERT:
            connection.execute(insert, piece)
            piece, size = [], 0
    if piece:
        connection.execute(insert, piece)
    return count


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
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")

    @sql.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("write_lock")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _prepare_postgresql(engine: Engine) -> None:
    @sql.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute(f"SET lock_timeout = {BUSY_MS}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_MS}")
        connection.commit()
