"""Which names a /metrics text offers to PromQL. A series that may come later counts by its TYPE line.

Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}

SCRAPE_METRICS = frozenset(
    {"up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling"}
    | {"scrape_series_added", "ALERTS", "ALERTS_FOR_STATE"}
)
"""What Prometheus itself adds to every target or rule; always there to be selected."""


def exposed_names(text: str) -> frozenset[str]:
    """Every metric name that a selector can match once this text is scraped, histogram suffixes written out."""
    names: set[str] = set()
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ["#", "TYPE"] and len(words) >= 4:
            names.update(words[2] + suffix for suffix in _SUFFIXES.get(words[3], ("",)))
        elif words and not line.startswith("#") and (name := _NAME.match(line)) is not None:
            names.add(name.group())
    return frozenset(names)
