"""The dashboard is what the specification asks for: ten panels, one per core metric, refreshed and
coloured.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.dashboards import (
    Dashboard,
    DashboardPolicy,
    dashboard_findings,
    load_dashboard,
    parse_panel_query,
)
from readiness.root import Root
from readiness.rules import PromqlError, RuleSet, load_rules, parse_query

# Spec E1.
CORE_METRICS = (
    "rag_queue_length",
    "rag_job_duration_ms",
    "sse_connections_open",
    "sse_reconnect_count",
    "commit_positive_total",
    "memory_token_used_pct",
    "ui_error_panel_shown",
    "dlq_entries_total",
    "worker_active_jobs",
    "embedding_api_latency_ms",
)
# Spec E3 (30 s), E5 (the last hour), E4 (colours), E6 (Grafana 9.0 writes schema 36 and migrates what is older).
POLICY = DashboardPolicy(
    refresh="30s",
    time_from="now-1h",
    core_metrics=CORE_METRICS,
    threshold_colors=("green", "yellow", "red"),
    newest_schema_version=36,
)

# A panel of a metric that one of these alerts watches draws just what the alert compares, so that red means fired.
DRAWN_ALERTS = (
    "DLQEntriesIncreasing",
    "HighMemoryTokenUsage",
    "RAGQueueLengthHigh",
    "SlowRAGProcessing",
    "SSEReconnectionSpike",
)
# What each API process counts for itself; all else is read from the queue, the same at every process of it.
OWN_OF_A_PROCESS = {
    "sse_connections_open",
    "sse_reconnect_count",
    "ui_error_panel_shown",
    "rag_http_requests_total",
}
BUILD_SECONDS = 30.0


@pytest.mark.claim("E2.panels")
def test_panels(root: Root, evidence: ClaimEvidence) -> None:
    """Ten panels, one per core metric, with units, words, the alerts' thresholds, and a data source
    variable.
    """
    dashboard = load_dashboard(root.path / "dashboards" / "ragworker.json")
    alerts = load_rules(root.path / "rules")
    findings = dashboard_findings(dashboard, policy=POLICY, alerts=alerts)
    wrong = [*unassigned(dashboard), *undrawn(dashboard, alerts), *(str(finding) for finding in findings)]
    wrong += [*misjoined(dashboard), *stale(dashboard.file)]
    n = max(len(CORE_METRICS), len(dashboard.panels), len(wrong))
    evidence.cases(n, len(wrong), wrong, "panels against the specification and the alerts' thresholds")
    evidence.facts(
        panels=[panel.title for panel in dashboard.panels], schema_version=dashboard.schema_version
    )
    assert not wrong, wrong[0]


def unassigned(dashboard: Dashboard) -> list[str]:
    """Where it is not one panel per core metric, ten in all; one sentence each."""
    wrong: list[str] = []
    if len(dashboard.panels) != len(CORE_METRICS):
        wrong.append(f"expected {len(CORE_METRICS)} panels, got {len(dashboard.panels)}")
    main = [_first_metrics(panel.queries[0].expr if panel.queries else "") for panel in dashboard.panels]
    for metric in CORE_METRICS:
        # What a panel shows is its first query; the others set it in relation.
        count = sum(1 for names in main if names & {metric, f"{metric}_bucket"})
        if count != 1:
            wrong.append(f"{metric}: expected one panel that shows it, got {count}")
    return wrong


def undrawn(dashboard: Dashboard, rules: RuleSet) -> list[str]:
    """Alerts whose left side no panel draws; one sentence each."""
    drawn: set[str] = set()
    for panel in dashboard.panels:
        for query in panel.queries[:1]:
            try:
                drawn.add(parse_panel_query(query.expr).canonical)
            except PromqlError:
                continue  # said by dashboard_findings, with the reason
    wrong: list[str] = []
    for alert in rules.alerts:
        if alert.name in DRAWN_ALERTS:
            comparison = parse_query(alert.expr).comparison
            if comparison is None or comparison.left not in drawn:
                wrong.append(f"{alert.name}: expected a panel that draws what it compares, got none")
    return wrong


def misjoined(dashboard: Dashboard) -> list[str]:
    """Panels that add up what every API process says of the same queue, or pick one of what each has of its own."""
    wrong: list[str] = []
    for panel in dashboard.panels:
        for query in panel.queries:
            try:
                parsed = parse_panel_query(query.expr)
            except PromqlError:
                continue  # said by dashboard_findings, with the reason
            own = parsed.metrics & OWN_OF_A_PROCESS
            wanted, unwanted = ("sum", {"max", "min", "avg"}) if own else ("max", {"min", "avg"})
            if parsed.metrics and (wanted not in parsed.functions or parsed.functions & unwanted):
                wrong.append(f"{panel.label} query {query.ref}: expected replicas joined by {wanted}")
    return wrong


def stale(file: Path) -> list[str]:
    """Whether the JSON is not what its source beside it builds; nothing where there is no source."""
    source = file.with_name("build.py")
    if not source.is_file():
        return []
    command = [sys.executable, "-I", str(source), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    return [] if done.returncode == 0 else [f"{file.name} is not what build.py builds: {done.stdout.strip()}"]


def _first_metrics(expr: str) -> frozenset[str]:
    try:
        return parse_panel_query(expr).metrics
    except PromqlError:
        return frozenset()  # said by dashboard_findings, with the reason
