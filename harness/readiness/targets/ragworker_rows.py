"""Read what ragworker committed, straight from its SQL tables. Reads only; the schema is the target's.

Looking past the API on purpose: what the API says is one thing to check, what is in the tables another.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psycopg.errors import UndefinedTable
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from readiness.targets.base import CommittedDocument, Effect, StoredChunk, TargetError

BUSY_MS = 10_000
"""How long a read may wait for a writer that checkpoints."""

_EFFECTS = "SELECT job_id, fence, worker, at_ms FROM commit_log ORDER BY id"
_UNDONE = "SELECT job_id, fence, by, at_ms FROM rollback_log ORDER BY at_ms"
_COMMITTED = """
SELECT d.job_id, d.name, d.words, d.chunk_count, d.token_count, d.sha256,
       (SELECT COUNT(*) FROM chunks c WHERE c.job_id = d.job_id),
       (SELECT COUNT(*) FROM vectors v WHERE v.job_id = d.job_id),
       (SELECT COALESCE(SUM(c.token_count), 0) FROM chunks c WHERE c.job_id = d.job_id)
FROM documents d
"""
_CHUNKS = """
SELECT c.text, c.token_count, v.dimensions, v.embedding
FROM chunks c LEFT JOIN vectors v ON v.job_id = c.job_id AND v.ordinal = c.ordinal
WHERE c.job_id = :job_id ORDER BY c.ordinal
"""


class CommittedRows:
    """The tables of one lane. Before the target has made them, all are empty."""

    def __init__(self, database_url: str) -> None:
        url = make_url(database_url)
        self._file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        self._engine: Engine = create_engine(url, poolclass=NullPool)
        if self._file is not None:
            event.listen(self._engine, "connect", _read_only)

    def effects(self) -> list[Effect]:
        """Every committed effect, in the order of commit."""
        return [
            Effect(str(job), int(fence), str(worker), int(at))
            for job, fence, worker, at in self._rows(_EFFECTS)
        ]

    def undone(self) -> list[Effect]:
        """Every effect that was taken back; `worker` is who asked for it."""
        return [Effect(str(job), int(fence), str(by), int(at)) for job, fence, by, at in self._rows(_UNDONE)]

    def committed(self) -> dict[str, CommittedDocument]:
        """Every committed document by job id."""
        return {str(row[0]): CommittedDocument(*row) for row in self._rows(_COMMITTED)}

    def chunks(self, job_id: str) -> list[StoredChunk]:
        """The chunks of one document in order."""
        return [
            StoredChunk(str(words), int(tokens), _vector(dimensions, blob))
            for words, tokens, dimensions, blob in self._rows(_CHUNKS, job_id=job_id)
        ]

    def close(self) -> None:
        """Let the database go."""
        self._engine.dispose()

    def _rows(self, query: str, **values: str) -> Sequence[Any]:
        if self._file is not None and not self._file.is_file():
            return []
        try:
            with self._engine.connect() as connection:
                return connection.execute(text(query), values).all()
        except OperationalError as error:
            if "no such table" in str(error.orig):
                return []
            raise TargetError(f"SQL: expected to read the target's tables, got: {error.orig}") from None
        except ProgrammingError as error:
            if isinstance(error.orig, UndefinedTable):
                return []
            raise TargetError(f"SQL: expected to read the target's tables, got: {error.orig}") from None
        except SQLAlchemyError as error:
            raise TargetError(f"SQL: expected to read the target's tables, got: {error}") from None


def _read_only(connection: Any, _: object) -> None:
    """An observer must not change what it observes, and must not give up while a writer checkpoints."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()


def _vector(dimensions: int | None, blob: bytes | None) -> tuple[float, ...]:
    """Little-endian float32; TargetError when the length is not what `dimensions` says."""
    if dimensions is None or blob is None:
        return ()
    if len(blob) != 4 * dimensions:
        raise TargetError(f"vectors: expected {4 * dimensions} bytes, got {len(blob)}")
    return struct.unpack(f"<{dimensions}f", blob)
