"""The shipped rules have no finding, and each kind of finding is provoked by breaking a copy of them once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ragworker.telemetry import METRICS
from readiness.rules import Finding, exposed_names, load_rules, static_findings

RULES = "rules/ragworker.yml"
GONE_LABELS = "labels: {severity: critical, team: infrastructure, cause: processing}\n        annotations:\n"
SUMMARY = "summary: Work is waiting and no worker is alive."
RUNBOOK = "worker-recovery#ragworkersgone"

BREAKS = {
    "label-missing": (RULES, "severity: warning, team: ui, ", "severity: warning, "),
    "severity-unknown": (RULES, "severity: warning, team: ui", "severity: page, team: ui"),
    "value-in-label": (RULES, "team: ui, cause: availability", "team: ui, cause: '{{ $value }}'"),
    "annotation-missing": (RULES, SUMMARY, "title: x"),
    "description-static": (RULES, "{{ $value | humanize }} jobs wait and", "Jobs wait and"),
    "summary-templated": (RULES, SUMMARY, "summary: '{{ $value }} jobs wait.'"),
    "runbook-missing": (RULES, RUNBOOK, "nowhere#ragworkersgone"),
    "runbook-heading-missing": ("rules/runbooks/worker-recovery.md", "## RAGWorkersGone", "## Workers gone"),
    "runbook-anchor": (RULES, RUNBOOK, "worker-recovery#workersgone"),
    "no-comparison": (RULES, "max(rag_queue_length) > 50\n", "max(rag_queue_length)\n"),
    "for-missing": (RULES, "unless max(increase(commit_positive_total[5m])) > 0\n        for: 5m", "> 0"),
    "unit-test-missing": (RULES, "alert: RAGWorkersGone", "alert: RAGWorkersLost"),
    "expr-syntax": (RULES, "absent(rag_build_info)", "absent(rag_build_info"),
    "metric-not-exposed": (RULES, "max(rag_workers)", "max(rag_worker_count)"),
    "duplicate-alert": (RULES, "alert: RAGQueueLengthHigh", "alert: RAGWorkersGone"),
}


def exposed() -> frozenset[str]:
    """The names that ragworker declares."""
    return exposed_names("".join(f"# TYPE {metric.name} {metric.kind}\n" for metric in METRICS))


def findings(content: Path) -> list[Finding]:
    """Everything that is to be said about the rules of a content root."""
    rules = load_rules(content / "rules")
    return static_findings(rules, exposed_metrics=exposed(), runbooks_dir=content / "rules" / "runbooks")


def test_the_shipped_rules_have_no_finding(repository: Path) -> None:
    """12 alerts, not one finding, on the metrics that ragworker declares."""
    assert len(load_rules(repository / "rules").alerts) == 12
    assert findings(repository) == []


@pytest.mark.parametrize("check", BREAKS)
def test_each_defect_is_found(check: str, content: Path, edit: Callable[[str, str, str], None]) -> None:
    """A defect planted in a copy of the rules is found, with its id, its file and a line of that file."""
    path, old, new = BREAKS[check]
    if check == "duplicate-alert":
        edit(
            path,
            "severity: warning, team: infrastructure, cause",
            "severity: critical, team: infrastructure, cause",
        )
    edit(path, old, new)
    found = [finding for finding in findings(content) if finding.id == f"rules/{check}"]
    assert found, f"rules/{check} did not notice {old!r} -> {new!r}"
    finding = found[0]
    assert finding.file == content / RULES
    lines = finding.file.read_text(encoding="utf-8").splitlines()
    assert 1 <= finding.line <= len(lines)
    assert finding.message
    assert finding.remedy.endswith((".", "`", ")"))


def test_an_alert_that_never_keeps_silent_in_tests_is_found(content: Path) -> None:
    """A unit test that only shows an alert fire does not show that it can be quiet."""
    for file in (content / "rules" / "tests").glob("*.yml"):
        lines = file.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not ("RAGWorkersGone" in line and "exp_alerts: []" in line)]
        file.write_text("\n".join(kept), encoding="utf-8")
    assert {finding.id for finding in findings(content)} == {"rules/unit-test-never-silent"}


def test_what_is_not_known_is_not_judged(content: Path, edit: Callable[[str, str, str], None]) -> None:
    """Without a /metrics text and without runbooks the checks that need them say nothing."""
    edit(RULES, "max(rag_workers)", "max(rag_worker_count)")
    edit(RULES, RUNBOOK, "nowhere")
    assert static_findings(load_rules(content / "rules"), exposed_metrics=None, runbooks_dir=None) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max(rag_queue_length) > 50", "max(rag_queue_length) > 51", "expected > 50"),
        ("max(rag_queue_length) > 50", "max(rag_queue_length) >= 50", "expected > 50"),
        ("> 5\n        for: 2m", "> 5\n        for: 3m", "expected for 120 s"),
        (
            "increase(sse_reconnect_count[10m])",
            "increase(sse_reconnect_count[9m])",
            "expected windows of 600 s",
        ),
        ("max(memory_token_used_pct)", "max(rag_queue_length)", "expected it to watch memory_token_used_pct"),
        (
            "severity: critical, team: infrastructure, cause: resources",
            "severity: warning, team: ui",
            "expected severity",
        ),
        ("alert: HighRAGFailureRate", "alert: RAGFailureRateHigh", "HighRAGFailureRate: expected an alert"),
    ],
)
def test_a_rule_that_leaves_the_specification_is_seen(
    old: str,
    new: str,
    words: str,
    *,
    content: Path,
    edit: Callable[[str, str, str], None],
    load_check: Callable[[str], ModuleType],
) -> None:
    """The check of F1.rules names the threshold, comparator, duration, window, metric, severity or name that is off."""
    differences = load_check("checks/alerts/test_rules_are_sound.py").differences
    assert differences(load_rules(content / "rules")) == []
    edit(RULES, old, new)
    assert any(words in difference for difference in differences(load_rules(content / "rules")))


def test_the_source_of_an_inhibition_is_evaluated_before_its_target(repository: Path) -> None:
    """Alerts of one cause share a group, critical ones first: no warning leaves before what mutes it is known."""
    rules = load_rules(repository / "rules").alerts
    for warning in (alert for alert in rules if alert.labels["severity"] == "warning"):
        sources = [
            alert
            for alert in rules
            if alert.labels["severity"] == "critical" and alert.labels["cause"] == warning.labels["cause"]
        ]
        assert sources, f"{warning.name}: nothing mutes it"
        assert {source.group for source in sources} == {warning.group}
        assert max(source.line for source in sources) < warning.line
