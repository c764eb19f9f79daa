"""Alert rules: read them (load), find defects (static, live), compare with what was agreed (agreement), read routes
(routing), ask promtool and amtool (tools), see alerts delivered (delivery).

Causing the faults that fire them is left to checks and drills.
"""

from readiness.rules.agreement import Agreed, differences, load_agreement
from readiness.rules.delivery import MAIL, Delivery, Expected, Posted, Wires, deliver
from readiness.rules.exposition import exposed_names
from readiness.rules.finding import Finding
from readiness.rules.live import Labelled, dead_selectors
from readiness.rules.load import Alert, Record, RuleSet, load_rules
from readiness.rules.promql import Comparison, PromqlError, Query, duration_seconds, parse_query
from readiness.rules.routing import Routing, Told, load_routing
from readiness.rules.static import static_findings
from readiness.rules.tools import (
    FileResult,
    ToolMissing,
    amtool_check,
    find_tool,
    promtool_check,
    promtool_test,
)
from readiness.rules.unit_tests import AlertCoverage, alert_coverage, unit_test_files

__all__ = [
    "MAIL",
    "Agreed",
    "Alert",
    "AlertCoverage",
    "Comparison",
    "Delivery",
    "Expected",
    "FileResult",
    "Finding",
    "Labelled",
    "Posted",
    "PromqlError",
    "Query",
    "Record",
    "Routing",
    "RuleSet",
    "Told",
    "ToolMissing",
    "Wires",
    "alert_coverage",
    "amtool_check",
    "dead_selectors",
    "deliver",
    "differences",
    "duration_seconds",
    "exposed_names",
    "find_tool",
    "load_agreement",
    "load_routing",
    "load_rules",
    "parse_query",
    "promtool_check",
    "promtool_test",
    "static_findings",
    "unit_test_files",
]
