"""Lanes that several checks share, because starting an API and a worker costs more than most checks take.

Each shared lane belongs to one xdist group; a test that uses one carries ``pytestmark =
pytest.mark.xdist_group(...)`` with the group's name, so that the lane exists once. Fixtures that every
check needs come from readiness.pytest_plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from readiness.pytest_plugin import lane_factory
from readiness.stack.base import StackInfo
from readiness.stack.redis import RedisServer, start_private_redis
from readiness.targets.base import Lane, Target

# Compresses the waits of 1 -> 5 -> 25 -> 125 s fifty times; the table at its real base is compared as data.
RETRY_BASE_SECONDS = 0.02


@pytest.fixture(scope="session")
def retry_lane(target: Target) -> Iterator[Lane]:
    """xdist group ``retry``: one worker, waits compressed, batches of 64 (the larger supported operating
    point).
    """
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)(
            "retry", RAG_RETRY_BASE_SECONDS=RETRY_BASE_SECONDS, RAG_EMBEDDING_BATCH_SIZE=64
        )


@pytest.fixture(scope="session")
def pressure_lane(target: Target) -> Iterator[Lane]:
    """xdist group ``pressure``: one worker with default limits, whose embedding API answers slowly."""
    with ExitStack() as cleanup:
        lane = lane_factory(cleanup, target)("pressure")
        lane.script_embedding([], latency_ms=120)
        yield lane


@pytest.fixture
def private_redis(run_dir: Path, stack: StackInfo) -> Iterator[Callable[[str], RedisServer]]:
    """Factory of Redis servers that belong to one check, to be stopped and killed; skipped on the
    simulation.
    """
    if stack.redis_provider == "fakeredis":
        pytest.skip(
            "needs a real redis-server: fakeredis has no disk and no crash; `apt install redis-server`"
        )
    wanted = "auto" if stack.redis_provider == "external" else stack.redis_provider
    with ExitStack() as cleanup:

        def make(name: str) -> RedisServer:
            server = start_private_redis(run_dir, name, wanted=wanted)
            cleanup.callback(server.stop)
            return server

        yield make
