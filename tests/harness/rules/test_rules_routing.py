"""The shipped routing says what was agreed, and each fault that amtool accepts is named when the file is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from readiness.errors import BadInput
from readiness.rules import load_routing, load_rules
from readiness.rules.promql import Matcher
from readiness.rules.routing import Inhibition

CHECK = "checks/alerts/test_routes_say_it.py"
CONFIG = "rules/alertmanager/alertmanager.yml"
RULES = "rules/ragworker.yml"
CRITICAL_FIRST = '    - matchers: [severity="critical"]\n      receiver: dev-critical\n'

FAULTS = {
    "mail dropped": (
        CONFIG,
        "  - name: infrastructure-critical\n    email_configs: [*mail]\n",
        "  - name: infrastructure-critical\n",
        "RedisUnreachable: expected ['#infrastructure', 'alerts@",
    ),
    "channel swapped": (CONFIG, "'#ui-alerts'", "'#infrastructure'", "expected ['#ui-alerts'], got"),
    "channel mistyped": (CONFIG, "'#dev-alerts'", "'#dev-alert'", "got ['#dev-alert'"),
    "mail to somebody else": (CONFIG, "to: alerts@", "to: alert@", "got ['#dev-alerts', 'alert@"),
    "critical waits": (CONFIG, "      group_wait: 0s\n", "      group_wait: 4m\n", "waits 240 s"),
    "wait inherited": (CONFIG, "      group_wait: 0s\n", "", "waits 10 s"),
    "no wait for the source": (
        CONFIG,
        "  group_wait: 10s\n",
        "  group_wait: 0s\n",
        "expected a group_wait of",
    ),
    "late all-clear": (CONFIG, "group_interval: 10s", "group_interval: 1h", "expected a group_interval"),
    "silent for a month": (
        CONFIG,
        "repeat_interval: 4h",
        "repeat_interval: 30d",
        "expected a repeat_interval",
    ),
    "noise": (CONFIG, "repeat_interval: 4h", "repeat_interval: 1m", "expected a repeat_interval"),
    "one message for all": (CONFIG, "group_by: [alertname, environment]", "group_by: [severity]", "group_by"),
    "no all-clear": (CONFIG, "send_resolved: true", "send_resolved: false", "never hears that it is over"),
    "all-clear forgotten": (CONFIG, "        send_resolved: true\n", "", "never hears that it is over"),
    "catch-all above": (
        CONFIG,
        CRITICAL_FIRST,
        '    - {matchers: [alertname=~".+"], receiver: dev}\n' + CRITICAL_FIRST,
        "DLQEntriesIncreasing: expected ['#dev-alerts', 'alerts@",
    ),
    "told twice": (
        CONFIG,
        '    - {matchers: [team="ui"], receiver: ui}\n',
        '    - {matchers: [team="ui"], receiver: ui, continue: true}\n    - {matchers: [team="ui"], receiver: dev}\n',
        "SSEReconnectionSpike: expected ['#ui-alerts'], got ['#dev-alerts', '#ui-alerts']",
    ),
    "at night nobody": (
        CONFIG,
        "  repeat_interval: 4h\n",
        "  repeat_interval: 4h\n  mute_time_intervals: [night]\n",
        "is told at certain times only: night",
    ),
    "severity mistyped": (
        CONFIG,
        '[severity="critical"]\n      receiver',
        '[severity="crit"]\n      receiver',
        "expected",
    ),
    "inhibition too wide": (
        CONFIG,
        'alertname=~"RAGQueueLengthHigh|SlowRAGProcessing"',
        'alertname=~"(RAG|Slow).+"',
        "RAGWorkersGone (production) is muted by RateLimitingSpike",
    ),
    "inhibition across environments": (
        CONFIG,
        "equal: [cause, environment]",
        "equal: [cause]",
        "SlowRAGProcessing (staging) is muted by RAGWorkersGone (production)",
    ),
    "inhibition across causes": (
        CONFIG,
        "equal: [cause, environment]",
        "equal: [environment]",
        "SlowRAGProcessing (production) is muted by DLQEntriesIncreasing",
    ),
    "inhibition that equals nothing": (
        CONFIG,
        "equal: [cause, environment]",
        "equal: [cause, environment, alertname]",
        "SlowRAGProcessing (production) is not muted by RAGWorkersGone",
    ),
    "inhibition reversed": (
        CONFIG,
        'source_matchers: [severity="critical", cause=~".+"]\n    target_matchers: [severity="warning", cause=~".+"]',
        'source_matchers: [severity="warning", cause=~".+"]\n    target_matchers: [severity="critical", cause=~".+"]',
        "RAGWorkersGone (production) is muted by RAGQueueLengthHigh",
    ),
    "secret in the file": (
        CONFIG,
        "slack_api_url_file: secrets/slack_api_url",
        "slack_api_url: https://hooks.invalid/x",
        "global.slack_api_url: a secret stands in the file",
    ),
    "severity label missing": (
        RULES,
        "severity: critical, team: dev, cause: failures",
        "team: dev, cause: failures",
        "DLQEntriesIncreasing: expected ['#dev-alerts', 'alerts@",
    ),
    "another team's": (
        RULES,
        "team: ui,",
        "team: dev,",
        "SSEReconnectionSpike: expected ['#ui-alerts'], got",
    ),
}


def problems(content: Path, check: ModuleType) -> list[str]:
    """What the check of F10.routing says about a content root."""
    rules, routing = load_rules(content / "rules"), load_routing(content / CONFIG)
    return [*check.misrouted(rules, routing), *check.mismuted(rules, routing), *check.strays(routing)]


def test_the_shipped_routing_says_what_was_agreed(
    repository: Path, load_check: Callable[[str], ModuleType]
) -> None:
    """12 alerts, 132 pairs in three places: not one problem."""
    assert problems(repository, load_check(CHECK)) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_routing_fault_is_named(
    fault: str, content: Path, edit: Callable[[str, str, str], None], load_check: Callable[[str], ModuleType]
) -> None:
    """Who hears, how soon, how often, of the end, and who is muted: each is read from the file as written."""
    path, old, new, words = FAULTS[fault]
    edit(path, old, new)
    found = problems(content, load_check(CHECK))
    assert any(words in problem for problem in found), found


def test_old_and_new_notations_mean_the_same(tmp_path: Path) -> None:
    """`match`, `match_re` and quoted or bare `matchers` choose the same route; without a child the parent takes it."""
    receivers = [{"name": name, "slack_configs": [{"channel": f"#{name}"}]} for name in ("top", "new", "old")]
    routes = [
        {"matchers": ['team="a"', "zone!=north"], "receiver": "new"},
        {"match": {"team": "b"}, "match_re": {"zone": "no.*"}, "receiver": "old"},
    ]
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump({"route": {"receiver": "top", "routes": routes}, "receivers": receivers}))
    routing = load_routing(file)

    def told(**labels: str) -> list[str]:
        return [way.receiver for way in routing.told(labels)]

    assert told(team="a", zone="south") == ["new"]
    assert told(team="a", zone="north") == ["top"]
    assert told(team="b", zone="north") == ["old"]
    assert told(team="b", zone="west") == ["top"]
    (way,) = routing.told({})
    assert (way.group_wait, way.group_interval, way.repeat_interval) == (30.0, 300.0, 14400.0)


def test_what_is_on_both_sides_mutes_nobody_of_its_like() -> None:
    """Alertmanager keeps an alert from muting itself: two alerts that match both sides are both told."""
    any_alert = (Matcher("alertname", "=~", ".+"),)
    rule = Inhibition(any_alert, any_alert, ("cause",))
    assert not rule.mutes({"alertname": "a", "cause": "c"}, {"alertname": "b", "cause": "c"})
    narrow = Inhibition((Matcher("alertname", "=", "a"),), any_alert, ())
    assert narrow.mutes({"alertname": "a"}, {"alertname": "b"})


@pytest.mark.parametrize("text", ["", "- a", "receivers: []", "route: x", "a: [", "\x00"])
def test_what_is_no_configuration_is_refused(text: str, tmp_path: Path) -> None:
    """One clear sentence, and the file's name in it."""
    file = tmp_path / "alertmanager.yml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"alertmanager\.yml: expected"):
        load_routing(file)
