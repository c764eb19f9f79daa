"""With a real Prometheus every panel draws something, and what it draws is what happened: compared with the ledger."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise

import pytest

from readiness.checking.exposition import parse
from readiness.checking.prometheus import Prometheus
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.checking.watched import Watched
from readiness.dashboards import load_dashboard, substitute
from readiness.root import Root
from readiness.rules.rewrite import narrowed

DATA_SECONDS = 20.0
SETTLE_SECONDS = 5.0
RATE_INTERVAL = "10s"  # four scrapes and more at the run's scrape interval of 1 s
QUANTILE = 0.95
# increase() and rate() extrapolate to the borders of their window, which a young series does not fill.
EXTRAPOLATION = 3.0


@pytest.mark.claim("E2.data")
def test_panels_have_data(root: Root, watched: Watched, evidence: ClaimEvidence) -> None:
    """Given work between two scrapes, each query of each panel has at least one finite point of this instance."""
    queries = panel_queries(root, watched)
    counts = dict.fromkeys(queries, 0)
    with Prometheus(watched.prometheus_url) as prometheus:

        def all_have_data() -> bool:
            for name, query in queries.items():
                counts[name] = counts[name] or points(prometheus, query, since=watched.since)
            return all(counts.values())

        with suppress(WaitedTooLong):  # what is empty is judged below, by name
            wait_until(all_have_data, seconds=DATA_SECONDS, what="data in every panel", every_seconds=0.3)
    empty = [f"{name}: expected data, got none from {queries[name]}" for name, n in counts.items() if not n]
    evidence.cases(len(queries), len(empty), empty, "panel queries with data in this run")
    evidence.facts(points=counts, documents=len(watched.statuses), lane=watched.lane.name)
    assert not empty, empty[0]


@pytest.mark.claim("E2.values")
def test_panels_show_what_happened(root: Root, watched: Watched, evidence: ClaimEvidence) -> None:
    """After known work each panel's first query gives what jobs, SQL and the embedding API's log say."""
    wanted = bounds(watched)
    firsts = {name: query for name, query in panel_queries(root, watched).items() if name.endswith("[A]")}
    shown_by = {metric: next((name for name in firsts if metric in firsts[name]), "") for metric in wanted}
    shown: dict[str, float] = {}
    with Prometheus(watched.prometheus_url) as prometheus:

        def all_fit() -> bool:
            for metric, name in shown_by.items():
                if name:
                    shown[metric] = highest(prometheus, firsts[name], since=watched.since)
            return all(low <= shown.get(metric, math.nan) <= high for metric, (low, high) in wanted.items())

        with suppress(WaitedTooLong):  # the last scrape is between two points of the curve for a moment
            wait_until(all_fit, seconds=SETTLE_SECONDS, what="the last points", every_seconds=0.3)
    wrong = [f"{metric}: no panel shows it first" for metric, name in shown_by.items() if not name]
    wrong += [
        f"{shown_by[metric]}: expected {low:g} to {high:g} at its highest, got {shown[metric]:g}"
        for metric, (low, high) in wanted.items()
        if metric in shown and not low <= shown[metric] <= high
    ]
    evidence.cases(
        len(wanted), len(wrong), wrong, "panels compared with jobs, SQL and the embedding API's true log"
    )
    evidence.facts(highest={metric: str(value) for metric, value in shown.items()})
    assert not wrong, wrong[0]


def highest(prometheus: Prometheus, query: str, *, since: float) -> float:
    """The highest finite point since then; NaN when there is none."""
    curves = prometheus.between(query, since, step=0.5)
    return max(
        (value for curve in curves for _, value in curve.points if math.isfinite(value)), default=math.nan
    )


def bounds(watched: Watched) -> dict[str, tuple[float, float]]:
    """Between which values the highest point of a panel lies, by the metric that it shows first."""
    jobs = len(watched.statuses)
    latencies = [1000 * (request.ended - request.at) for request in watched.requests]
    return {
        "rag_job_duration_ms": bucket(watched, "rag_job_duration_ms", watched.durations_ms),
        # The worker's own clock runs a little longer than the API's: from its request to the answer's last byte.
        "embedding_api_latency_ms": (
            bucket(watched, "embedding_api_latency_ms", latencies)[0],
            math.inf,
        ),
        "commit_positive_total": (0.999, 1.0),
        "dlq_entries_total": (0.0, 0.0),
        "rag_queue_length": (0.0, float(jobs)),
        "worker_active_jobs": (0.0, float(jobs)),
        "memory_token_used_pct": (0.0, 100.0),
        "sse_connections_open": (0.0, 0.0),
        "sse_reconnect_count": (0.0, 0.0),
        "ui_error_panel_shown": (1.0, EXTRAPOLATION),
    }


def bucket(watched: Watched, metric: str, values: Sequence[float]) -> tuple[float, float]:
    """The bucket that holds the P95 of the true values: nothing finer can be read from a histogram."""
    borders = sorted(
        float(one.labels["le"])
        for one in parse(watched.lane.metrics()).series
        if one.name == f"{metric}_bucket"
    )
    exact = sorted(values)[math.ceil(QUANTILE * len(values)) - 1]
    edges = list(pairwise([0.0, *borders]))
    return edges[bisect_left(borders, exact)]


def panel_queries(root: Root, watched: Watched) -> dict[str, str]:
    """The queries of all panels, about this instance alone, by panel and refId."""

    def each() -> Iterator[tuple[str, str]]:
        for panel in load_dashboard(root.path / "dashboards" / "ragworker.json").panels:
            for query in panel.queries:
                plain = substitute(query.expr, values={"__rate_interval": RATE_INTERVAL})
                yield f"{panel.title} [{query.ref}]", narrowed(plain, watched.matchers)

    return dict(each())


def points(prometheus: Prometheus, query: str, *, since: float) -> int:
    """How many finite points the query draws from `since` (seconds of the epoch) until now."""
    return sum(curve.finite for curve in prometheus.between(query, since))
