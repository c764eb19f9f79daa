"""Delivery is judged on the wire: the shipped routing passes, and each routing fault that amtool accepts is seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from readiness.rules import Delivery, Wires, amtool_check, deliver, load_rules
from readiness.rules.pairs import muted_pairs
from readiness.stack.alertmanager import AlertmanagerPart
from readiness.stack.base import StackPlan
from readiness.stack.sinks import SinksPart

CONFIG = "rules/alertmanager/alertmanager.yml"
GRACE_SECONDS = 5.0

# What is planted, and what a problem must say. `amtool check-config` accepts every one of them.
FAULTS = {
    "mail dropped": (
        "  - name: infrastructure-critical\n    email_configs: [*mail]\n",
        "  - name: infrastructure-critical\n",
        "RedisUnreachable firing: expected mail, got nothing",
    ),
    "channel swapped": (
        "channel: '#ui-alerts'",
        "channel: '#infrastructure'",
        "expected #ui-alerts, got nothing",
    ),
    "channel mistyped": (
        "channel: '#dev-alerts'",
        "channel: '#dev-alert'",
        "went to #dev-alert, which must not",
    ),
    "told twice": (
        '    - {matchers: [team="ui"], receiver: ui}\n',
        '    - {matchers: [team="ui"], receiver: ui, continue: true}\n    - {matchers: [team="ui"], receiver: dev}\n',
        "SSEReconnectionSpike firing: went to #dev-alerts",
    ),
    "critical waits": ("      group_wait: 0s\n", "      group_wait: 2s\n", "expected at once"),
    "inhibition reversed": (
        'source_matchers: [severity="critical", cause=~".+"]\n    target_matchers: [severity="warning", cause=~".+"]',
        'source_matchers: [severity="warning", cause=~".+"]\n    target_matchers: [severity="critical", cause=~".+"]',
        "SSEReconnectionSpike: expected silence while RAGMetricsAbsent fires",
    ),
    "equal on a label nobody sets alike": (
        "equal: [cause, environment]",
        "equal: [cause, environment, alertname]",
        "expected Alertmanager to call it inhibited",
    ),
    "no all-clear": ("send_resolved: true", "send_resolved: false", "resolved: expected"),
    "runbook not linked": (
        "title_link: '{{ .CommonAnnotations.runbook_url }}'\n        text: '{{ template \"ragworker.slack\" . }}'",
        "text: ''",
        "does not say https://docs.ai-script-generator.com",
    ),
}


@contextmanager
def alertmanager(content: Path, run_dir: Path, *, compress: bool = True) -> Iterator[Wires]:
    """A real Alertmanager with the routing of `content`, delivering into real sinks."""
    for folder in ("logs", "data"):
        (run_dir / folder).mkdir(parents=True, exist_ok=True)
    sinks = SinksPart(run_dir)
    part = AlertmanagerPart(
        run_dir, plan=StackPlan(root=content, compress_notifications=compress), sinks=sinks
    )
    try:
        sinks.begin()
        sinks.await_ready()
        part.start()
        with Wires(alertmanager_url=part.url, sink_urls=[sinks.url]) as wires:
            yield wires
    finally:
        for one in (part, sinks):
            one.terminate()
            one.await_end(time.monotonic() + GRACE_SECONDS)


def drill(content: Path, run_dir: Path, check: ModuleType, *, compress: bool = True) -> list[Delivery]:
    """What the check of F10.delivery would see."""
    rules = load_rules(content / "rules")
    with alertmanager(content, run_dir, compress=compress) as wires:
        return deliver(wires, [*check.told(rules), *check.muted(rules)])


def test_the_shipped_routing_delivers_what_it_must(
    content: Path,
    tmp_path: Path,
    require_part: Callable[[str], Path],
    load_check: Callable[[str], ModuleType],
) -> None:
    """12 alerts and a critical one of the UI team reach their channels and are resolved; 9 muted ones keep silent."""
    require_part("prometheus-alertmanager")
    deliveries = drill(content, tmp_path / "run", load_check("checks/alerts/test_alerts_are_delivered.py"))
    assert [problem for delivery in deliveries for problem in delivery.problems] == []
    assert sum(1 for delivery in deliveries if delivery.expected.muted_by is None) == 13
    assert sum(1 for delivery in deliveries if delivery.expected.muted_by is not None) == 9
    both = [delivery.seconds for delivery in deliveries if delivery.expected.at_once]
    assert len(both) == 10
    assert all(len(seconds) == 2 for seconds in both)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_routing_fault_is_seen(
    fault: str,
    *,
    content: Path,
    tmp_path: Path,
    edit: Callable[[str, str, str], None],
    require_part: Callable[[str], Path],
    load_check: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What amtool accepts and nobody would notice until the night it matters is a problem by name."""
    require_part("prometheus-alertmanager")
    require_part("amtool")
    # Faults that keep messages away would be waited for with the margin of a busy machine.
    monkeypatch.setattr("readiness.rules.delivery.MARGIN_SECONDS", 1.0)
    monkeypatch.setattr("readiness.rules.delivery.AT_ONCE_SECONDS", 1.5)
    old, new, words = FAULTS[fault]
    edit(CONFIG, old, new)
    assert amtool_check(content / CONFIG).passed
    check = load_check("checks/alerts/test_alerts_are_delivered.py")
    for wait in (
        "group_wait",
        "group_interval",
    ):  # compressed here, because the run copy would undo "critical waits"
        edit(CONFIG, f"  {wait}: 10s\n", f"  {wait}: 200ms\n")
    deliveries = drill(content, tmp_path / "run", check, compress=False)
    problems = [problem for delivery in deliveries for problem in delivery.problems]
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("new", "more"),
    [
        ("RAGQueueLengthHigh|SlowRAGProcessing", set()),
        ("(RAG|Slow).+", {"RAGWorkersGone", "RAGMetricsAbsent"}),
    ],
)
def test_every_two_alerts_fire_together(
    new: str,
    more: set[str],
    *,
    content: Path,
    tmp_path: Path,
    edit: Callable[[str, str, str], None],
    require_part: Callable[[str], Path],
    load_check: Callable[[str], ModuleType],
) -> None:
    """66 pairs through the real Alertmanager: as agreed when shipped, and an inhibition too wide is seen."""
    require_part("prometheus-alertmanager")
    edit(CONFIG, 'alertname=~"RAGQueueLengthHigh|SlowRAGProcessing"', f'alertname=~"{new}"')
    check = load_check("checks/alerts/test_alerts_are_delivered.py")
    alerts = [check.posted(alert) for alert in load_rules(content / "rules").alerts]
    expected = {(source, name) for name, agreed in check.AGREED.items() for source in agreed.muted_by}
    with alertmanager(content, tmp_path / "run") as wires:
        found = muted_pairs(wires, alerts, expected=expected, seconds=2.0)
    assert expected <= found
    assert more <= {target for _, target in found - expected}
    assert bool(found - expected) is bool(more)
