"""The 12 alert rules are there, each says exactly what was agreed, and none is blind."""

from __future__ import annotations

from pathlib import Path

import pytest

from readiness.checking.exposition import Exposition, parse
from readiness.checking.recorder import ClaimEvidence
from readiness.root import Root
from readiness.rules import (
    Labelled,
    PromqlError,
    RuleSet,
    dead_selectors,
    exposed_names,
    load_agreement,
    load_rules,
    parse_query,
    static_findings,
)
from readiness.rules import differences as differences_from
from readiness.targets.base import Lane

AGREED = load_agreement(Path(__file__).with_name("agreed.yaml"))
ALERTS_COUNT = 12  # spec F1
RUNBOOKS = ("dlq-troubleshooting.md", "performance-tuning.md", "worker-recovery.md")  # spec F13
RUNBOOK_CHARACTERS = 200  # less than that under an alert's heading tells nobody what to do
# Where the founding document publishes them.
PUBLISHED_AT = "https://docs.ai-script-generator.com/runbooks/"


@pytest.mark.claim("F1.rules")
def test_rules_are_sound(root: Root, main_lane: Lane, evidence: ClaimEvidence) -> None:
    """12 alerts as agreed, each labelled, explained, with runbook and unit test, on series that the running
    system has.
    """
    rules = load_rules(root.path / "rules")
    main_lane.metrics()  # an answer is counted when it was sent: so the second scrape has one
    text = main_lane.metrics()
    runbooks = root.path / "rules" / "runbooks"
    findings = static_findings(rules, exposed_metrics=exposed_names(text), runbooks_dir=runbooks)
    wrong = [
        *differences(rules),
        *(str(finding) for finding in findings),
        *blind(rules, parse(text)),
        *unexplained(rules, runbooks),
    ]
    names = {alert.name for alert in rules.alerts}
    # A case is one alert that must be there, sound; anything wrong beside them is a failure as well.
    n = max(ALERTS_COUNT, len(names), len(wrong))
    evidence.cases(n, len(wrong), wrong, "alert rules against what was agreed, live series and runbooks")
    evidence.facts(alerts=sorted(names), files=[file.name for file in rules.files])
    assert not wrong, wrong[0]


def differences(rules: RuleSet) -> list[str]:
    """Where the rules are not what was agreed; one sentence each."""
    assert len(AGREED) == ALERTS_COUNT
    return differences_from(rules, AGREED)


def blind(rules: RuleSet, scrape: Exposition) -> list[str]:
    """Rules that name a metric, a label or a value that the running system does not have; one sentence each."""
    series = [Labelled(one.name, one.labels) for one in scrape.series]
    wrong: list[str] = []
    for alert in rules.alerts:
        try:
            query = parse_query(alert.expr)
        except PromqlError:
            continue  # a finding says so
        wrong += [f"{alert.name}: {sentence}" for sentence in dead_selectors(query, series)]
    return wrong


def unexplained(rules: RuleSet, runbooks: Path) -> list[str]:
    """Runbooks that are missing, are linked elsewhere than published, or say nothing under an alert's heading."""
    wrong = [
        f"runbook {name}: expected it, found none" for name in RUNBOOKS if not (runbooks / name).is_file()
    ]
    for alert in rules.alerts:
        url = alert.annotations.get("runbook_url", "")
        page = runbooks / (url.removeprefix(PUBLISHED_AT).split("#")[0] + ".md")
        if not url.startswith(PUBLISHED_AT) or not page.is_file():
            wrong.append(f"{alert.name}: expected a runbook below {PUBLISHED_AT}, got {url or 'none'}")
            continue
        words = page.read_text(encoding="utf-8").partition(f"\n## {alert.name}\n")[2].split("\n## ")[0]
        if len(words) < RUNBOOK_CHARACTERS:
            wrong.append(f"{alert.name}: {page.name} says next to nothing under its heading")
    return wrong
