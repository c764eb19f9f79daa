"""Fixtures for the tests of the store: each runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Database, PostgresqlServer, start_postgresql

from ragworker.store import Store


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One server for all tests, with a database for each."""
    server = start_postgresql()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty database."""
    if request.param == "sqlite":
        return Database(f"sqlite:///{tmp_path / 'rag.db'}")
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    return server.database()


@pytest.fixture
def postgresql(postgresql_server: PostgresqlServer) -> Database:
    """An empty database on PostgreSQL, for what SQLite does not have."""
    return postgresql_server.database()


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store with its tables."""
    made = Store(database.url)
    made.create_schema()
    yield made
    made.close()
