"""Lanes that several checks share, because starting an API and a worker costs more than most checks take.

A fixture whose name ends in ``_lane`` is such a lane: the plugin keeps all tests that use it in one
process, so that it exists once. Fixtures that every check needs come from readiness.pytest_plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from readiness.pytest_plugin import lane_factory
from readiness.targets.base import Lane, Target

# Compresses the waits of 1 -> 5 -> 25 -> 125 s fifty times; the table at its real base is compared as data.
RETRY_BASE_SECONDS = 0.02


@pytest.fixture(scope="session")
def retry_lane(target: Target) -> Iterator[Lane]:
    """One worker, waits compressed, batches of 64 (the larger supported operating point)."""
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)(
            "retry", RAG_RETRY_BASE_SECONDS=RETRY_BASE_SECONDS, RAG_EMBEDDING_BATCH_SIZE=64
        )


@pytest.fixture(scope="session")
def pressure_lane(target: Target) -> Iterator[Lane]:
    """One worker with default limits, whose embedding API answers slowly."""
    with ExitStack() as cleanup:
        lane = lane_factory(cleanup, target)("pressure")
        lane.script_embedding([], latency_ms=120)
        yield lane
