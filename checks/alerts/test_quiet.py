"""No alert of a system that is idle, and none of one that works as it should: each rule asked of the real Prometheus.

Windows and `for` are sixty times shorter than in the rules, thresholds are those of the rules.
"""

from __future__ import annotations

import pytest

from readiness.checking.prometheus import Prometheus, held_seconds
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.watched import Watched
from readiness.root import Root
from readiness.rules import load_rules
from readiness.rules.rewrite import narrowed

FASTER = 60.0
STEP_SECONDS = 0.5


@pytest.mark.claim("F9.quiet")
def test_no_alert_without_a_fault(root: Root, watched: Watched, evidence: ClaimEvidence) -> None:
    """While idle no rule's condition holds even once; at work none holds as long as its `for`; Prometheus evaluates
    all of them without an error.
    """
    rules = load_rules(root.path / "rules")
    wrong: list[str] = []
    with Prometheus(watched.prometheus_url) as prometheus:
        loaded = {rule["name"]: rule for rule in prometheus.rules()}
        for alert in rules.alerts:
            if loaded.get(alert.name, {}).get("health") not in ("ok", "unknown"):
                why = loaded.get(alert.name, {}).get("lastError", "it was not loaded")
                wrong.append(f"{alert.name}: Prometheus cannot evaluate it: {why}")
            condition = narrowed(alert.expr, watched.matchers, faster=FASTER)
            idle = prometheus.between(condition, watched.since, watched.idle_until, step=STEP_SECONDS)
            if idle:
                wrong.append(f"{alert.name}: fires while the system is idle (value {idle[0].last:g})")
            busy = prometheus.between(condition, watched.idle_until, watched.until, step=STEP_SECONDS)
            held = max((held_seconds(curve, step=STEP_SECONDS) for curve in busy), default=0.0)
            if held >= alert.for_seconds / FASTER:
                wrong.append(f"{alert.name}: fires while the system works as it should, for {held:g} s")
    n = max(2 * len(rules.alerts), len(wrong))
    evidence.cases(n, len(wrong), wrong, "alerts on an idle and on a healthy system")
    evidence.facts(
        idle_seconds=round(watched.idle_until - watched.since, 2),
        busy_seconds=round(watched.until - watched.idle_until, 2),
        faster=FASTER,
    )
    assert not wrong, wrong[0]
