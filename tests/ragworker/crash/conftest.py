"""Fixtures of the crash suite: a Redis of one's own, and a stand with worker processes on it.

A few kills in CI; RAG_CRASH_KILLS=59 for as many as the 95th percentile needs. `pytest -s` prints the figures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The tests of the core have the servers and builders that these tests need too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "core"))

from core_parts import EmbeddingServer, RedisServer, missing_redis, redis_binaries
from crash_parts import Stand


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """As the product."""
    return "asyncio"


@pytest.fixture(params=["wheel", "local"])
def own_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A real server of each kind that this machine has, which the test may kill."""
    binary = redis_binaries().get(request.param)
    if binary is None:
        missing_redis(request.param)
    server = RedisServer(str(binary), tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def stand(own_redis: RedisServer, tmp_path: Path) -> Iterator[Stand]:
    """A queue of naps."""
    made = Stand(tmp_path, own_redis.url)
    yield made
    made.stop()


@pytest.fixture
def embedding() -> Iterator[EmbeddingServer]:
    """An embedding API."""
    made = EmbeddingServer()
    yield made
    made.close()
