"""The instance whose Redis is taken away, shared by the checks of its loss and of its return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from readiness.pytest_plugin import lane_factory
from readiness.stack.base import StackInfo
from readiness.stack.redis import RedisServer, start_private_redis
from readiness.targets.base import Lane, Target

WORKERS = 2


@dataclass(frozen=True, slots=True)
class Outage:
    """A lane on a Redis of its own, which may be stopped and killed."""

    lane: Lane
    redis: RedisServer


@pytest.fixture(scope="session")
def outage_lane(run_dir: Path, stack: StackInfo, target: Target) -> Iterator[Outage]:
    """API and two workers on a private Redis; skipped where there is only the simulation."""
    if stack.redis_provider == "fakeredis":
        pytest.skip(
            "needs a real redis-server: fakeredis has no disk and no crash; `apt install redis-server`"
        )
    wanted = "auto" if stack.redis_provider == "external" else stack.redis_provider
    with ExitStack() as cleanup:
        server = start_private_redis(run_dir, "redis-outage", wanted=wanted)
        cleanup.callback(server.stop)
        # After each crash of Redis a worker may assume that part of its rate limit was used in what Redis lost. These
        # checks crash it several times a minute and ask about documents, not about the rate.
        make = lane_factory(cleanup, target)
        lane = make("outage", workers=WORKERS, redis_url=server.url, RAG_EMBEDDING_RATE_LIMIT=100_000)
        yield Outage(lane=lane, redis=server)
