"""Make a panel's query plain PromQL: Grafana's variables are replaced by what they could stand for.

Source of the built-in variables:
https://grafana.com/docs/grafana/latest/dashboards/variables/add-template-variables/#global-variables
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from readiness.rules.promql import PromqlError, Query, parse_query

RATE_INTERVAL = "1m"
"""What $__rate_interval stands for where nobody says: four scrapes of 15 s."""

_BUILT_IN = {
    "__rate_interval": RATE_INTERVAL,
    "__interval": "15s",
    "__interval_ms": "15000",
    "__range": "1h",
    "__range_s": "3600",
    "__range_ms": "3600000",
}
_VARIABLE = re.compile(
    r"\$(?:\{(?P<braced>\w+)(?:[:.][^}]*)?\}|(?P<bare>\w+))|\[\[(?P<old>\w+)(?::[^\]]*)?\]\]"
)
_GUESSES = ("x", "1", "5m", 'x="x"')
"""A variable may be a word, a number, a duration or a list of matchers; the first that parses is taken."""


def substitute(expr: str, *, values: Mapping[str, str] | None = None, other: str = "x") -> str:
    """`expr` without variables: built-in ones by their value, those in `values` by theirs, any other by `other`."""
    known = {**_BUILT_IN, **(values or {})}

    def replaced(found: re.Match[str]) -> str:
        return known.get(found["braced"] or found["bare"] or found["old"], other)

    return _VARIABLE.sub(replaced, expr)


def parse_panel_query(expr: str) -> Query:
    """Parse a panel's query, variables included. PromqlError when no meaning of its variables makes it PromQL."""
    reason: PromqlError | None = None
    for text in _readings(expr):
        try:
            return parse_query(text)
        except PromqlError as error:
            reason = reason or error
    assert reason is not None
    raise reason


def _readings(expr: str) -> Iterator[str]:
    first = substitute(expr, other=_GUESSES[0])
    yield first
    if first != substitute(expr, other=_GUESSES[1]):
        yield from (substitute(expr, other=guess) for guess in _GUESSES[1:])
