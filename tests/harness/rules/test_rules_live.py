"""Rules against a live scrape, against what was agreed, and rewritten for one instance: what each must notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readiness.errors import BadInput
from readiness.rules import Labelled, PromqlError, dead_selectors, load_agreement, load_rules, parse_query
from readiness.rules.promql import Matcher
from readiness.rules.rewrite import narrowed

RULES = "rules/ragworker.yml"
CHECK = "checks/alerts/test_rules_are_sound.py"
SERIES = (
    Labelled("jobs_total", {"outcome": "done"}),
    Labelled("jobs_total", {"outcome": "dead"}),
    Labelled("http_total", {"status": "200", "route": "/x"}),
    Labelled("up_to_date", {}),
)


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        ("rate(job_total[5m])", "job_total: no live series"),
        ('jobs_total{result="dead"}', "no live series has the label result"),
        ('jobs_total{outcome="failed"}', "no live series has 'failed', only dead, done"),
        ('jobs_total{outcome=~"done|failed"}', "no live series has 'failed'"),
        ("sum by (queue) (jobs_total)", "groups by queue, which no series of it has"),
    ],
)
def test_a_selector_that_sees_nothing_is_named(expr: str, words: str) -> None:
    """A metric, a label or a written-out value that the system does not have."""
    assert any(words in sentence for sentence in dead_selectors(parse_query(expr), SERIES))


@pytest.mark.parametrize(
    "expr",
    [
        'sum by (outcome) (rate(jobs_total{outcome=~"done|dead"}[5m]))',
        'http_total{status=~"5..",route!~"/metrics|/healthz"}',
        'http_total{instance="a:1",status!="500"}',
        "sum by (instance, job) (up_to_date)",
        'ALERTS{alertname="x"} and up == 1',
    ],
)
def test_what_only_a_fault_brings_is_not_asked_of_a_healthy_system(expr: str) -> None:
    """Patterns, exclusions, and what Prometheus adds by itself are no findings."""
    assert dead_selectors(parse_query(expr), SERIES) == []


@pytest.mark.parametrize(
    ("labels", "operator", "value", "holds"),
    [
        ({"a": "x"}, "=", "x", True),
        ({}, "=", "", True),
        ({}, "!=", "x", True),
        ({"a": "xy"}, "=~", "x", False),
        ({"a": "xy"}, "=~", "x.", True),
        ({"a": "xy"}, "!~", "x.", False),
        ({}, "=~", ".+", False),
    ],
)
def test_a_matcher_holds_as_in_prometheus(
    labels: dict[str, str], operator: str, value: str, holds: bool
) -> None:
    """Patterns are anchored; an absent label is an empty one."""
    assert Matcher("a", operator, value).holds(labels) is holds


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max(rag_workers) == 0", "max(rag_workers) < 2", "RAGWorkersGone: expected == 0, got < 2"),
        ("[5m]))) > 0.03", "[5m]))) > 0.3", "HighRAGFailureRate: expected > 0.03, got > 0.3"),
        ("[5m])) > 0.05", "[5m])) > 0.5", "APIErrorRateHigh: expected > 0.05, got > 0.5"),
        (
            "offset 10m) and resets(dlq",
            "offset 5m) and resets(dlq",
            "DLQEntriesIncreasing: expected windows of 600 s",
        ),
        (
            "histogram_quantile(0.95",
            "histogram_quantile(0.5",
            "SlowRAGProcessing: expected the quantile 0.95",
        ),
        (
            "absent(rag_build_info)",
            "absent(rag_redis_up)",
            "RAGMetricsAbsent: expected absent(rag_build_info)",
        ),
        ("team: ui,", "team: dev,", "SSEReconnectionSpike: expected team ui, got dev"),
        (
            "max(rag_queue_length) > 50",
            "max(rag_queue_length) > 50 and max(rag_redis_up) > 1",
            "nobody agreed on",
        ),
        ("alert: RAGMetricsAbsent", "alert: MetricsAbsent", "MetricsAbsent: nobody agreed on this alert"),
        (
            "unless max(increase(commit_positive_total[5m])) > 0",
            "unless max(increase(commit_positive_total[5m])) > 10",
            "RAGProcessingStalled: expected > 0, got > 10",
        ),
    ],
)
def test_a_rule_of_ours_that_changes_is_seen(
    old: str,
    new: str,
    words: str,
    *,
    content: Path,
    edit: Callable[[str, str, str], None],
    load_check: Callable[[str], ModuleType],
) -> None:
    """The five alerts that are ours are held to what was agreed as the seven of the specification are."""
    differences = load_check(CHECK).differences
    edit(RULES, old, new)
    assert any(words in difference for difference in differences(load_rules(content / "rules")))


def test_a_runbook_that_says_nothing_is_seen(
    content: Path, edit: Callable[[str, str, str], None], load_check: Callable[[str], ModuleType]
) -> None:
    """A heading alone, or a link to another site, is no runbook [spec F13]."""
    unexplained = load_check(CHECK).unexplained
    rules, runbooks = load_rules(content / "rules"), content / "rules" / "runbooks"
    assert unexplained(rules, runbooks) == []
    file = runbooks / "worker-recovery.md"
    text = file.read_text(encoding="utf-8")
    start = text.index("## RAGWorkersGone\n") + len("## RAGWorkersGone\n")
    file.write_text(
        text[:start] + "\nTo do.\n\n" + text[text.index("## RAGProcessingStalled") :], encoding="utf-8"
    )
    assert unexplained(rules, runbooks) == [
        "RAGWorkersGone: worker-recovery.md says next to nothing under its heading"
    ]
    edit(RULES, "https://docs.ai-script-generator.com/runbooks/dlq", "https://wiki.invalid/runbooks/dlq")
    assert any(
        "expected a runbook below" in one for one in unexplained(load_rules(content / "rules"), runbooks)
    )


@pytest.mark.parametrize(
    "text", ["", "alerts: []", "alerts: {A: {}}", "alerts: {A: {for: x, severity: a, team: b}}"]
)
def test_what_is_no_agreement_is_refused(text: str, tmp_path: Path) -> None:
    """One sentence with the file's name."""
    file = tmp_path / "agreed.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"agreed\.yaml: expected agreed alerts"):
        load_agreement(file)


def test_every_shipped_rule_can_be_asked_of_one_instance(repository: Path) -> None:
    """Each selector gets the matcher, each window is shorter, nothing else changes."""
    for alert in load_rules(repository / "rules").alerts:
        query = parse_query(narrowed(alert.expr, {"lane": "x"}, faster=60))
        before = parse_query(alert.expr)
        assert all(Matcher("lane", "=", "x") in selector.matchers for selector in query.selectors)
        assert [60 * seconds for seconds in query.windows_seconds] == list(before.windows_seconds)
        assert [60 * seconds for seconds in query.offsets_seconds] == list(before.offsets_seconds)
        assert query.metrics == before.metrics
        assert [c.threshold for c in query.comparisons] == [c.threshold for c in before.comparisons]


def test_names_in_strings_and_labels_are_left_alone() -> None:
    """A metric's name may stand in a value, and a label may be called like a metric."""
    found = narrowed('sum by (a) (a{b="a[5m] offset 5m", a="a"} != 5) / a{}', {"lane": "x"}, faster=2)
    wanted = 'sum by (a) (a{lane="x",b="a[5m] offset 5m",a="a"} != 5) / a{lane="x"}'
    assert parse_query(found).canonical == parse_query(wanted).canonical


@given(st.text(alphabet='ab{}[]()"\\ 5m', max_size=30))
def test_any_text_is_rewritten_or_refused(text: str) -> None:
    """Nothing but PromqlError, and what comes back is PromQL."""
    try:
        found = narrowed(text, {"lane": "x"}, faster=7)
    except PromqlError:
        return
    parse_query(found)
