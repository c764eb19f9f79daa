"""Alertmanager's configuration as written sends each alert where it must go, as soon as it must, and says when
it is over.

A run replaces addresses and compresses waits, so what is delivered in it cannot show them: they are read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.root import Root
from readiness.rules import Agreed, Routing, RuleSet, load_agreement, load_routing, load_rules

AGREED = load_agreement(Path(__file__).with_name("agreed.yaml"))
# Spec F10, F11; the address and #dev-alerts are the founding document's.
MAIL_ADDRESS = "alerts@ai-script-generator.com"
TEAM_CHANNELS = {"ui": "#ui-alerts", "infrastructure": "#infrastructure", "dev": "#dev-alerts"}
# What can be inhibited waits longer than its source may be late, and not so long that it is news no more.
SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 60.0
LONGEST_INTERVAL_SECONDS = 300.0
# More often is noise; less often is a working day without a word.
REPEAT_SECONDS = (3600.0, 43_200.0)
PLACES = ("production", "staging")


@pytest.mark.claim("F10.routing")
def test_routes_say_it(root: Root, evidence: ClaimEvidence) -> None:
    """For each alert: receivers, waits, repeats, end of alert; for each pair: who mutes whom; no secret in the file."""
    rules = load_rules(root.path / "rules")
    routing = load_routing(root.path / "rules" / "alertmanager" / "alertmanager.yml")
    wrong = [*misrouted(rules, routing), *mismuted(rules, routing), *strays(routing)]
    pairs = len(rules.alerts) * (len(rules.alerts) - 1)
    n = max(len(AGREED) + pairs, len(wrong))
    evidence.cases(n, len(wrong), wrong, "alerts and pairs of alerts against the configuration as written")
    evidence.facts(alerts=len(rules.alerts), receivers=sorted(routing.receivers))
    assert not wrong, wrong[0]


def misrouted(rules: RuleSet, routing: Routing) -> Iterator[str]:
    """Alerts that reach other people than agreed, later, or without an end; one sentence each."""
    for alert in rules.alerts:
        agreed = AGREED.get(alert.name)
        if agreed is None:
            yield f"{alert.name}: nobody agreed on this alert"
            continue
        labels = {"alertname": alert.name, "environment": PLACES[0], **alert.labels}
        yield from (f"{alert.name}: {sentence}" for sentence in _against(labels, agreed, routing))
    labels = {"alertname": "Drill", "severity": "critical", "team": "ui"}
    wanted = {MAIL_ADDRESS, TEAM_CHANNELS["ui"]}
    if (got := _places(routing, labels)) != wanted:
        yield f"a critical alert of the UI team: expected {sorted(wanted)}, got {sorted(got)}"


def mismuted(rules: RuleSet, routing: Routing) -> Iterator[str]:
    """Pairs in which one alert keeps another quiet and should not, or should and does not."""
    for source, target in permutations(rules.alerts, 2):
        agreed = AGREED.get(target.name)
        wanted = agreed is not None and source.name in agreed.muted_by
        for here, there in ((PLACES[0], PLACES[0]), PLACES, ("", "")):
            first = {"alertname": source.name, **source.labels, "environment": here}
            second = {"alertname": target.name, **target.labels, "environment": there}
            if routing.mutes(first, second) is not (wanted and here == there):
                verb = "is not muted by" if wanted and here == there else "is muted by"
                yield f"{target.name} ({there or 'nowhere'}) {verb} {source.name} ({here or 'nowhere'})"


def strays(routing: Routing) -> Iterator[str]:
    """Secrets in the file, and alerts that nobody would hear of."""
    yield from (
        f"{place}: a secret stands in the file; name a file of its own" for place in routing.secrets_inline
    )
    if not _places(routing, {"alertname": "Unknown"}):
        yield "an alert without labels: expected somebody to hear of it, got nobody"


def _against(labels: Mapping[str, str], agreed: Agreed, routing: Routing) -> Iterator[str]:
    wanted = {TEAM_CHANNELS[agreed.team], *([MAIL_ADDRESS] if agreed.critical else [])}
    ways = routing.told(labels)
    contacts = [contact for way in ways for contact in way.contacts]
    places = [contact.where for contact in contacts]
    if sorted(places) != sorted(wanted):
        yield f"expected {sorted(wanted)}, got {sorted(places)}"
    yield from (
        f"{one.where} never hears that it is over (send_resolved)" for one in contacts if not one.tells_end
    )
    for way in ways:
        if agreed.critical and way.group_wait > 0:
            yield f"critical, so expected at once, waits {way.group_wait:g} s (group_wait)"
        if not agreed.critical and not SHORTEST_WAIT_SECONDS <= way.group_wait <= LONGEST_WAIT_SECONDS:
            yield (
                f"expected a group_wait of {SHORTEST_WAIT_SECONDS:g} to {LONGEST_WAIT_SECONDS:g} s,"
                f" got {way.group_wait:g} s: its source may be late, its reader not"
            )
        if way.group_interval > LONGEST_INTERVAL_SECONDS:
            yield f"expected a group_interval up to {LONGEST_INTERVAL_SECONDS:g} s, got {way.group_interval:g} s"
        if not REPEAT_SECONDS[0] <= way.repeat_interval <= REPEAT_SECONDS[1]:
            yield f"expected a repeat_interval of 1 to 12 h, got {way.repeat_interval / 3600:g} h"
        if not {"alertname", "environment"} <= {*way.group_by}:
            yield f"expected messages of one alert in one environment, got group_by {way.group_by}"
        if way.silent_times:
            yield f"is told at certain times only: {', '.join(way.silent_times)}"


def _places(routing: Routing, labels: Mapping[str, str]) -> set[str]:
    return {contact.where for way in routing.told(labels) for contact in way.contacts}
