"""Whole workers on PostgreSQL: killed in the middle of jobs, they lose nothing and repeat nothing there either."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from databases import Database

from ragworker.connection import connect
from ragworker.job import JobState
from ragworker.queue import Queue

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from core_parts import (
    EmbeddingServer,
    Lane,
    RedisServer,
    ended,
    make_lane,
    missing_redis,
    redis_binaries,
    submit,
    wait_until,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the product does."""
    return "asyncio"


@dataclass
class Parts:
    """A lane on PostgreSQL with what it needs."""

    lane: Lane
    embedding: EmbeddingServer
    database: Database


@pytest.fixture
def parts(tmp_path: Path, postgresql: Database) -> Iterator[Parts]:
    """All of it is ended after the test."""
    binary = next(iter(redis_binaries().values()), None)
    if binary is None:
        missing_redis("any")
    server = RedisServer(str(binary), tmp_path / "redis")
    server.start()
    embedding = EmbeddingServer()
    lane = make_lane(tmp_path, server.url, embedding, DATABASE_URL=postgresql.url)
    yield Parts(lane, embedding, postgresql)
    lane.stop()
    embedding.close()
    server.kill()


async def test_killed_worker_on_postgresql_loses_and_repeats_nothing(parts: Parts) -> None:
    """A worker is killed with SIGKILL in the middle of its jobs; another one commits each of them once."""
    client = connect(parts.lane.settings.redis_url)
    queue = Queue(client, name=parts.lane.settings.queue_name, settings=parts.lane.settings.queue)
    parts.embedding.delay_seconds = 0.3
    victim = parts.lane.start_worker()
    ids = await submit(queue, 24)
    with parts.database.connection() as connection:

        async def committed() -> bool:
            exists = connection.exec_driver_sql("select to_regclass('commit_log') is not null").scalar()
            return bool(exists and connection.exec_driver_sql("select count(*) from commit_log").scalar())

        await wait_until(committed, seconds=30, what="the first effect")
    victim.kill()
    victim.wait(10)
    other = parts.lane.start_worker()
    views = await ended(queue, ids, seconds=30)
    await client.aclose()
    assert {view.state for view in views.values()} == {JobState.DONE}
    assert max(view.deliveries for view in views.values()) == 2
    assert other.poll() is None
    effects = Counter(row[0] for row in parts.database.rows("select job_id from commit_log"))
    assert effects == Counter(ids)
    chunks = sum(view.figures.chunks for view in views.values())
    assert parts.database.counts() == {
        "documents": 24,
        "chunks": chunks,
        "vectors": chunks,
        "commit_log": 24,
        "rollback_log": 0,
    }
