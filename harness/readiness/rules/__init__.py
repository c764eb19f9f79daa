"""Alert rules: read them (load), find defects (static), ask promtool and amtool (tools).

Firing them in the running system is left to the checks, mutating and replaying them to later modules of this package.
"""

from readiness.rules.exposition import exposed_names
from readiness.rules.finding import Finding
from readiness.rules.load import Alert, Record, RuleSet, load_rules
from readiness.rules.promql import Comparison, PromqlError, Query, duration_seconds, parse_query
from readiness.rules.static import static_findings
from readiness.rules.tools import (
    FileResult,
    ToolMissing,
    amtool_check,
    find_tool,
    promtool_check,
    promtool_test,
)
from readiness.rules.unit_tests import AlertCoverage, tested_alerts, unit_test_files

__all__ = [
    "Alert",
    "AlertCoverage",
    "Comparison",
    "FileResult",
    "Finding",
    "PromqlError",
    "Query",
    "Record",
    "RuleSet",
    "ToolMissing",
    "amtool_check",
    "duration_seconds",
    "exposed_names",
    "find_tool",
    "load_rules",
    "parse_query",
    "promtool_check",
    "promtool_test",
    "static_findings",
    "tested_alerts",
    "unit_test_files",
]
