"""Fixtures for the tests of the worker's core: queues on every kind of Redis that this machine has."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import fakeredis
import hypothesis
import pytest
import redis.asyncio
from core_parts import (
    EmbeddingServer,
    Lane,
    RedisServer,
    make_lane,
    missing_redis,
    named_server,
    redis_binaries,
)

from ragworker.connection import connect
from ragworker.queue import Queue
from ragworker.settings import QueueSettings
from ragworker.worker import Worker

# `pytest --hypothesis-profile=deep tests/ragworker/core/test_queue_machine.py` looks for minutes instead of seconds.
hypothesis.settings.register_profile("deep")


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


@pytest.fixture
def embedding() -> Iterator[EmbeddingServer]:
    """An embedding API."""
    made = EmbeddingServer()
    yield made
    made.close()


@pytest.fixture
def lane(tmp_path: Path, redis_server: RedisServer, embedding: EmbeddingServer) -> Iterator[Lane]:
    """A lane on a shared real Redis."""
    made = make_lane(tmp_path, redis_server.url, embedding)
    yield made
    made.stop()


@pytest.fixture
async def lane_queue(lane: Lane) -> AsyncIterator[Queue]:
    """The lane's queue, as the API sees it."""
    client = connect(lane.settings.redis_url)
    yield Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)
    await client.aclose()


@pytest.fixture
async def start(lane: Lane, lane_queue: Queue) -> AsyncIterator[list[Worker]]:
    """One worker inside this process, stopped at the end."""
    from ragworker.handler import RagHandler  # noqa: PLC0415  the queue's own tests do without the pipeline

    client = connect(lane.settings.redis_url)
    made = Worker(
        Queue(client, name=lane_queue.name, settings=lane.settings.queue),
        RagHandler(lane.settings, client, worker="w-in-process"),
        settings=lane.settings,
        worker_id="w-in-process",
    )
    running = asyncio.create_task(made.run())
    yield [made]
    made.stop()
    await asyncio.wait_for(running, 20)
    await client.aclose()
