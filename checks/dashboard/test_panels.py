"""The dashboard is what the specification asks for: ten panels, one per core metric, refreshed and
coloured.
"""

from __future__ import annotations

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
from readiness.rules import PromqlError, load_rules

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


@pytest.mark.claim("E2.panels")
def test_panels(root: Root, evidence: ClaimEvidence) -> None:
    """Ten panels, one per core metric, with units, words, the alerts' thresholds, and a data source
    variable.
    """
    dashboard = load_dashboard(root.path / "dashboards" / "ragworker.json")
    alerts = load_rules(root.path / "rules")
    findings = dashboard_findings(dashboard, policy=POLICY, alerts=alerts)
    wrong = [*unassigned(dashboard), *(str(finding) for finding in findings)]
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


def _first_metrics(expr: str) -> frozenset[str]:
    try:
        return parse_panel_query(expr).metrics
    except PromqlError:
        return frozenset()  # said by dashboard_findings, with the reason
