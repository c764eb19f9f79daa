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
        # After each crash of Redis workers assume that a part of their rate limit (all of it, when its window is short)
        # was used in what Redis lost. These checks take Redis away five times in seconds and ask about documents, not
        # about the rate: with a window of a second nobody waits longer than that.
        limit = {"RAG_EMBEDDING_RATE_LIMIT": 2_000, "RAG_EMBEDDING_RATE_WINDOW_SECONDS": 1}
        make = lane_factory(cleanup, target)
        lane = make("outage", workers=WORKERS, redis_url=server.url, **limit)
        yield Outage(lane=lane, redis=server)
