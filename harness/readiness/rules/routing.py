"""Who hears of an alert, and how soon, by Alertmanager's configuration as it is written. Pure: sends nothing.

`delivery.py` sees messages arrive, with a run's compressed waits; what a run compresses or replaces (waits, repeats,
addresses) can only be read here. The first child that matches takes an alert, unless it says `continue`; waits are
inherited. Source: https://prometheus.io/docs/alerting/latest/configuration/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from readiness.errors import BadInput
from readiness.rules.promql import Matcher, duration_seconds

Yaml: TypeAlias = "bool | int | float | str | list[Yaml] | dict[str, Yaml] | None"

DEFAULTS: Mapping[str, str] = {"group_wait": "30s", "group_interval": "5m", "repeat_interval": "4h"}
"""Alertmanager's own."""

_MATCHER = re.compile(r'^\s*\{?\s*([A-Za-z_]\w*)\s*(=~|!~|!=|=)\s*"?(.*?)"?\s*\}?\s*$')


@dataclass(frozen=True, slots=True)
class Contact:
    """One address of a receiver. `kind` is email, slack, webhook; `where` the mail address or the channel."""

    kind: str
    where: str
    tells_end: bool


@dataclass(frozen=True, slots=True)
class Told:
    """One way that an alert takes: its receiver, the waits in seconds, and when it would be told to nobody."""

    receiver: str
    contacts: tuple[Contact, ...]
    group_by: tuple[str, ...]
    group_wait: float
    group_interval: float
    repeat_interval: float
    silent_times: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While a source fires, targets that agree with it in `equal` are kept quiet."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...]

    def mutes(self, source: Mapping[str, str], target: Mapping[str, str]) -> bool:
        """Whether the rule lets `source` keep `target` quiet."""
        if not (_all(self.source, source) and _all(self.target, target)):
            return False
        # What is on both sides of a rule does not mute its like.
        if _all(self.source, target) and _all(self.target, source):
            return False
        return all(source.get(label, "") == target.get(label, "") for label in self.equal)


@dataclass(frozen=True, slots=True)
class Routing:
    """A configuration: the tree of routes, receivers by name, inhibitions."""

    file: Path
    route: Mapping[str, Yaml]
    receivers: Mapping[str, tuple[Contact, ...]]
    inhibitions: tuple[Inhibition, ...]
    secrets_inline: tuple[str, ...]

    def told(self, labels: Mapping[str, str]) -> tuple[Told, ...]:
        """Every way that an alert of these labels takes."""
        return tuple(self._told(self.route, labels, {}))

    def mutes(self, source: Mapping[str, str], target: Mapping[str, str]) -> bool:
        """Whether `target` is kept quiet while `source` fires."""
        return any(rule.mutes(source, target) for rule in self.inhibitions)

    def _told(
        self, route: Mapping[str, Yaml], labels: Mapping[str, str], above: Mapping[str, Yaml]
    ) -> Iterator[Told]:
        own = {**above, **{key: value for key, value in route.items() if key not in ("routes", "continue")}}
        taken = False
        children = route.get("routes")
        for child in children if isinstance(children, list) else []:
            if isinstance(child, dict) and _all(_matchers(child), labels):
                taken = True
                yield from self._told(child, labels, own)
                if child.get("continue") is not True:
                    break
        if not taken:
            receiver = str(own.get("receiver", ""))
            groups = own.get("group_by")
            yield Told(
                receiver=receiver,
                contacts=self.receivers.get(receiver, ()),
                group_by=tuple(map(str, groups)) if isinstance(groups, list) else (),
                silent_times=tuple(_words(own, "mute_time_intervals", "active_time_intervals")),
                **{key: duration_seconds(str(own.get(key, default))) for key, default in DEFAULTS.items()},
            )


def load_routing(file: Path) -> Routing:
    """Read Alertmanager's configuration. BadInput when it is unreadable or none."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise BadInput(f"{file}: expected Alertmanager's configuration, got: {why}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("route"), dict):
        raise BadInput(f"{file}: expected Alertmanager's configuration with a route, got something else.")
    return Routing(
        file=file,
        route=content["route"],
        receivers={
            str(receiver.get("name")): tuple(_contacts(receiver))
            for receiver in _objects(content, "receivers")
        },
        inhibitions=tuple(_inhibition(rule) for rule in _objects(content, "inhibit_rules")),
        secrets_inline=tuple(_inline(content, "")),
    )


def _contacts(receiver: Mapping[str, Yaml]) -> Iterator[Contact]:
    # send_resolved is off by default for mail and Slack, on for webhooks.
    for kind, where in (("email", "to"), ("slack", "channel"), ("webhook", "url")):
        for entry in _objects(receiver, f"{kind}_configs"):
            tells_end = entry.get("send_resolved", kind == "webhook") is True
            yield Contact(kind, str(entry.get(where, "")), tells_end)


def _inhibition(rule: Mapping[str, Yaml]) -> Inhibition:
    equal = rule.get("equal")
    return Inhibition(
        source=_matchers(rule, "source_matchers", "source_match"),
        target=_matchers(rule, "target_matchers", "target_match"),
        equal=tuple(map(str, equal)) if isinstance(equal, list) else (),
    )


def _matchers(entry: Mapping[str, Yaml], new: str = "matchers", old: str = "match") -> tuple[Matcher, ...]:
    """The matchers of a route or of one side of an inhibition, in the notation of now and of before 0.22."""
    found: list[Matcher] = []
    written = entry.get(new)
    for text in written if isinstance(written, list) else []:
        parts = _MATCHER.match(str(text))
        if parts is None:
            raise BadInput(f'matchers: expected label="value", got: {text!r}.')
        found.append(Matcher(parts[1], parts[2], parts[3].replace('\\"', '"')))
    for key, operator in ((old, "="), (f"{old}_re", "=~")):
        pairs = entry.get(key)
        found += [
            Matcher(str(k), operator, str(v)) for k, v in (pairs.items() if isinstance(pairs, dict) else ())
        ]
    return tuple(found)


def _words(entry: Mapping[str, Yaml], *keys: str) -> Iterator[str]:
    for key in keys:
        values = entry.get(key)
        yield from map(str, values if isinstance(values, list) else [])


def _all(matchers: Sequence[Matcher], labels: Mapping[str, str]) -> bool:
    return all(matcher.holds(labels) for matcher in matchers)


def _objects(content: Mapping[str, Yaml], key: str) -> Iterator[dict[str, Yaml]]:
    entries = content.get(key)
    return (entry for entry in (entries if isinstance(entries, list) else []) if isinstance(entry, dict))


_SECRET = re.compile(r"(password|secret|token|api_url|api_key|credentials|routing_key)$")


def _inline(value: Yaml, path: str) -> Iterator[str]:
    """Where a secret stands in the file itself instead of in a file of its own."""
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{path}.{key}".lstrip(".")
            if _SECRET.search(str(key)) and isinstance(inner, str) and inner:
                yield place
            yield from _inline(inner, place)
    elif isinstance(value, list):
        for inner in value:
            yield from _inline(inner, path)
