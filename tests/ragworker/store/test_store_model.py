"""The store against a plain model: whatever is called in whatever order, a life of a job has one effect at most."""

from __future__ import annotations

import itertools

import sqlalchemy as sql
from databases import Database, chunk_rows, document, vector_rows
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ragworker.store import CommitResult, DocumentRow, RollbackResult, Store

JOBS = st.sampled_from("ab")
FENCES = st.integers(1, 12)
EXAMPLES = itertools.count()


class StoreMachine(RuleBasedStateMachine):
    """Jobs of its own on a database that all examples share."""

    store: Store
    connection: sql.Connection

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"x{next(EXAMPLES)}-"
        self.fences = dict.fromkeys("ab", 0)
        self.effects: dict[str, DocumentRow] = {}
        self.commits: list[tuple[str, int]] = []
        self.rollbacks: list[tuple[str, int]] = []

    @rule(fences=st.lists(st.tuples(JOBS, FENCES), max_size=4))
    def raise_fences(self, fences: list[tuple[str, int]]) -> None:
        found = self.store.raise_fences([(self.prefix + job, fence) for job, fence in fences])
        for job, fence in fences:
            self.fences[job] = max(self.fences[job], fence)
        named = {job for job, _ in fences}
        assert found == {self.prefix + job: row for job, row in self.effects.items() if job in named}

    @rule(job=JOBS, fence=FENCES)
    def commit(self, job: str, fence: int) -> None:
        row = document(self.prefix + job, fence=fence)
        result = self.store.commit(row, chunk_rows(), vector_rows())
        if job in self.effects:
            expected = CommitResult.ALREADY
        elif self.fences[job] > fence:
            expected = CommitResult.STALE
        else:
            expected = CommitResult.COMMITTED
            self.effects[job] = row
            self.commits.append((job, fence))
        self.fences[job] = max(self.fences[job], fence)
        assert result is expected

    @rule(job=JOBS)
    def rollback(self, job: str) -> None:
        result = self.store.rollback(self.prefix + job, by="model")
        if job in self.effects:
            expected = RollbackResult.UNDONE
            self.rollbacks.append((job, self.effects.pop(job).fence))
            self.fences[job] += 1
        else:
            undone = any(job == name for name, _ in self.rollbacks)
            expected = RollbackResult.ALREADY if undone else RollbackResult.NOTHING
        assert result is expected

    @rule(job=JOBS)
    def rollback_too_late(self, job: str) -> None:
        result = self.store.rollback(self.prefix + job, by="model", window_seconds=-60)
        assert (result is RollbackResult.TOO_LATE) == (job in self.effects)

    @invariant()
    def database_is_the_model(self) -> None:
        mine = f"where job_id like '{self.prefix}_'"

        def rows(table: str, columns: str = "job_id, fence") -> list[tuple[str, int]]:
            found = self.connection.exec_driver_sql(f"select {columns} from {table} {mine}")  # noqa: S608 - literals of this file
            return sorted((job.removeprefix(self.prefix), fence) for job, fence in found)

        assert rows("job_fences") == sorted((job, fence) for job, fence in self.fences.items() if fence)
        assert rows("documents") == sorted((job, row.fence) for job, row in self.effects.items())
        assert rows("commit_log") == sorted(self.commits)
        assert rows("rollback_log") == sorted(self.rollbacks)
        whole = sorted((job, ordinal) for job in self.effects for ordinal in range(2))
        assert rows("chunks", "job_id, ordinal") == rows("vectors", "job_id, ordinal") == whole
        # One effect per life: between two commits of a job there is a rollback, and no fence commits twice.
        assert len(set(self.commits)) == len(self.commits)


def test_store_is_the_model(store: Store, database: Database) -> None:
    """Raise, commit and roll back two jobs in any order, with any fences."""
    profile = settings(max_examples=40, stateful_step_count=25, deadline=None)
    with database.connection() as connection:
        machine = type("Machine", (StoreMachine,), {"store": store, "connection": connection})
        run_state_machine_as_test(machine, settings=profile)
