"""The names of the stack's parts as people write them."""

from __future__ import annotations

TITLES = {
    "redis": "Redis",
    "sql": "SQL",
    "prometheus": "Prometheus",
    "promtool": "promtool",
    "alertmanager": "Alertmanager",
    "amtool": "amtool",
    "grafana": "Grafana",
    "embedding": "embedding API",
}


def part_title(name: str) -> str:
    """Return a part's name for a sentence; an unknown one stands for itself."""
    return TITLES.get(name, name)
