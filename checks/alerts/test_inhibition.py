"""Of every two alerts that fire together both are told, but for those agreed to be one cause: asked of the real
Alertmanager, pair by pair.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.root import Root
from readiness.rules import Posted, Wires, load_agreement, load_rules
from readiness.rules.pairs import muted_pairs
from readiness.stack.base import StackInfo

AGREED = load_agreement(Path(__file__).with_name("agreed.yaml"))
ANSWER_SECONDS = 5.0  # for Alertmanager to take 132 alerts on a busy machine


@pytest.mark.claim("F12.inhibition")
def test_only_one_cause_is_muted(root: Root, stack: StackInfo, evidence: ClaimEvidence) -> None:
    """All 66 pairs of the 12 alerts: a warning is quiet beside what was agreed to cause it, everything else is told."""
    if stack.alertmanager_url is None:
        pytest.skip("needs alertmanager on this machine: it mutes alerts; `make services` installs it")
    rules = load_rules(root.path / "rules")
    alerts = [
        Posted(labels={"alertname": alert.name, **alert.labels}, annotations=alert.annotations)
        for alert in rules.alerts
    ]
    names = {alert.name for alert in alerts}
    expected = {(source, name) for name, agreed in AGREED.items() for source in agreed.muted_by}
    with Wires(alertmanager_url=stack.alertmanager_url, sink_urls=[]) as wires:
        muted = muted_pairs(wires, alerts, expected=expected, seconds=ANSWER_SECONDS)
    # A critical alert that nobody hears of is the worst of it.
    quiet = sorted(
        muted - expected, key=lambda pair: (pair[1] in AGREED and not AGREED[pair[1]].critical, pair)
    )
    wrong = [f"{target} is muted by {source}, expected both to be told" for source, target in quiet]
    loud = sorted(expected - muted)
    wrong += [f"{target} is told beside {source}, expected it to be muted" for source, target in loud]
    wrong += [f"{name}: there is no such rule" for name in sorted(AGREED.keys() - names)]
    n = max(len(alerts) * (len(alerts) - 1) // 2, len(wrong))
    evidence.cases(n, len(wrong), wrong, "pairs of alerts that fire together")
    evidence.facts(muted=sorted(" mutes ".join(pair) for pair in muted))
    assert not wrong, wrong[0]
