"""A real Redis and a real API process for these tests; both are started once and end with the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_process import SECRET, Api, RedisServer, redis_binary, running_api


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests that only need one to be there."""
    server = RedisServer(redis_binary(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def api(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API in durable mode, without authentication; tests leave the flag as they found it."""
    with running_api(
        tmp_path_factory.mktemp("api"), redis_url=redis_server.url, RAG_MAX_UPLOAD_BYTES="100000"
    ) as it:
        yield it


@pytest.fixture(scope="session")
def guarded_api(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API with authentication."""
    with running_api(
        tmp_path_factory.mktemp("guarded"),
        redis_url=redis_server.url,
        RAG_JWT_SECRET=SECRET,
        RAG_JWT_AUDIENCE="rag",
        RAG_JWT_ISSUER="tests",
    ) as it:
        yield it
