"""Keep committed documents in SQL: the only module that talks to the database. Synchronous; call it in threads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


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
        raise NotImplementedError

    def create_schema(self) -> None:
        """Make missing tables; safe when several processes do it at once."""
        raise NotImplementedError

    def ping(self) -> None:
        """Return when the database answers."""
        raise NotImplementedError

    def raise_fences(self, fences: Iterable[tuple[str, int]]) -> None:
        """Make (job id, fence) the newest known deliveries; never lowers one."""
        raise NotImplementedError

    def next_fence(self, job_id: str) -> int:
        """Raise the job's fence by one and return it: for deliveries that no queue numbers."""
        raise NotImplementedError

    def committed(self, job_id: str) -> DocumentRow | None:
        """The job's document, if its effect is committed."""
        raise NotImplementedError

    def commit(self, document: DocumentRow, chunks: Iterable[ChunkRow]) -> CommitResult:
        """Write a job's whole effect, or nothing, in one transaction."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all connections."""
        raise NotImplementedError
