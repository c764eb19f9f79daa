"""One transaction, one effect: what SQL promises about a job, on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy.exc
from databases import NOTHING, ONE, PROGRAM_HEAD, Database, chunk_rows, commit, document, vector_rows

from ragworker import store as store_module
from ragworker.errors import ErrorCode, classify
from ragworker.store import ChunkRow, CommitResult, Store


def test_commit_writes_the_whole_effect(store: Store, database: Database) -> None:
    """Document, chunks, vectors and one log row appear together, more rows than fit one INSERT included."""
    written = document(chunks=700)
    # Vectors come in the order of their requests, not of the chunks.
    assert store.commit(written, chunk_rows(700), vector_rows(700)[::-1]) is CommitResult.COMMITTED
    assert database.counts() == {**ONE, "chunks": 700, "vectors": 700}
    assert store.committed("job-1") == written
    assert database.rows("select text, token_count from chunks where ordinal = 699") == [("text 699", 2)]
    assert database.rows("select distinct dimensions, length(embedding) from vectors") == [(1, 4)]
    at_ms = {row[0] for row in database.rows("select committed_at_ms from documents")}
    assert at_ms == {row[0] for row in database.rows("select at_ms from commit_log")}
    assert abs(at_ms.pop() - time.time() * 1000) < 60_000


def test_second_commit_finds_the_first(store: Store, database: Database) -> None:
    """A delivery that comes again after a crash is told that its effect is there, whatever its fence."""
    commit(store)
    for fence in (9, 10, 11):
        assert commit(store, fence=fence) is CommitResult.ALREADY
    assert database.counts() == ONE


def test_stale_fence_is_refused(store: Store, database: Database) -> None:
    """Once a newer delivery has raised the fence the older one cannot commit; the newer one can."""
    assert store.raise_fences([("job-1", 10)]) == {}
    assert store.raise_fences([("job-1", 20), ("job-2", 5)]) == {}
    assert commit(store, fence=10) is CommitResult.STALE
    assert database.counts() == NOTHING
    assert commit(store, fence=20) is CommitResult.COMMITTED
    assert store.raise_fences([("job-1", 30), ("job-2", 31)]) == {"job-1": document(fence=20)}


def test_fences_only_rise(store: Store) -> None:
    """A late raise of an old fence changes nothing, and neither does a commit that nobody announced."""
    store.raise_fences([("job-1", 20)])
    store.raise_fences([("job-1", 10)])
    assert commit(store, fence=19) is CommitResult.STALE
    assert commit(store, "unannounced", fence=7) is CommitResult.COMMITTED
    store.rollback("unannounced", by="test")
    assert commit(store, "unannounced", fence=7) is CommitResult.STALE


@pytest.mark.parametrize("broken", ["same ordinal", "one chunk missing", "one vector missing"])
def test_failed_commit_leaves_nothing(store: Store, database: Database, broken: str) -> None:
    """Rows that cannot be stored, or are not all there, undo the document too, and no text is in the error."""
    chunks, vectors = chunk_rows(300), vector_rows(300)
    if broken == "same ordinal":
        chunks[-1] = ChunkRow(0, 1, "secret")
    else:
        (chunks if "chunk" in broken else vectors).pop()
    expected = sqlalchemy.exc.IntegrityError if broken == "same ordinal" else ValueError
    with pytest.raises(expected) as caught:
        store.commit(document(chunks=300), chunks, vectors)
    assert "secret" not in str(caught.value)
    assert database.counts() == NOTHING
    assert commit(store) is CommitResult.COMMITTED


def test_racing_commits_have_one_effect(store: Store, database: Database) -> None:
    """Eight deliveries that commit at once, none of them announced: one effect, the others are told so or are stale."""
    with ThreadPoolExecutor(8) as threads:
        results = Counter(threads.map(lambda n: commit(store, fence=10 + n), range(8)))
    assert results[CommitResult.COMMITTED] == 1
    assert results[CommitResult.ALREADY] + results[CommitResult.STALE] == 7
    assert database.counts() == ONE


@pytest.mark.parametrize("first", ["newer", "older"])
def test_two_processes_have_one_effect_a_job(store: Store, database: Database, first: str) -> None:
    """A paused worker and the one that took over commit the same 40 jobs at once: every effect is there once.

    Whichever comes first: after the newer one's raise the older one is refused, after the older one's commit the
    newer one finds it.
    """
    program = PROGRAM_HEAD + (
        "fence, ids = int(sys.argv[2]), sys.argv[3].split()\n"
        "found = store.raise_fences([(i, fence) for i in ids]) if fence == 20 else {}\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for i in ids:\n"
        "    print(i, i in found or store.commit(document(i, fence=fence), chunk_rows(), vector_rows()), flush=True)\n"
    )
    ids = [f"job-{n}" for n in range(40)]
    if first == "older":
        for job_id in ids[:20]:
            commit(store, job_id, fence=10)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, database.url, str(fence), " ".join(ids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for fence in (10, 20)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = [process.communicate("go\n", timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    results = [dict(line.split() for line in lines) for lines in answers]
    committed_before = set(ids[:20]) if first == "older" else set()
    for job_id in ids:
        old, new = (result[job_id] for result in results)
        if job_id in committed_before:
            assert (old, new) == ("already", "True")
        else:
            assert (old in ("stale", "already"), new) == (True, "committed")
    assert database.rows("select count(*), count(distinct job_id) from commit_log") == [(40, 40)]
    expected = {"documents": 40, "chunks": 80, "vectors": 80, "commit_log": 40, "rollback_log": 0}
    assert database.counts() == expected


def test_process_killed_inside_the_transaction_leaves_nothing(store: Store, database: Database) -> None:
    """kill -9 between two INSERTs: no row is left, no lock is left, and the next delivery commits."""
    program = PROGRAM_HEAD + (
        "def rows():\n"
        "    yield from chunk_rows(600)\n"
        "    print('inside', flush=True); time.sleep(60)\n"
        "store.commit(document(chunks=601), rows(), vector_rows())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, database.url], stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "inside\n"
        victim.kill()
        victim.wait(10)
    started = time.monotonic()
    assert store.raise_fences([("job-1", 20)]) == {}
    assert database.counts() == NOTHING
    assert commit(store, fence=20) is CommitResult.COMMITTED
    assert time.monotonic() - started < 10
    assert database.counts() == ONE


def test_writer_waits_for_a_lock(store: Store, database: Database) -> None:
    """A commit that meets another's lock waits until it is free."""
    store.raise_fences([("job-1", 10)])
    with ThreadPoolExecutor(1) as threads:
        with database.locked("job-1"):
            waiting = threads.submit(commit, store)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        assert waiting.result(20) is CommitResult.COMMITTED


def test_lock_that_is_never_free_is_an_unavailable_store(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the longest wait the attempt fails with a code that is retried; nothing was written."""
    store.raise_fences([("job-1", 10)])
    monkeypatch.setattr(store_module, "BUSY_MS", 200)
    impatient = Store(database.url)
    with database.locked("job-1"), pytest.raises(sqlalchemy.exc.OperationalError) as caught:
        commit(impatient)
    impatient.close()
    assert classify(caught.value).code is ErrorCode.STORE_UNAVAILABLE
    assert database.counts() == NOTHING


def test_processes_make_the_schema_together(database: Database) -> None:
    """Four processes that start on an empty database all succeed; SQLite is in WAL mode then."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM_HEAD + "store.create_schema(); store.ping()", database.url]
        )
        for _ in range(4)
    ]
    assert [process.wait(30) for process in started] == [0, 0, 0, 0]
    assert database.counts() == NOTHING
    if database.is_sqlite:
        assert database.rows("pragma journal_mode") == [("wal",)]


def test_folder_of_a_new_file_is_made(tmp_path: Path) -> None:
    """A SQLite file may be in a folder that is not there yet."""
    made = Store(f"sqlite:///{tmp_path / 'deep' / 'er' / 'rag.db'}")
    made.create_schema()
    made.close()
    assert (tmp_path / "deep" / "er" / "rag.db").is_file()


def test_sqlite_survives_a_power_failure(tmp_path: Path) -> None:
    """Every connection of the store syncs each commit to the disk."""
    made = Store(f"sqlite:///{tmp_path / 'rag.db'}")
    with made._engine.connect() as connection:
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2
    made.close()


class Rows:
    """Chunks that are read more than once: `disturb` is called in the middle of the first time."""

    def __init__(self, disturb: object) -> None:
        self.disturb, self.times = disturb, 0

    def __iter__(self) -> Iterator[ChunkRow]:
        self.times += 1
        for row in chunk_rows(600):
            if row.ordinal == 300 and self.times == 1:
                assert callable(self.disturb)
                self.disturb()
            yield row


def test_broken_connection_is_replaced(postgresql: Database) -> None:
    """The server ends the connection in the middle of a commit, as when it restarts: the commit is tried again."""
    store = Store(postgresql.url)
    store.create_schema()

    def disturb() -> None:
        others = "select pg_terminate_backend(pid) from pg_stat_activity"
        postgresql.rows(f"{others} where pid <> pg_backend_pid() and datname = current_database()")

    rows = Rows(disturb)
    assert store.commit(document(chunks=600), rows, vector_rows(600)) is CommitResult.COMMITTED
    assert rows.times == 2
    assert postgresql.counts() == {**ONE, "chunks": 600, "vectors": 600}
    store.close()


def test_deadlock_is_tried_again(postgresql: Database) -> None:
    """PostgreSQL breaks a deadlock at the store's cost: the same batch of fences is raised once more."""
    store = Store(postgresql.url)
    store.create_schema()
    store.raise_fences([("a", 1), ("b", 1)])
    with ThreadPoolExecutor(1) as threads, postgresql.connection() as other:
        for statement in ("SET deadlock_timeout = '60s'", "BEGIN"):  # so that the store is the victim
            other.exec_driver_sql(statement)
        other.exec_driver_sql("UPDATE job_fences SET fence = 5 WHERE job_id = 'b'")
        raising = threads.submit(store.raise_fences, [("a", 9), ("b", 9)])
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        deadline = time.monotonic() + 10
        while not postgresql.rows(waiting)[0][0]:
            assert time.monotonic() < deadline
        other.exec_driver_sql("UPDATE job_fences SET fence = 5 WHERE job_id = 'a'")
        other.exec_driver_sql("COMMIT")
        assert raising.result(20) == {}
    assert postgresql.rows("select job_id, fence from job_fences order by 1") == [("a", 9), ("b", 9)]
    assert postgresql.rows(
        "select deadlocks > 0 from pg_stat_database where datname = current_database()"
    ) == [(True,)]
    store.close()


def test_stricter_isolation_of_the_database_does_no_harm(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SERIALIZABLE is the default racing commits would fail each other; the store does not rely on it."""
    monkeypatch.setattr(store_module, "PAUSES", ())
    with postgresql.connection() as connection:
        name = connection.exec_driver_sql("select current_database()").scalar()
        connection.exec_driver_sql(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
        )
    store = Store(postgresql.url, pool_size=8)
    store.create_schema()
    barrier = threading.Barrier(8)

    def race(n: int) -> list[CommitResult]:
        barrier.wait(10)
        return [commit(store, f"job-{job}", fence=10 + n) for job in range(10)]

    with ThreadPoolExecutor(8) as threads:
        results = Counter(result for results in threads.map(race, range(8)) for result in results)
    assert results[CommitResult.COMMITTED] == 10
    store.close()


def test_batches_with_jobs_in_common_do_not_deadlock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of the same jobs in opposite orders wait for each other in one direction only."""
    monkeypatch.setattr(store_module, "PAUSES", ())
    jobs = [f"job-{n}" for n in range(100)]

    def raise_all(n: int) -> None:
        order = jobs if n % 2 else jobs[::-1]
        store.raise_fences([(job_id, n) for job_id in order])

    with ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(raise_all, range(60)))) == 60


def test_client_that_freezes_in_a_transaction_loses_its_lock(postgresql: Database) -> None:
    """A worker stopped (SIGSTOP) while it commits does not keep the job's row: the takeover goes on without it."""
    store = Store(postgresql.url)
    store.create_schema()
    program = PROGRAM_HEAD.replace("store = ", "module.IDLE_MS = 300\nstore = ") + (
        "def rows():\n"
        "    yield from chunk_rows(600)\n"
        "    print('inside', flush=True); time.sleep(60)\n"
        "store.commit(document(chunks=601), rows(), vector_rows())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, postgresql.url], stdout=subprocess.PIPE, text=True
    ) as frozen:
        assert frozen.stdout is not None
        assert frozen.stdout.readline() == "inside\n"
        assert store.raise_fences([("job-1", 20)]) == {}
        assert commit(store, fence=20) is CommitResult.COMMITTED
        frozen.kill()
    assert postgresql.counts() == ONE
    store.close()


def test_plain_postgresql_urls_are_understood() -> None:
    """Both usual schemes select the driver that is installed."""
    for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        made = Store(f"{scheme}://user@127.0.0.1/x")
        assert made._engine.url.drivername == "postgresql+psycopg"
        made.close()
