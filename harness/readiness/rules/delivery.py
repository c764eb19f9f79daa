"""Post alerts to a running Alertmanager and see in the sinks' log who was told, where, and what was kept quiet.

Each alert is posted in an environment of its own (label `environment`), so that neither the alerts of the running
system nor two posted ones can mute or swallow each other. What should arrive is the caller's to say; this module posts,
waits with deadlines and compares. It causes no fault and evaluates no rule.

API: https://github.com/prometheus/alertmanager/blob/v0.25.0/api/v2/openapi.yaml
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import httpx
import yaml

from readiness.errors import HarnessFailure
from readiness.rules.promql import PromqlError, duration_seconds

Labels: TypeAlias = Mapping[str, str]

MAIL = "mail"
"""The channel word for e-mail; Slack channels are written with their #."""

AT_ONCE_SECONDS = 5.0
"""What "at once" may take on a machine with every core busy; quiet, mail and Slack arrive within 0.1 s (measured)."""

MARGIN_SECONDS = 10.0
"""Added to what the configuration itself waits, for a busy machine."""

LONGEST_WAIT_SECONDS = 120.0
"""No configuration is waited for longer than this: a run copy with such waits was meant to be compressed."""

POLL_SECONDS = 0.1
REQUEST_SECONDS = 10.0
FIRING_FOR = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Posted:
    """What Alertmanager gets of one alert; `labels` hold its name under `alertname`."""

    labels: Labels
    annotations: Labels

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.labels.get("alertname", "")


@dataclass(frozen=True, slots=True)
class Expected:
    """One alert and the channels that must hear of it, no others. `muted_by`: posted beside it, must keep it quiet."""

    alert: Posted
    channels: frozenset[str]
    at_once: bool = False
    muted_by: Posted | None = None

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.alert.name


@dataclass(frozen=True, slots=True)
class Notification:
    """One message that arrived: `at` in seconds of the monotonic clock, `text` everything a person could read."""

    channel: str
    at: float
    resolved: bool
    text: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """What happened to one expected alert; `problems` is empty when all was as it should be."""

    expected: Expected
    seconds: Mapping[str, float]
    problems: tuple[str, ...]


class Wires:
    """Where Alertmanager is asked and where messages arrive. All calls have a deadline."""

    def __init__(self, *, alertmanager_url: str, sink_urls: Sequence[str]) -> None:
        self._client = httpx.Client(timeout=REQUEST_SECONDS, trust_env=False)
        self._alertmanager = alertmanager_url
        self._sinks = tuple(dict.fromkeys(sink_urls))

    def __enter__(self) -> Wires:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post(self, alerts: Sequence[Mapping[str, object]]) -> None:
        """Hand alerts to Alertmanager. HarnessFailure when it refuses them."""
        answer = self._client.post(f"{self._alertmanager}/api/v2/alerts", json=list(alerts))
        if answer.status_code != 200:
            raise HarnessFailure(
                f"alertmanager: expected 200 for alerts, got {answer.status_code}: {answer.text}"
            )

    def muted(self, environment: str, name: str) -> bool:
        """True when Alertmanager says that this alert is inhibited now."""
        filters = [f'environment="{environment}"', f'alertname="{name}"']
        answer = self._client.get(f"{self._alertmanager}/api/v2/alerts", params={"filter": filters})
        answer.raise_for_status()
        return any(alert["status"]["inhibitedBy"] for alert in answer.json())

    def longest_waits(self) -> tuple[float, float]:
        """The longest group_wait and group_interval of the running configuration, in seconds."""
        answer = self._client.get(f"{self._alertmanager}/api/v2/status")
        answer.raise_for_status()
        config = yaml.safe_load(answer.json()["config"]["original"])
        routes = _routes(config["route"])
        # Alertmanager's own defaults stand where the configuration says nothing.
        wait = max(_seconds(route.get("group_wait"), default=30.0) for route in routes)
        interval = max(_seconds(route.get("group_interval"), default=300.0) for route in routes)
        return wait, interval

    def arrivals(self) -> list[Notification]:
        """Every message that arrived so far, in order of arrival."""
        found: list[Notification] = []
        for sink in self._sinks:
            answer = self._client.get(f"{sink}/_control/log")
            answer.raise_for_status()
            found += [_notification(arrival) for arrival in answer.json()["arrivals"]]
        return sorted(found, key=lambda one: one.at)

    def muted_pairs(self, environments: str) -> list[tuple[str, str, bool]]:
        """Environment, name, and whether Alertmanager keeps it quiet, of each alert whose environment starts so."""
        answer = self._client.get(
            f"{self._alertmanager}/api/v2/alerts", params={"filter": f'environment=~"{environments}.*"'}
        )
        answer.raise_for_status()
        return [
            (one["labels"]["environment"], one["labels"]["alertname"], bool(one["status"]["inhibitedBy"]))
            for one in answer.json()
        ]


def deliver(wires: Wires, expected: Sequence[Expected]) -> list[Delivery]:
    """Post all alerts, wait for their messages, resolve them, wait for the all-clear; compare with what is expected.

    Takes the configuration's longest group_wait and group_interval; bounded by LONGEST_WAIT_SECONDS for each.
    """
    nonce = uuid.uuid4().hex[:8]
    environments = [f"drill-{nonce}-{place:02d}-" for place in range(len(expected))]
    group_wait, group_interval = (min(wait, LONGEST_WAIT_SECONDS) for wait in wires.longest_waits())
    started = datetime.now(UTC)
    muted_pairs = [(one, env) for one, env in zip(expected, environments, strict=True) if one.muted_by]
    told_pairs = [(one, env) for one, env in zip(expected, environments, strict=True) if not one.muted_by]

    posted_at = time.monotonic()
    # Muted ones first: when the others, which wait as long, have arrived, silence is a fact and no longer a delay.
    for pairs in (muted_pairs, told_pairs):
        wires.post(
            [alert for one, env in pairs for alert in _alerts(one, env, started, started + FIRING_FOR)]
        )
    _wait(lambda: _all_heard(wires, told_pairs, resolved=False), seconds=group_wait + MARGIN_SECONDS)
    muted = {env: wires.muted(env, one.name) for one, env in muted_pairs}
    ended = datetime.now(UTC)
    for one, env in (*muted_pairs, *told_pairs):
        wires.post(_alerts(one, env, started, ended))
    _wait(lambda: _all_heard(wires, told_pairs, resolved=True), seconds=group_interval + MARGIN_SECONDS)
    arrivals = wires.arrivals()
    return [
        _judged_silence(one, _about(env, arrivals), muted=muted[env])
        if one.muted_by
        else _judged(one, _about(env, arrivals), posted_at=posted_at)
        for one, env in zip(expected, environments, strict=True)
    ]


def _judged(one: Expected, arrived: Sequence[Notification], *, posted_at: float) -> Delivery:
    firing = [message for message in arrived if not message.resolved]
    seconds = {message.channel: message.at - posted_at for message in reversed(firing)}  # the first of each
    problems: list[str] = []
    for what, messages in (("firing", firing), ("resolved", [m for m in arrived if m.resolved])):
        channels = [message.channel for message in messages]
        problems += [
            f"{one.name} {what}: expected {channel}, got nothing" for channel in one.channels - {*channels}
        ]
        extra = sorted({*channels} - one.channels)
        problems += [f"{one.name} {what}: went to {channel}, which must not hear of it" for channel in extra]
        twice = sorted({channel for channel in channels if channels.count(channel) > 1})
        problems += [
            f"{one.name} {what}: told {channel} {channels.count(channel)} times" for channel in twice
        ]
    if one.at_once:
        late = {channel: took for channel, took in seconds.items() if took > AT_ONCE_SECONDS}
        problems += [
            f"{one.name}: expected at once, took {took:.1f} s to {where}" for where, took in late.items()
        ]
    for message in firing:
        problems += [f"{one.name}: {message.channel} does not say {word}" for word in _unsaid(one, message)]
    return Delivery(one, seconds, tuple(sorted(problems)))


def _judged_silence(one: Expected, arrived: Sequence[Notification], *, muted: bool) -> Delivery:
    source = one.muted_by.name if one.muted_by is not None else ""
    told = sorted({message.channel for message in arrived if one.name in message.text})
    problems = [
        f"{one.name}: expected silence while {source} fires, but {channel} heard of it" for channel in told
    ]
    if not muted:
        problems.append(f"{one.name}: expected Alertmanager to call it inhibited by {source}, it does not")
    return Delivery(one, {}, tuple(problems))


def _unsaid(one: Expected, message: Notification) -> list[str]:
    """What a reader needs and the message lacks: which alert, how bad, what it means, where to read what to do."""
    severity = one.alert.labels.get("severity", "").upper()
    texts = (one.alert.annotations.get(name, "") for name in ("summary", "runbook_url"))
    return [word for word in (one.name, severity, *texts) if word and word not in message.text]


def _all_heard(wires: Wires, pairs: Sequence[tuple[Expected, str]], *, resolved: bool) -> bool:
    arrivals = [message for message in wires.arrivals() if message.resolved is resolved]
    return all(
        one.channels <= {message.channel for message in _about(environment, arrivals)}
        for one, environment in pairs
    )


def _about(environment: str, arrivals: Sequence[Notification]) -> list[Notification]:
    """The messages that name the environment."""
    return [message for message in arrivals if environment in message.text]


def _alerts(one: Expected, environment: str, starts: datetime, ends: datetime) -> list[Mapping[str, object]]:
    both = [one.alert] if one.muted_by is None else [one.muted_by, one.alert]
    return [
        {
            "labels": {**posted.labels, "environment": environment},
            "annotations": dict(posted.annotations),
            "startsAt": starts.isoformat(),
            "endsAt": ends.isoformat(),
        }
        for posted in both
    ]


def _notification(arrival: Mapping[str, object]) -> Notification:
    body = arrival.get("json")
    at = arrival.get("at")
    if arrival.get("channel") == MAIL:
        channel = MAIL
        heading = str(arrival.get("subject", ""))
        text = "\n".join(str(arrival.get(key, "")) for key in ("subject", "text", "html"))
    else:
        slack = body if isinstance(body, dict) else {}
        channel = str(slack.get("channel", arrival.get("channel", "")))
        attachments = slack.get("attachments")
        first = attachments[0] if isinstance(attachments, list) and attachments else {}
        heading = str(first.get("title", "")) if isinstance(first, dict) else ""
        text = json.dumps(slack, ensure_ascii=False)
    return Notification(
        channel=channel,
        at=float(at) if isinstance(at, int | float) else 0.0,
        resolved="RESOLVED" in heading.upper(),
        text=text,
    )


def _routes(route: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The route and all below it, each with what it inherits."""
    children = route.get("routes")
    found = [route]
    for child in children if isinstance(children, list) else []:
        inherited = {key: route[key] for key in ("group_wait", "group_interval") if key in route}
        found += _routes({**inherited, **child})
    return found


def _seconds(text: object, *, default: float) -> float:
    if not isinstance(text, str):
        return default
    try:
        return duration_seconds(text)
    except PromqlError:
        return default


def _wait(done: Callable[[], bool], *, seconds: float) -> None:
    """Until `done` or the deadline; what is missing then is judged by name."""
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
