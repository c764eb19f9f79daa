"""Instances with small limits, so that a limit is met within seconds: the algorithm is that of production.

A window of a minute is compressed forty times, a limit of a thousand fifty times. Each instance has values that
no default has: a number that is written into the system instead of read from its setting is seen.
"""

from __future__ import annotations

import secrets
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
LIMIT = 20
WINDOW_SECONDS = 1.5
ODD_BATCH = 7
ODD_CONCURRENCY = 5
TOKEN_LIMIT = 9000  # five batches of seven full chunks of 234 tokens, and not a sixth
TOKEN_WINDOW_SECONDS = 1.0
PRICE = 3.7  # US dollars per million tokens
TOKEN_BUDGET = 20_000  # of which four full batches are 33 % and five 41 %, more than may be held
USER_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Limited:
    """Two workers that may send 20 requests in any 1.5 s. ``redis`` is their own server, None where there is
    only the simulation.
    """

    lane: Lane
    redis: RedisServer | None


@pytest.fixture(scope="session")
def limited_lane(run_dir: Path, stack: StackInfo, target: Target) -> Iterator[Limited]:
    """API and two workers of one request at a time each, on a Redis of their own that may be killed."""
    with ExitStack() as cleanup:
        server = None
        if stack.redis_provider != "fakeredis":
            wanted = "auto" if stack.redis_provider == "external" else stack.redis_provider
            server = start_private_redis(run_dir, "redis-limited", wanted=wanted)
            cleanup.callback(server.stop)
        lane = lane_factory(cleanup, target)(
            "limited",
            workers=WORKERS,
            redis_url=server.url if server else None,
            RAG_EMBEDDING_RATE_LIMIT=LIMIT,
            RAG_EMBEDDING_RATE_WINDOW_SECONDS=WINDOW_SECONDS,
            RAG_EMBEDDING_BATCH_SIZE=1,
            RAG_EMBEDDING_CONCURRENCY=1,
            RAG_WORKER_CONCURRENCY=8,
        )
        yield Limited(lane=lane, redis=server)


@pytest.fixture(scope="session")
def odd_lane(target: Target) -> Iterator[Lane]:
    """API and one worker: batches of 7, five at a time, 9,000 tokens in any second, many slots."""
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)(
            "odd",
            RAG_EMBEDDING_BATCH_SIZE=ODD_BATCH,
            RAG_EMBEDDING_CONCURRENCY=ODD_CONCURRENCY,
            RAG_EMBEDDING_TOKEN_LIMIT=TOKEN_LIMIT,
            RAG_EMBEDDING_RATE_WINDOW_SECONDS=TOKEN_WINDOW_SECONDS,
            RAG_EMBEDDING_PRICE_PER_MILLION_TOKENS=PRICE,
            RAG_MEMORY_TOKEN_BUDGET=TOKEN_BUDGET,
            RAG_WORKER_CONCURRENCY=24,
            RAG_LEASE_SECONDS=1,
        )


@dataclass(frozen=True, slots=True)
class Tenants:
    """An API without workers that allows each user 20 requests in a minute; ``secret`` signs tokens."""

    lane: Lane
    secret: str


@pytest.fixture(scope="session")
def tenant_lane(target: Target) -> Iterator[Tenants]:
    """The API alone: what it counts is requests."""
    secret = f"tenants-{secrets.token_hex(24)}"
    with ExitStack() as cleanup:
        lane = lane_factory(cleanup, target)(
            "tenants", workers=0, RAG_USER_RATE_LIMIT=USER_LIMIT, RAG_JWT_SECRET=secret
        )
        yield Tenants(lane=lane, secret=secret)
