"""Does a rule select what the running system has? A metric may be there, and a matcher of the rule still see nothing.

Replays the selectors of expressions on a scrape. What only a fault brings (a status 5xx) cannot be asked of a healthy
system: of a pattern the label must be there, of a written-out value also the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from readiness.rules.promql import Matcher, Query, Selector

ADDED_BY_PROMETHEUS = frozenset({"instance", "job"})
"""Labels that no scrape shows and every stored series has."""

_LITERALS = re.compile(r"[\w\-/.:|]+")
_SERIES_OF_ITS_OWN = ("ALERTS", "ALERTS_FOR_STATE", "up")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A live series without its value."""

    name: str
    labels: Mapping[str, str]


def dead_selectors(query: Query, series: Sequence[Labelled]) -> list[str]:
    """One sentence for each selector and grouping label of the query that the live series cannot satisfy."""
    wrong = [
        sentence
        for selector in query.selectors
        if selector.metric not in _SERIES_OF_ITS_OWN
        for sentence in _dead(selector, [one for one in series if one.name == selector.metric])
    ]
    names = {selector.metric for selector in query.selectors}
    known = {label for one in series if one.name in names for label in one.labels} | ADDED_BY_PROMETHEUS
    wrong += [f"groups by {label}, which no series of it has" for label in sorted(query.grouping - known)]
    return list(dict.fromkeys(wrong))


def _dead(selector: Selector, series: Sequence[Labelled]) -> Iterator[str]:
    if not series:
        yield f"{selector.metric}: no live series"
        return
    values = {
        matcher.label: {one.labels.get(matcher.label, "") for one in series} for matcher in selector.matchers
    }
    for matcher in selector.matchers:
        shown = f'{selector.metric}{{{matcher.label}{matcher.operator}"{matcher.value}"}}'
        if matcher.label in ADDED_BY_PROMETHEUS:
            continue
        if values[matcher.label] == {""}:
            yield f"{shown}: no live series has the label {matcher.label}"
            continue
        for value in _written_out(matcher):
            if value not in values[matcher.label]:
                yield f"{shown}: no live series has {value!r}, only {_some(values[matcher.label])}"


def _written_out(matcher: Matcher) -> list[str]:
    """The values that a matcher names one by one; none when it is a pattern, or says what must not be."""
    if matcher.operator == "=":
        return [matcher.value]
    if matcher.operator == "=~" and _LITERALS.fullmatch(matcher.value) and "." not in matcher.value:
        return matcher.value.split("|")
    return []


def _some(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)[:8])
