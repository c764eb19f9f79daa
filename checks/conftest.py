"""Lanes that several checks share, because starting an API and a worker costs more than most checks take.

A fixture whose name ends in ``_lane`` is such a lane: the plugin keeps all tests that use it in one
process, so that it exists once. Fixtures that every check needs come from readiness.pytest_plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from readiness.checking import fates as fate
from readiness.checking.watched import Watched, watch
from readiness.pytest_plugin import lane_factory
from readiness.stack.base import StackInfo
from readiness.targets.base import Lane, Target

# Enough for all that the checks of one lane ask at once: they are not about the rate.
RATE_LIMIT = 100_000
LEASE_SECONDS = 1.5
# Compresses the waits of 1 -> 5 -> 25 -> 125 s fifty times; the table at its real base is compared as data.
RETRY_BASE_SECONDS = 0.02
UPLOAD_BYTES = 2_000_000


@pytest.fixture(scope="session")
def retry_lane(target: Target) -> Iterator[Lane]:
    """One worker, waits compressed, batches of 64 (the larger supported operating point)."""
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)(
            "retry",
            RAG_RETRY_BASE_SECONDS=RETRY_BASE_SECONDS,
            RAG_EMBEDDING_BATCH_SIZE=64,
            # After some answers 429 the limiter admits a small share of its limit; these checks are not about that.
            RAG_EMBEDDING_RATE_LIMIT=RATE_LIMIT,
            RAG_MAX_UPLOAD_BYTES=UPLOAD_BYTES,
        )


@pytest.fixture(scope="session")
def lease_lane(target: Target) -> Iterator[Lane]:
    """Two workers of two slots each that ask the embedding API for one chunk at a time, with a short lease, a short
    deadline, more retries than the table has rows, at their real base, and two deliveries.
    """
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)(
            "lease",
            workers=2,
            RAG_LEASE_SECONDS=LEASE_SECONDS,
            RAG_WORKER_CONCURRENCY=2,
            RAG_EMBEDDING_BATCH_SIZE=1,
            RAG_EMBEDDING_CONCURRENCY=1,
            RAG_EMBEDDING_TIMEOUT_SECONDS=2,
            RAG_EMBEDDING_RATE_LIMIT=RATE_LIMIT,
            RAG_MAX_RETRIES=6,
            RAG_MAX_DELIVERIES=2,
        )


@pytest.fixture(scope="session")
def pressure_lane(target: Target) -> Iterator[Lane]:
    """One worker with default limits, whose embedding API answers slowly. Its allocator gives back at once what is
    free: its resident memory is what it holds, not what it once held.
    """
    with ExitStack() as cleanup:
        # glibc keeps freed memory, in a heap for each thread, the more the larger the pieces were; see mallopt(3).
        lane = lane_factory(cleanup, target)(
            "pressure",
            MALLOC_ARENA_MAX=1,
            MALLOC_TRIM_THRESHOLD_=131_072,
            MALLOC_MMAP_THRESHOLD_=131_072,
        )
        lane.script_embedding([], latency_ms=120)
        yield lane


@pytest.fixture(scope="session")
def watched_lane(target: Target, stack: StackInfo) -> Iterator[Lane]:
    """API and one worker that Prometheus scrapes, and that nobody else gives work to."""
    if stack.prometheus_url is None:
        pytest.skip("needs prometheus on this machine: it scrapes for real; `make services` installs it")
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)("watched")


@pytest.fixture(scope="session")
def watched(watched_lane: Lane, stack: StackInfo, seed: int) -> Watched:
    """That instance, idle and then at known work, with what was scraped of it."""
    assert stack.prometheus_url is not None
    return watch(watched_lane, stack.prometheus_url, seed=seed)


@pytest.fixture(scope="session")
def fates_lane(target: Target) -> Iterator[Lane]:
    """API and one worker of three slots, on which the scenario of `readiness.checking.fates` is played."""
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)("fates", **fate.SETTINGS)


@pytest.fixture(scope="session")
def fates(fates_lane: Lane, seed: int) -> fate.Fates:
    """Jobs of every fate and what was seen of them."""
    return fate.play(fates_lane, seed=seed)
