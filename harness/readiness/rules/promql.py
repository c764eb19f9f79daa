"""Read PromQL: does it parse, what does it select and call, what does it compare with, over which windows.

Knows no rule files and no dashboards. The parser is promql-parser (PromQL of Prometheus 2.45 and newer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import promql_parser

COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
SET_OPERATORS = frozenset({"and", "or", "unless"})
_OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}

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
class Matcher:
    """One `label operator "value"` of a selector; the operator is =, !=, =~ or !~."""

    label: str
    operator: str
    value: str

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a series of these labels matches; a label that is absent counts as empty, as in Prometheus."""
        got = labels.get(self.label, "")
        if self.operator in ("=", "!="):
            return (got == self.value) is (self.operator == "=")
        # RE2 and Python agree on what rules use: alternatives, classes and wildcards.
        return (re.fullmatch(self.value, got) is not None) is (self.operator == "=~")


@dataclass(frozen=True, slots=True)
class Selector:
    """One selection of series: a metric's name and its matchers."""

    metric: str
    matchers: tuple[Matcher, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed expression. `metrics` are the names that it selects; `windows_seconds` its ranges, in order.

    `comparison` stands at the top, `comparisons` are all with a number, at any depth. `quantiles` are the shares that
    histogram_quantile and quantile take, `functions` the names called, aggregations included, and `grouping` the
    labels of by, without, on and ignoring.
    """

    text: str
    canonical: str
    metrics: frozenset[str]
    windows_seconds: tuple[float, ...]
    comparison: Comparison | None
    compares: bool
    selectors: tuple[Selector, ...] = ()
    offsets_seconds: tuple[float, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    quantiles: tuple[float, ...] = ()
    functions: frozenset[str] = frozenset()
    grouping: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Parts:
    """What a walk over the tree gathers."""

    metrics: set[str] = field(default_factory=set)
    windows: list[float] = field(default_factory=list)
    selectors: list[Selector] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    quantiles: list[float] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    grouping: set[str] = field(default_factory=set)

    def visit(self, node: promql_parser.Expr) -> None:
        """Take what one node says."""
        if isinstance(node, promql_parser.VectorSelector):
            self._select(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            self._select(node.vector_selector)
            self.windows.append(node.range.total_seconds())
        elif isinstance(node, promql_parser.SubqueryExpr) and node.range is not None:
            self.windows.append(node.range.total_seconds())
        elif isinstance(node, promql_parser.BinaryExpr):
            found = _comparison(node)
            self.comparisons += [found] if found is not None else []
            matching = node.modifier.matching if node.modifier is not None else None
            self.grouping.update(matching.labels if matching is not None else ())
        elif isinstance(node, promql_parser.Call):
            self.functions.add(node.func.name)
            self._quantile(node.func.name, node.args[0] if node.args else None)
        elif isinstance(node, promql_parser.AggregateExpr):
            self.functions.add(str(node.op))
            self.grouping.update(node.modifier.labels if node.modifier is not None else ())
            self._quantile(str(node.op), node.param)

    def _select(self, node: promql_parser.VectorSelector) -> None:
        names = _names(node)
        self.metrics.update(names)
        self.offsets += [] if node.offset is None else [node.offset.total_seconds()]
        matchers = tuple(
            Matcher(one.name, _OPERATORS[str(one.op)], one.value)
            for one in node.matchers.matchers
            if one.name != "__name__"
        )
        self.selectors += [Selector(name, matchers) for name in sorted(names)]

    def _quantile(self, function: str, share: promql_parser.Expr | None) -> None:
        if function in ("histogram_quantile", "quantile") and share is not None:
            number = _bare(share)
            if isinstance(number, promql_parser.NumberLiteral):
                self.quantiles.append(number.val)


def parse_query(text: str) -> Query:
    """Parse an expression. PromqlError when it is none, or too long to be one."""
    if len(text) > MAX_EXPRESSION_CHARS:
        raise PromqlError(f"{len(text)} characters, more than {MAX_EXPRESSION_CHARS}")
    try:
        tree = promql_parser.parse(text)
    except ValueError as error:
        raise PromqlError(str(error)) from None
    parts = _Parts()
    promql_parser.walk(tree, parts.visit)
    return Query(
        text=text,
        canonical=tree.prettify(),
        metrics=frozenset(parts.metrics),
        windows_seconds=tuple(parts.windows),
        comparison=_comparison(tree),
        compares=_compares(tree),
        selectors=tuple(dict.fromkeys(parts.selectors)),
        offsets_seconds=tuple(parts.offsets),
        comparisons=tuple(parts.comparisons),
        quantiles=tuple(parts.quantiles),
        functions=frozenset(parts.functions),
        grouping=frozenset(parts.grouping),
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
