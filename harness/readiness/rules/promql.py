"""Read PromQL: does it parse, which metrics does it select, what does it compare with, over which windows.

Knows no rule files and no dashboards. The parser is promql-parser (PromQL of Prometheus 2.45 and newer).
"""

from __future__ import annotations

from dataclasses import dataclass

import promql_parser

COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
SET_OPERATORS = frozenset({"and", "or", "unless"})

MAX_EXPRESSION_CHARS = 100_000
"""Longer than any expression that a person or a generator writes; bounds the parser's time on hostile input."""


class PromqlError(ValueError):
    """The text is no PromQL; the message is the parser's reason."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator threshold`, as it stands at the top of an alert; `left` is in canonical form."""

    left: str
    operator: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed expression. `metrics` are the names that it selects; `windows_seconds` its ranges, in order."""

    text: str
    canonical: str
    metrics: frozenset[str]
    windows_seconds: tuple[float, ...]
    comparison: Comparison | None
    compares: bool


def parse_query(text: str) -> Query:
    """Parse an expression. PromqlError when it is none, or too long to be one."""
    if len(text) > MAX_EXPRESSION_CHARS:
        raise PromqlError(f"{len(text)} characters, more than {MAX_EXPRESSION_CHARS}")
    try:
        tree = promql_parser.parse(text)
    except ValueError as error:
        raise PromqlError(str(error)) from None
    metrics: set[str] = set()
    windows: list[float] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            metrics.update(_names(node))
        elif isinstance(node, promql_parser.MatrixSelector):
            metrics.update(_names(node.vector_selector))
            windows.append(node.range.total_seconds())
        elif isinstance(node, promql_parser.SubqueryExpr) and node.range is not None:
            windows.append(node.range.total_seconds())

    promql_parser.walk(tree, visit)
    return Query(
        text=text,
        canonical=tree.prettify(),
        metrics=frozenset(metrics),
        windows_seconds=tuple(windows),
        comparison=_comparison(tree),
        compares=_compares(tree),
    )


def duration_seconds(text: str) -> float:
    """Seconds of a Prometheus duration such as `1m30s`. PromqlError when it is none."""
    if text.strip() in (
        "0",
        "0s",
    ):  # what Prometheus writes for "no duration"; the parser wants a unit and a value
        return 0.0
    try:
        return promql_parser.parse_duration(text).total_seconds()
    except ValueError as error:
        raise PromqlError(str(error)) from None


def _names(selector: promql_parser.VectorSelector) -> set[str]:
    if selector.name:
        return {selector.name}
    equal = promql_parser.MatchOp.Equal
    return {m.value for m in selector.matchers.matchers if m.name == "__name__" and m.op == equal}


def _comparison(tree: promql_parser.Expr) -> Comparison | None:
    """The comparison at the very top, when its right side is a number."""
    node = _bare(tree)
    if not isinstance(node, promql_parser.BinaryExpr) or str(node.op) not in COMPARISONS:
        return None
    right = _bare(node.rhs)
    if not isinstance(right, promql_parser.NumberLiteral):
        return None
    return Comparison(left=_bare(node.lhs).prettify(), operator=str(node.op), threshold=right.val)


def _compares(tree: promql_parser.Expr) -> bool:
    """True when the expression can be empty by its own condition, as an alert's must: a comparison, absent()."""
    node = _bare(tree)
    if isinstance(node, promql_parser.BinaryExpr):
        if str(node.op) in SET_OPERATORS:
            return _compares(node.lhs) or (str(node.op) != "or" and _compares(node.rhs))
        if str(node.op) in COMPARISONS:
            return node.modifier is None or not node.modifier.return_bool
        return _compares(node.lhs) or _compares(node.rhs)
    if isinstance(node, promql_parser.Call):
        return node.func.name in ("absent", "absent_over_time")
    return False


def _bare(node: promql_parser.Expr) -> promql_parser.Expr:
    while isinstance(node, promql_parser.ParenExpr):
        node = node.expr
    return node
