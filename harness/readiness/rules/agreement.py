"""Compare alert rules with what was agreed about them, which stands in a file of its own (checks/alerts/agreed.yaml).

A rule that is wrong says so nowhere: threshold, duration, severity and team are what they are. So checks need a second
opinion that does not change with the rules. Pure but for reading that file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from readiness.errors import BadInput
from readiness.rules.load import Alert, RuleSet
from readiness.rules.promql import Comparison, PromqlError, Query, parse_query

Yaml: TypeAlias = "bool | int | float | str | list[Yaml] | dict[str, Yaml] | None"


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison with a number; `metrics` are all that its other side selects."""

    metrics: frozenset[str]
    operator: str
    value: float


@dataclass(frozen=True, slots=True)
class Agreed:
    """What was agreed about one alert; durations in seconds, 0 where there is none."""

    name: str
    conditions: tuple[Condition, ...]
    absent: str
    quantile: float | None
    window: float
    for_seconds: float
    severity: str
    team: str
    muted_by: frozenset[str]

    @property
    def critical(self) -> bool:
        """Whether it goes to e-mail and Slack at once."""
        return self.severity == "critical"


def load_agreement(file: Path) -> dict[str, Agreed]:
    """The agreed alerts by name. BadInput when the file is none of the kind."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {str(name): _agreed(str(name), entry) for name, entry in content["alerts"].items()}
    except (
        OSError,
        UnicodeDecodeError,
        yaml.YAMLError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
    ) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(
            f"{file}: expected agreed alerts as the file's head describes them, got {why}."
        ) from None


def differences(rules: RuleSet, agreement: Mapping[str, Agreed]) -> list[str]:
    """Where the rules are not what was agreed; one sentence each, by alert."""
    alerts = {alert.name: alert for alert in rules.alerts}
    wrong = (
        []
        if len(rules.alerts) == len(agreement)
        else [f"expected {len(agreement)} alerts, got {len(rules.alerts)}"]
    )
    wrong += [f"{name}: expected an alert of this name, got none" for name in agreement if name not in alerts]
    wrong += [f"{name}: nobody agreed on this alert" for name in alerts if name not in agreement]
    for name, agreed in agreement.items():
        if name in alerts:
            wrong += [f"{name}: {sentence}" for sentence in _against(alerts[name], agreed)]
    return wrong


def _against(alert: Alert, agreed: Agreed) -> Iterator[str]:
    if alert.for_seconds != agreed.for_seconds:
        yield f"expected for {agreed.for_seconds:g} s, got {alert.for_seconds:g} s"
    for label, wanted in (("severity", agreed.severity), ("team", agreed.team)):
        if alert.labels.get(label) != wanted:
            yield f"expected {label} {wanted}, got {alert.labels.get(label, 'none')}"
    try:
        query = parse_query(alert.expr)
    except PromqlError as error:
        yield f"no PromQL: {error}"
        return
    yield from _conditions(query, agreed)
    windows = {*query.windows_seconds, *query.offsets_seconds}
    if windows != ({agreed.window} if agreed.window else set()):
        yield f"expected windows of {agreed.window:g} s, got {sorted(windows)}"
    if agreed.quantile is not None and set(query.quantiles) != {agreed.quantile}:
        yield f"expected the quantile {agreed.quantile:g}, got {query.quantiles or 'none'}"
    if agreed.absent and ("absent" not in query.functions or query.metrics != {agreed.absent}):
        yield f"expected absent({agreed.absent}), got {alert.expr}"


def _conditions(query: Query, agreed: Agreed) -> Iterator[str]:
    found = [one for one in query.comparisons if not one.left.startswith("resets(")]
    metrics = [parse_query(one.left).metrics for one in found]
    for condition in agreed.conditions:
        same = [one for one, names in zip(found, metrics, strict=True) if names == condition.metrics]
        wanted = f"{condition.operator} {condition.value:g}"
        if not same:
            wanted_names = ", ".join(sorted(condition.metrics))
            got = ", ".join(sorted(query.metrics)) or "nothing"
            yield f"expected it to watch {wanted_names} ({wanted}), got {got}"
        yield from (
            f"expected {wanted}, got {_shown(one)}"
            for one in same
            if (one.operator, one.threshold) != (condition.operator, condition.value)
        )
    known = [condition.metrics for condition in agreed.conditions]
    for one, names in zip(found, metrics, strict=True):
        if names not in known:
            yield f"compares {', '.join(sorted(names))} {_shown(one)}, which nobody agreed on"


def _shown(comparison: Comparison) -> str:
    return f"{comparison.operator} {comparison.threshold:g}"


def _agreed(name: str, entry: Mapping[str, Yaml]) -> Agreed:
    when = entry.get("when") or []
    muted_by = entry.get("muted_by") or []
    assert isinstance(when, list)
    assert isinstance(muted_by, list)
    quantile = entry.get("quantile")
    return Agreed(
        name=name,
        conditions=tuple(_condition(one) for one in when),
        absent=str(entry.get("absent") or ""),
        quantile=None if quantile is None else _number(quantile),
        window=_number(entry.get("window") or 0),
        for_seconds=_number(entry["for"]),
        severity=str(entry["severity"]),
        team=str(entry["team"]),
        muted_by=frozenset(map(str, muted_by)),
    )


def _condition(entry: Yaml) -> Condition:
    if not isinstance(entry, dict) or not isinstance(entry["metrics"], list):
        raise ValueError(f"expected a condition with metrics, operator and value, got: {entry!r}")
    return Condition(frozenset(map(str, entry["metrics"])), str(entry["operator"]), _number(entry["value"]))


def _number(value: Yaml) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got: {value!r}")
    return float(value)
