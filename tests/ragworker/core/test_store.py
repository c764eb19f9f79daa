"""One transaction, one effect: what SQL promises about a job."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy.exc
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from ragworker.store import ChunkRow, CommitResult, DocumentRow, Store, metadata


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A fresh SQLite file."""
    made = Store(f"sqlite:///{tmp_path / 'rag.db'}")
    made.create_schema()
    yield made
    made.close()


def document(job_id: str = "job-1", *, fence: int = 10) -> DocumentRow:
    return DocumentRow(job_id, "n", "text/plain", "0" * 64, 9, 3, 2, 4, "user-1", fence, "w1")


def chunks(count: int = 2) -> Iterator[ChunkRow]:
    return (ChunkRow(n, f"text {n}", 2, 1, b"\0\0\x80\x3f") for n in range(count))


def counts(tmp_path: Path) -> dict[str, int]:
    names = ("documents", "chunks", "vectors", "commit_log")
    with closing(sqlite3.connect(tmp_path / "rag.db")) as connection:
        return {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in names}  # noqa: S608 - the names are literals of this file


def test_commit_writes_the_whole_effect(store: Store, tmp_path: Path) -> None:
    """Document, chunks, vectors and one log row appear together, more rows than fit one INSERT included."""
    assert store.commit(document(), chunks(700)) is CommitResult.COMMITTED
    assert counts(tmp_path) == {"documents": 1, "chunks": 700, "vectors": 700, "commit_log": 1}
    assert store.committed("job-1") == document()


def test_second_commit_finds_the_first(store: Store, tmp_path: Path) -> None:
    """A delivery that comes again after a crash is told that its effect is there, whatever its fence."""
    store.commit(document(), chunks())
    for fence in (9, 10, 11):
        assert store.commit(document(fence=fence), chunks()) is CommitResult.ALREADY
    assert counts(tmp_path)["commit_log"] == 1


def test_stale_fence_is_refused(store: Store, tmp_path: Path) -> None:
    """Once a newer delivery has raised the fence the older one cannot commit; the newer one can."""
    assert store.raise_fences([("job-1", 10)]) == {}
    assert store.raise_fences([("job-1", 20), ("job-2", 5)]) == {}
    assert store.commit(document(fence=10), chunks()) is CommitResult.STALE
    assert counts(tmp_path)["documents"] == 0
    assert store.commit(document(fence=20), chunks()) is CommitResult.COMMITTED
    assert store.raise_fences([("job-1", 30), ("job-2", 31)]) == {"job-1": document(fence=20)}


def test_fences_only_rise(store: Store) -> None:
    """A late raise of an old fence changes nothing; a delivery without a queue gets the next one."""
    store.raise_fences([("job-1", 20)])
    store.raise_fences([("job-1", 10)])
    assert store.commit(document(fence=19), chunks()) is CommitResult.STALE
    assert store.next_fence("job-1") == 21
    assert store.next_fence("job-new") == 1


def test_failed_commit_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """A chunk that cannot be stored undoes the document too, and no text is in the error."""
    rows = [*chunks(), ChunkRow(0, "the same ordinal again, secret", 1, 1, b"")]
    with pytest.raises(sqlalchemy.exc.IntegrityError) as caught:
        store.commit(document(), rows)
    assert "secret" not in str(caught.value)
    assert set(counts(tmp_path).values()) == {0}


def test_racing_commits_have_one_effect(store: Store, tmp_path: Path) -> None:
    """Eight deliveries that commit at once: one effect, seven are told so."""
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: store.commit(document(fence=10 + n), chunks()), range(8)))
    assert sorted(results) == ["already"] * 7 + ["committed"]
    assert counts(tmp_path) == {"documents": 1, "chunks": 2, "vectors": 2, "commit_log": 1}


def test_processes_make_the_schema_together(tmp_path: Path) -> None:
    """Four processes that start on an empty folder all succeed, in WAL mode."""
    url = f"sqlite:///{tmp_path / 'deep' / 'rag.db'}"
    program = (
        "import sys; from ragworker.store import Store; s = Store(sys.argv[1]); s.create_schema(); s.ping()"
    )
    started = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(4)]
    assert [process.wait(30) for process in started] == [0, 0, 0, 0]
    with closing(sqlite3.connect(tmp_path / "deep" / "rag.db")) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


def test_schema_is_postgresql_too() -> None:
    """Every table compiles for PostgreSQL: 64-bit fences, bytea vectors, a generated log id."""
    dialect = postgresql.dialect()
    text = "".join(str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables)
    assert "fence BIGINT NOT NULL" in text
    assert "embedding BYTEA NOT NULL" in text
    assert "BIGSERIAL" in text
