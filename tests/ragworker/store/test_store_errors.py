"""What PostgreSQL says when something goes wrong, by the code that it has for a job (spec C4)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import sqlalchemy as sql
from databases import Database, chunk_rows, document, vector_rows

from ragworker.errors import ErrorCode, classify
from ragworker.store import Store


def nobody_listens(_database: Database) -> None:
    Store("postgresql://ragworker@127.0.0.1:1/rag").ping()


def no_such_database(database: Database) -> None:
    Store(database.url.replace("/test", "/nothing")).ping()


def no_tables(database: Database) -> None:
    Store(database.url).raise_fences([("j", 1)])


def connection_is_ended(database: Database) -> None:
    with database.connection() as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")


def too_many_connections(database: Database) -> None:
    with ExitStack() as connections:
        for _ in range(1000):
            connections.enter_context(database.connection())


def lock_is_held(database: Database) -> None:
    with database.locked("j"), database.connection() as connection:
        connection.exec_driver_sql("SET lock_timeout = 50")
        connection.exec_driver_sql("UPDATE job_fences SET fence = 2")


def statement_takes_too_long(database: Database) -> None:
    with database.connection() as connection:
        connection.exec_driver_sql("SET statement_timeout = 50")
        connection.exec_driver_sql("SELECT pg_sleep(10)")


def database_is_a_standby(database: Database) -> None:
    with database.connection() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = on")
        connection.exec_driver_sql("UPDATE job_fences SET fence = 2")


def two_wait_for_each_other(database: Database) -> None:
    with database.connection() as one, database.connection() as other, ThreadPoolExecutor(1) as thread:
        for connection, job in ((one, "j"), (other, "k")):
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(f"UPDATE job_fences SET fence = 2 WHERE job_id = '{job}'")  # noqa: S608 - literals of this file
        waiting = thread.submit(one.exec_driver_sql, "UPDATE job_fences SET fence = 3 WHERE job_id = 'k'")
        try:
            other.exec_driver_sql("UPDATE job_fences SET fence = 3 WHERE job_id = 'j'")
        finally:
            other.exec_driver_sql("ROLLBACK")
            waiting.result(30)


def somebody_was_first(database: Database) -> None:
    with database.connection() as one, database.connection() as other:
        for connection in (one, other):
            connection.exec_driver_sql("BEGIN ISOLATION LEVEL SERIALIZABLE")
            connection.exec_driver_sql("SELECT sum(fence) FROM job_fences")
        for connection, job in ((one, "j"), (other, "k")):
            connection.exec_driver_sql(f"UPDATE job_fences SET fence = fence + 1 WHERE job_id = '{job}'")  # noqa: S608 - literals of this file
        one.exec_driver_sql("COMMIT")
        other.exec_driver_sql("COMMIT")


def says(state: str) -> Callable[[Database], None]:
    """The server itself raises this SQLSTATE, as it does when its own machine is short of something."""

    def raised(database: Database) -> None:
        with database.connection() as connection:
            connection.exec_driver_sql(
                f"DO $$ BEGIN RAISE EXCEPTION 'zebra' USING ERRCODE = '{state}'; END $$"
            )

    raised.__name__ = f"says_{state}"
    return raised


def text_with_a_nul(database: Database) -> None:
    Store(database.url).commit(document("n\0", chunks=0), [], [])


def number_out_of_range(database: Database) -> None:
    with database.connection() as connection:
        connection.exec_driver_sql("INSERT INTO chunks VALUES ('j', 99999999999999999999, 'zebra', 1)")


def row_is_there_already(database: Database) -> None:
    twice = [chunk_rows()[0]] * 2
    Store(database.url).commit(document("twice"), twice, vector_rows())


CAUSES = {
    ErrorCode.STORE_UNAVAILABLE: (
        nobody_listens,
        no_such_database,
        connection_is_ended,
        too_many_connections,
        lock_is_held,
        statement_takes_too_long,
        database_is_a_standby,
        two_wait_for_each_other,
        somebody_was_first,
    ),
    ErrorCode.RESOURCE_EXHAUSTED: (says("53100"), says("53200")),
    ErrorCode.STORE_REJECTED: (text_with_a_nul, number_out_of_range, row_is_there_already),
}


@pytest.mark.parametrize(
    ("code", "cause"),
    [pytest.param(code, cause, id=cause.__name__) for code, causes in CAUSES.items() for cause in causes],
)
def test_cause_has_its_code(postgresql: Database, code: ErrorCode, cause: Callable[[Database], None]) -> None:
    """What the database raises ends under the code that decides whether another try can help; nothing is quoted."""
    store = Store(postgresql.url)
    store.create_schema()
    store.raise_fences([("j", 1), ("k", 1)])
    store.close()
    with pytest.raises((sql.exc.SQLAlchemyError, ValueError)) as caught:
        cause(postgresql)
    failure = classify(caught.value)
    assert failure.code is code
    assert "zebra" not in failure.message


def test_missing_tables_are_worth_another_try(postgresql: Database) -> None:
    """A database that was made anew is no reason to give a job up."""
    with pytest.raises(sql.exc.ProgrammingError) as caught:
        no_tables(postgresql)
    assert classify(caught.value).code is ErrorCode.STORE_UNAVAILABLE
