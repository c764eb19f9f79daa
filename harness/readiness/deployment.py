"""The deployment settings of the report: as the specification requires them, beside what the run used.

Values only; what the run used is handed in. Requirements are those of the specification (I1-I4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from readiness.judge.model import Part, PartState, Setting

NOT_TOLD: Final = "-"  # the system did not say, or the load step did not run

# Name and what the specification requires of it (A1, B1-B3, C2, G5, I1).
VARIABLES: Final[tuple[tuple[str, str], ...]] = (
    ("USE_DURABLE_WORKER", "true for durable jobs (default false)"),
    ("RAG_EMBEDDING_BATCH_SIZE", "32 or 64"),
    ("RAG_EMBEDDING_RATE_LIMIT", "1000 a minute"),
    ("RAG_EMBEDDING_CONCURRENCY", "3"),
    ("RAG_MAX_RETRIES", "4"),
    ("PROMETHEUS_ENABLED", "true"),
    ("GRAFANA_DASHBOARD_ENABLED", "true"),
    ("ALERTMANAGER_WEBHOOK_URL", "set"),
    ("DISTRIBUTED_TRACING_ENABLED", "true"),
    ("LOG_FORMAT", "json"),
    ("LOG_LEVEL", "INFO"),
)

# Part of the stack and what the specification requires of it (I3, I4).
PARTS: Final[tuple[tuple[str, str, str], ...]] = (
    ("redis", "Redis", "3 replicas, persistence, authentication and TLS"),
    ("prometheus", "Prometheus", "2.40 or newer"),
    ("alertmanager", "Alertmanager", "0.25 or newer"),
    ("grafana", "Grafana", "9.0 or newer"),
)

KUBERNETES: Final = Setting(
    name="Kubernetes resources",
    used="not deployed: processes on one machine",
    required="requests 500m CPU / 1 Gi, limits 2000m / 4 Gi",
)


def deployment_settings(used: Mapping[str, str], parts: tuple[Part, ...]) -> tuple[Setting, ...]:
    """Return one row a setting. ``used``: what the system said is in force; ``parts``: the run's stack."""
    known = {part.name: part for part in parts}
    variables = [
        Setting(name=name, used=used.get(name, NOT_TOLD), required=needed) for name, needed in VARIABLES
    ]
    stack = [
        Setting(name=title, used=_words(known.get(name)), required=needed) for name, title, needed in PARTS
    ]
    return (*variables, *stack, KUBERNETES)


def _words(part: Part | None) -> str:
    if part is None or part.state == PartState.MISSING:
        return "none"
    single = ", one process, no TLS" if part.name == "redis" else ""
    return f"{part.version or part.provider} ({PartState(part.state).value}){single}"
