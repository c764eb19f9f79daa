"""What is measured: one literal table, a row a queue and setting. To add a peer: a file in peers/ and a row here.

Tuned settings and their source: the README. Knows nothing of how a variant is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Delivery(StrEnum):
    """What happens to a job whose worker dies."""

    AT_LEAST_ONCE = "at least once"
    AT_MOST_ONCE = "at most once"
    NONE = ""


class Scenario(StrEnum):
    """What is done with a variant, in the order of a round."""

    RAW = "raw"
    SUBMIT = "submit"
    DRAIN_1 = "drain1"
    DRAIN_2 = "drain2"
    LATENCY = "latency"
    IDLE = "idle"
    CRASH = "crash"


OURS = "ours"
OURS_LEAN = "ours-lean"
OURS_REAL = "ours-real"
RAW = "raw"

QUEUE_SCENARIOS = (Scenario.SUBMIT, Scenario.DRAIN_1, Scenario.DRAIN_2, Scenario.LATENCY, Scenario.CRASH)


@dataclass(frozen=True, slots=True)
class Variant:
    """One row: a queue with its settings."""

    name: str
    module: str
    """Below bench.peers, or dotted; empty for what is not run as a peer."""
    environment: str
    """Which bench/.venv-<environment> has it; empty is the repository's own."""
    delivery: Delivery
    concurrency: int = 1
    """Jobs at once, the best of a sweep."""
    share: float = 1.0
    """Jobs of a drain, as a share of --jobs: slow queues get fewer, fast ones more. Rates do not depend on it."""
    asyncio: bool = False
    """Its producer is asyncio: 50 submits at once are measured."""
    bulk: int = 0
    """Jobs in one call of its bulk submit, the best of a sweep; 0: it has none."""
    crash: str = ""
    """Why its crash is not run: what was measured before, beyond 20 s. Empty: it is run."""
    trickle: bool = False
    """It recovers only while new jobs come in: the crash scenario keeps sending some."""
    scenarios: tuple[Scenario, ...] = QUEUE_SCENARIOS
    environ: Mapping[str, str] = field(default_factory=dict)
    """Settings of ours that differ from the default."""
    label: str = ""

    @property
    def text(self) -> str:
        """Its name in the table."""
        return self.label or self.name


_LEAST, _MOST = Delivery.AT_LEAST_ONCE, Delivery.AT_MOST_ONCE

VARIANTS: tuple[Variant, ...] = (
    Variant(RAW, "", "", Delivery.NONE, scenarios=(Scenario.RAW,), label="redis.asyncio alone"),
    Variant(
        OURS,
        "bench.ours",
        "",
        _LEAST,
        concurrency=250,
        share=10,
        asyncio=True,
        bulk=100,
        label="ragworker",
    ),
    Variant(
        OURS_LEAN,
        "bench.ours",
        "",
        _LEAST,
        concurrency=250,
        share=10,
        asyncio=True,
        bulk=100,
        environ={"RAG_JOB_HISTORY_SECONDS": "0"},
        label="ragworker, no record of done jobs",
    ),
    Variant(OURS_REAL, "", "", _LEAST, scenarios=(Scenario.IDLE,), label="ragworker worker (the real one)"),
    Variant("taskiq", "taskiq", "taskiq", _LEAST, 50, asyncio=True, trickle=True, label="taskiq stream"),
    Variant("dramatiq", "dramatiq", "most", _LEAST, 20, label="Dramatiq, 20 threads"),
    Variant("saq", "saq", "most", _LEAST, 50, asyncio=True, crash="46.9 s", label="SAQ, 50 at once"),
    Variant("arq", "arq", "arq", _LEAST, 20, 0.5, asyncio=True, label="arq, poll 10 ms"),
    Variant("streaq", "streaq", "most", _LEAST, 20, 0.5, asyncio=True, bulk=500, label="streaq, 20 at once"),
    Variant("celery", "celery", "most", _LEAST, 1, 0.5, label="Celery acks_late, prefetch 4"),
    Variant("rq", "rq", "most", _LEAST, 1, 0.1, bulk=500, crash="62.3 s", label="RQ SimpleWorker"),
    Variant(
        "huey", "huey", "most", _MOST, 2, crash="jobs in hand are lost by design", label="Huey, 2 threads"
    ),
)

BY_NAME: Mapping[str, Variant] = {variant.name: variant for variant in VARIANTS}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "ours": (OURS, OURS_LEAN, OURS_REAL, RAW),
    "peers": tuple(variant.name for variant in VARIANTS if variant.environment),
}
