"""Each alert reaches whom it must, where it must, and nobody else: through the real Alertmanager, into the
sinks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.root import Root
from readiness.rules import (
    MAIL,
    Alert,
    Expected,
    Posted,
    RuleSet,
    Wires,
    deliver,
    load_agreement,
    load_rules,
)
from readiness.stack.base import StackInfo

# Spec F11: a team hears of its alerts in its own Slack channel only. #dev-alerts is the founding report's for the rest.
TEAM_CHANNELS = {"ui": "#ui-alerts", "infrastructure": "#infrastructure", "dev": "#dev-alerts"}

# Who must hear of an alert is what was agreed, not what its labels say: a label that is missing is the fault to find.
AGREED = load_agreement(Path(__file__).with_name("agreed.yaml"))

# A critical alert of the UI team: none of the 12 is one, but its route must be right before the first one comes.
UI_CRITICAL = Posted(
    labels={"alertname": "DrillUICritical", "severity": "critical", "team": "ui", "cause": "drill"},
    annotations={"summary": "A drill.", "description": "A drill.", "runbook_url": ""},
)


@pytest.mark.claim("F10.delivery")
def test_alerts_are_delivered(root: Root, stack: StackInfo, evidence: ClaimEvidence) -> None:
    """Critical: e-mail and the team's Slack at once. Warning: the team's Slack only, or silence when
    inhibited.
    """
    if stack.alertmanager_url is None:
        pytest.skip("needs alertmanager on this machine: it routes and delivers; `make services` installs it")
    sinks = [url for url in (stack.mail_sink, stack.slack_sink) if url is not None]
    if not sinks:
        pytest.skip("needs the mail and Slack sinks of the run, which did not start")
    rules = load_rules(root.path / "rules")
    missing = AGREED.keys() - {alert.name for alert in rules.alerts}
    expected = [*told(rules), *muted(rules)]
    with Wires(alertmanager_url=stack.alertmanager_url, sink_urls=sinks) as wires:
        deliveries = deliver(wires, expected)
    wrong = [f"{name}: there is no such rule to be delivered" for name in sorted(missing)]
    wrong += [problem for delivery in deliveries for problem in delivery.problems]
    failures = len(missing) + sum(1 for delivery in deliveries if delivery.problems)
    evidence.cases(
        len(deliveries) + len(missing), failures, wrong, "alerts delivered and resolved, or kept silent"
    )
    latest = {
        delivery.expected.name: max(delivery.seconds.values(), default=0.0) for delivery in deliveries[::-1]
    }
    evidence.facts(delivered_after_seconds={name: round(took, 3) for name, took in latest.items() if took})
    assert not wrong, wrong[0]


def told(rules: RuleSet) -> list[Expected]:
    """Every alert of the rules, and who must hear of it [spec F10, F11]."""
    alerts = {alert.name: alert for alert in rules.alerts}
    expected = [
        _expected(posted(alerts[name]), agreed.team, critical=agreed.critical)
        for name, agreed in AGREED.items()
        if name in alerts
    ]
    return [*expected, _expected(UI_CRITICAL, "ui", critical=True)]


def muted(rules: RuleSet) -> list[Expected]:
    """Every warning beside each alert that must mute it [spec F12]."""
    alerts = {alert.name: alert for alert in rules.alerts}
    return [
        Expected(posted(alerts[name]), frozenset(), muted_by=posted(alerts[source]))
        for name, agreed in AGREED.items()
        for source in sorted(agreed.muted_by)
        if {name, source} <= alerts.keys()
    ]


def posted(alert: Alert) -> Posted:
    """The alert as Prometheus would send it, apart from the figures in its texts."""
    return Posted(labels={"alertname": alert.name, **alert.labels}, annotations=alert.annotations)


def _expected(alert: Posted, team: str, *, critical: bool) -> Expected:
    channel = TEAM_CHANNELS[team]
    return Expected(alert, frozenset({channel, MAIL} if critical else {channel}), at_once=critical)
