"""The 12 alert rules are there, the seven that the specification gives say exactly what it says, and none
is blind.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.root import Root
from readiness.rules import Alert, RuleSet, exposed_names, load_rules, parse_query, static_findings
from readiness.targets.base import Lane

ALERTS_COUNT = 12  # spec F1


@dataclass(frozen=True, slots=True)
class Given:
    """One row of the specification: fires above `above`, counted over `window_seconds` (0: no window), for
    a while.
    """

    metric: str
    above: float
    for_seconds: float
    window_seconds: float = 0.0
    severity: str = ""


# Spec F2-F8. Where it names a window ("in 10 min") every range of the expression must be that.
GIVEN = {
    "DLQEntriesIncreasing": Given("dlq_entries_total", 5, 120, 600, "critical"),
    "HighRAGFailureRate": Given("rag_jobs_finished_total", 0.03, 300, severity="critical"),
    "RateLimitingSpike": Given("rag_rate_limited_total", 20, 60, 300, "critical"),
    "HighMemoryTokenUsage": Given("memory_token_used_pct", 35, 300, severity="critical"),
    "RAGQueueLengthHigh": Given("rag_queue_length", 50, 300),
    "SlowRAGProcessing": Given("rag_job_duration_ms_bucket", 60_000, 600),
    "SSEReconnectionSpike": Given("sse_reconnect_count", 100, 120, 600),
}


@pytest.mark.claim("F1.rules")
def test_rules_are_sound(root: Root, main_lane: Lane, evidence: ClaimEvidence) -> None:
    """12 alerts, each labelled, explained, with runbook and unit test, on metrics that the running system
    exposes.
    """
    rules = load_rules(root.path / "rules")
    exposed = exposed_names(main_lane.metrics())
    findings = static_findings(rules, exposed_metrics=exposed, runbooks_dir=root.path / "rules" / "runbooks")
    wrong = [*differences(rules), *(str(finding) for finding in findings)]
    names = {alert.name for alert in rules.alerts}
    # A case is one alert that must be there, sound; anything wrong beside them is a failure as well.
    n = max(ALERTS_COUNT, len(names), len(wrong))
    evidence.cases(
        n, len(wrong), wrong, "alert rules against the specification, the metrics and the runbooks"
    )
    evidence.facts(
        alerts=sorted(names), metrics_exposed=len(exposed), files=[file.name for file in rules.files]
    )
    assert not wrong, wrong[0]


def differences(rules: RuleSet) -> list[str]:
    """Where the rules are not what the specification gives; one sentence each."""
    alerts = {alert.name: alert for alert in rules.alerts}
    wrong = [] if len(alerts) == ALERTS_COUNT else [f"expected {ALERTS_COUNT} alerts, got {len(alerts)}"]
    for name, given in GIVEN.items():
        alert = alerts.get(name)
        wrong += (
            [f"{name}: expected an alert of this name, got none"] if alert is None else _against(alert, given)
        )
    return wrong


def _against(alert: Alert, given: Given) -> list[str]:
    query = parse_query(alert.expr)
    got = query.comparison
    wrong: list[str] = []
    if got is None or (got.operator, got.threshold) != (">", given.above):
        shown = f"{got.operator} {got.threshold:g}" if got else "no threshold"
        wrong.append(f"{alert.name}: expected > {given.above:g}, got {shown}")
    if alert.for_seconds != given.for_seconds:
        wrong.append(f"{alert.name}: expected for {given.for_seconds:g} s, got {alert.for_seconds:g} s")
    if given.window_seconds and set(query.windows_seconds) != {given.window_seconds}:
        wrong.append(
            f"{alert.name}: expected windows of {given.window_seconds:g} s, got {query.windows_seconds}"
        )
    if given.metric not in query.metrics:
        wrong.append(f"{alert.name}: expected it to watch {given.metric}, got {sorted(query.metrics)}")
    if given.severity and alert.labels.get("severity") != given.severity:
        wrong.append(f"{alert.name}: expected severity {given.severity}, got {alert.labels.get('severity')}")
    return wrong
