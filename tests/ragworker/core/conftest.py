"""Fixtures for the tests of the worker's core: queues on every kind of Redis that this machine has."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import fakeredis
import pytest
import redis.asyncio
from core_parts import RedisServer, missing_redis, named_server, redis_binaries

from ragworker.queue import Queue, connect
from ragworker.settings import QueueSettings


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the product does."""
    return "asyncio"


@pytest.fixture(scope="session")
def real_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RedisServer]]:
    """Servers by name, shared by all tests: each test uses a queue name of its own."""
    running: dict[str, RedisServer] = {}
    yield running
    for server in running.values():
        server.kill()


@pytest.fixture(params=["fakeredis", "wheel", "local"])
async def client(
    request: pytest.FixtureRequest,
    real_servers: dict[str, RedisServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of each kind of server that this machine has."""
    if request.param == "fakeredis":
        made: redis.asyncio.Redis = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    else:
        made = connect(named_server(request.param, real_servers, tmp_path_factory).url)
    yield made
    await made.aclose()


@pytest.fixture
def redis_server(
    real_servers: dict[str, RedisServer], tmp_path_factory: pytest.TempPathFactory
) -> RedisServer:
    """A shared real server."""
    name = next(iter(redis_binaries()), "wheel")
    return named_server(name, real_servers, tmp_path_factory)


@pytest.fixture
def own_redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A real server that the test may kill and start again."""
    binary = next(iter(redis_binaries().values()), None)
    if binary is None:
        missing_redis("any")
    server = RedisServer(str(binary), tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def queue(client: redis.asyncio.Redis) -> Queue:
    """A fresh queue with a short lease."""
    settings = QueueSettings(lease_seconds=0.25, max_deliveries=3, history_seconds=60)
    return Queue(client, name=f"test-{secrets.token_hex(6)}", settings=settings)
