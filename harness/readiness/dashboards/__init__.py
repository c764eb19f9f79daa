"""Grafana dashboards: read them (load), make their queries plain (queries), find defects (static).

Whether a panel has data in a running system is left to the checks.
"""

from readiness.dashboards.load import (
    Dashboard,
    Grid,
    Panel,
    PanelQuery,
    ThresholdStep,
    Variable,
    load_dashboard,
)
from readiness.dashboards.queries import parse_panel_query, substitute
from readiness.dashboards.static import DashboardPolicy, dashboard_findings

__all__ = [
    "Dashboard",
    "DashboardPolicy",
    "Grid",
    "Panel",
    "PanelQuery",
    "ThresholdStep",
    "Variable",
    "dashboard_findings",
    "load_dashboard",
    "parse_panel_query",
    "substitute",
]
