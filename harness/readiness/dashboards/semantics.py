"""Does a panel show what it says? Its words, its unit and its colours against its query: one small function a question.

A panel that draws an average under the title P95, or milliseconds as seconds, has data and looks well. Knows no policy
and no server.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from readiness.dashboards.load import Panel, ThresholdStep
from readiness.dashboards.queries import parse_panel_query
from readiness.rules.promql import PromqlError, Query

Said = tuple[str, str, str]
"""The check's name, what is wrong, what to do."""

TIME_UNITS = frozenset(
    {"ns", "µs", "ms", "s", "m", "h", "d", "dtdurationms", "dtdurations", "clockms", "clocks"}
)
BYTE_UNITS = frozenset(
    {"bytes", "decbytes", "bits", "decbits", "kbytes", "mbytes", "gbytes", "Bps", "binBps"}
)
_UNITS_BY_SUFFIX = {
    "_ms": frozenset({"ms", "dtdurationms", "clockms"}),
    "_seconds": frozenset({"s", "dtdurations", "clocks"}),
    "_bytes": BYTE_UNITS,
    "_pct": frozenset({"percent"}),
    "_ratio": frozenset({"percentunit"}),
}
"""Ids of https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts"""

_PLACE_LABELS = "instance|job|pod|namespace|node|host|hostname|cluster|lane|environment|region|datacenter"
_HARD_CODED = re.compile(rf'\b({_PLACE_LABELS})\s*=~?\s*"([^"$\[]+)"')
_PERCENTILE = re.compile(r"\bP(\d{1,2}(?:\.\d+)?)\b")
_WINDOW = re.compile(r"\b(\d+) (second|minute|hour)s?\b")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}
_COLOURED = re.compile(
    r"\b(red|yellow|green)(?: begins)? (above|at|from|below) ([\d.]+)(?: ?(ms|s|%)(?!\w))?", re.IGNORECASE
)


def panel_semantics(panel: Panel) -> Iterator[Said]:
    """Everything that is to be said about one panel; what its other queries add to the first one is not judged."""
    for query in panel.queries:
        for found in _HARD_CODED.finditer(query.expr):
            words = f'query {query.ref} is bound to {found[1]}="{found[2]}", so it is empty everywhere else.'
            yield "hard-coded-place", words, "Remove the matcher, or let a variable choose."
    main = panel.queries[0] if panel.queries else None
    if main is None or not main.expr:
        return
    try:
        parsed = parse_panel_query(main.expr)
    except PromqlError:
        return  # another check says so
    for question in QUESTIONS:
        yield from question(panel, parsed)


def _unit(panel: Panel, query: Query) -> Iterator[Said]:
    if not panel.unit:
        return
    wanted = _wanted_units(query)
    remedy = "Let the unit be that of the metric."
    if wanted and panel.unit not in wanted:
        names = ", ".join(sorted(query.metrics))
        yield "unit-differs-from-metric", f"shows {names} in the unit {panel.unit!r}.", remedy
    counted = not wanted and (panel.unit in TIME_UNITS | BYTE_UNITS)
    if counted or (not wanted and panel.unit == "percent" and "100" not in query.text):
        yield "unit-differs-from-metric", f"counts something and shows it in the unit {panel.unit!r}.", remedy


def _wanted_units(query: Query) -> frozenset[str]:
    """The units that fit the query's value; none when it is a count, a rate or a ratio."""
    stems = {
        re.sub(r"_(bucket|sum|total)$", "", metric)
        for metric in query.metrics
        if not metric.endswith("_count")
    }
    found = [
        units for suffix, units in _UNITS_BY_SUFFIX.items() if any(stem.endswith(suffix) for stem in stems)
    ]
    return found[0] if len(found) == 1 else frozenset()


def _percentile(panel: Panel, query: Query) -> Iterator[Said]:
    said = {float(number) / 100 for number in _PERCENTILE.findall(panel.title)}
    drawn = set(query.quantiles)
    if said and not any(math.isclose(a, b) for a in said for b in drawn):
        got = f"quantiles {sorted(drawn)}" if drawn else "no quantile at all"
        words = f"its title says P{100 * min(said):g}, its query computes {got}."
        yield "title-differs-from-query", words, "Let the query be histogram_quantile of that share."
    if drawn and not said:
        yield (
            "title-differs-from-query",
            f"draws the quantile {min(drawn):g} and its title does not say so.",
            "Say it.",
        )


def _window(panel: Panel, query: Query) -> Iterator[Said]:
    said = {int(number) * _SECONDS[unit] for number, unit in _WINDOW.findall(panel.title)}
    drawn = {*query.windows_seconds, *query.offsets_seconds}
    if said and drawn != said:
        words = f"its title says {sorted(said)} s, its query looks at {sorted(drawn)} s."
        yield "title-differs-from-query", words, "Let both name the same time."


def _colours(panel: Panel, query: Query) -> Iterator[Said]:
    for color, side, number, unit in _COLOURED.findall(panel.description):
        value = _in_unit(float(number), unit, panel.unit)
        border = _border(panel.thresholds, color.lower(), below=side.lower() == "below")
        if border is None or not math.isclose(border, value):
            words = f"its description says {color} {side} {number}{f' {unit}' if unit else ''}, its steps say {border}."
            yield "description-differs-from-threshold", words, "Let both name the same value."


def _in_unit(value: float, unit: str, panel_unit: str) -> float:
    if unit == "s" and panel_unit == "ms":
        return 1000 * value
    if unit == "ms" and panel_unit == "s":
        return value / 1000
    return value / 100 if unit == "%" and panel_unit == "percentunit" else value


def _border(steps: tuple[ThresholdStep, ...], color: str, *, below: bool) -> float | None:
    """Where the colour begins, or where it ends when it lies below."""
    places = [place for place, step in enumerate(steps) if step.color == color]
    place = places[0] + int(below) if places else len(steps)
    return steps[place].value if place < len(steps) else None


QUESTIONS: tuple[Callable[[Panel, Query], Iterator[Said]], ...] = (_unit, _percentile, _window, _colours)
"""What is asked of a panel and its first query. Adding a question is a function and its line here."""
