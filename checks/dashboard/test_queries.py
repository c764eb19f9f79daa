"""Every query of the dashboard parses, and selects only what the running system exposes."""

from __future__ import annotations

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.dashboards import dashboard_findings, load_dashboard, parse_panel_query
from readiness.root import Root
from readiness.rules import exposed_names
from readiness.targets.base import Lane

QUERY_FINDINGS = ("dashboards/expr-syntax", "dashboards/metric-not-exposed", "dashboards/no-query")


@pytest.mark.claim("E6.queries")
def test_queries(root: Root, main_lane: Lane, evidence: ClaimEvidence) -> None:
    """No panel stays empty for a typing error: each query is PromQL over metrics of the live /metrics text."""
    dashboard = load_dashboard(root.path / "dashboards" / "ragworker.json")
    exposed = exposed_names(main_lane.metrics())
    findings = dashboard_findings(dashboard, exposed_metrics=exposed)
    wrong = [str(finding) for finding in findings if finding.id in QUERY_FINDINGS]
    queries = [query.expr for panel in dashboard.panels for query in panel.queries]
    evidence.cases(
        max(len(queries), len(wrong)), len(wrong), wrong, "panel queries against the live /metrics"
    )
    if not wrong:
        selected = {metric for query in queries for metric in parse_panel_query(query).metrics}
        evidence.facts(queries=len(queries), metrics_selected=sorted(selected), metrics_exposed=len(exposed))
    assert not wrong, wrong[0]
