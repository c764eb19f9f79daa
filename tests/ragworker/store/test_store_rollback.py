"""A commit can be undone for a while, once: on SQLite and on PostgreSQL (spec D3)."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from databases import NOTHING, ONE, Database, commit

from ragworker.store import CommitResult, RollbackResult, Store


def test_rollback_undoes_a_commit_once(store: Store, database: Database) -> None:
    """Document, chunks and vectors go, the logs say what happened, and no delivery that SQL knew can come back."""
    store.raise_fences([("job-1", 10), ("job-1", 15)])
    commit(store, fence=15)
    commit(store, "job-2")
    assert store.rollback("job-1", by="user-1") is RollbackResult.UNDONE
    assert database.counts() == {**ONE, "commit_log": 2, "rollback_log": 1}
    assert database.rows("select job_id, fence, by from rollback_log") == [("job-1", 15, "user-1")]
    for fence in (10, 15):
        assert commit(store, fence=fence) is CommitResult.STALE
    assert store.rollback("job-1", by="user-1") is RollbackResult.ALREADY
    assert store.committed("job-1") is None
    assert database.counts()["rollback_log"] == 1


def test_new_life_may_commit_and_be_undone_again(store: Store, database: Database) -> None:
    """The same work, submitted again after a rollback, has a newer fence: its effect is one of its own."""
    for life in range(3):
        fence = 10 * (life + 1)
        assert commit(store, fence=fence) is CommitResult.COMMITTED
        assert store.rollback("job-1", by="user-1") is RollbackResult.UNDONE
    assert commit(store, fence=40) is CommitResult.COMMITTED
    assert database.counts() == {**ONE, "commit_log": 4, "rollback_log": 3}


def test_rollback_has_a_window_by_the_clock_of_the_database(store: Store, database: Database) -> None:
    """Up to 60 s after the commit, and not later; a caller may choose another window."""
    commit(store)
    with database.connection() as connection:
        connection.exec_driver_sql("UPDATE documents SET committed_at_ms = committed_at_ms - 61000")
    assert store.rollback("job-1", by="user-1") is RollbackResult.TOO_LATE
    assert database.counts() == ONE
    assert store.rollback("job-1", by="user-1", window_seconds=120) is RollbackResult.UNDONE


def test_rollback_of_nothing_says_so(store: Store, database: Database) -> None:
    """A job that is unknown, or has not committed, has nothing to undo; nothing is written."""
    store.raise_fences([("job-1", 10)])
    assert store.rollback("job-1", by="user-1") is RollbackResult.NOTHING
    assert store.rollback("unknown", by="user-1") is RollbackResult.NOTHING
    assert commit(store) is CommitResult.COMMITTED
    assert database.counts() == ONE


def test_racing_rollbacks_undo_once(store: Store, database: Database) -> None:
    """Eight requests at once: one undoes, the others are told so."""
    commit(store)
    with ThreadPoolExecutor(8) as threads:
        results = Counter(threads.map(lambda n: store.rollback("job-1", by=f"user-{n}"), range(8)))
    assert results == {RollbackResult.UNDONE: 1, RollbackResult.ALREADY: 7}
    assert database.counts() == {**NOTHING, "commit_log": 1, "rollback_log": 1}


def test_racing_commits_and_rollbacks_agree_with_the_logs(store: Store, database: Database) -> None:
    """Commits with rising fences against rollbacks: what is there is what the two logs say."""
    fences = iter(range(10, 1000))
    lock = threading.Lock()

    def step(n: int) -> str:
        if n % 3 == 0:
            return f"rollback {store.rollback('job-1', by='user-1')}"
        with lock:
            fence = next(fences)
        return f"commit {commit(store, fence=fence)}"

    with ThreadPoolExecutor(6) as threads:
        results = Counter(threads.map(step, range(60)))
    counts = database.counts()
    assert counts["commit_log"] == results["commit committed"]
    assert counts["rollback_log"] == results["rollback undone"]
    assert counts["documents"] == counts["commit_log"] - counts["rollback_log"]
    assert counts["chunks"] == counts["vectors"] == 2 * counts["documents"]
