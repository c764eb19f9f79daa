"""Findings about a dashboard that need no server: one small function a check, listed in one table.

What a team wants of its dashboards (refresh, time range, core metrics) is a policy that the caller gives; what no
dashboard should have (overlaps, unsorted thresholds, broken queries) is always looked for. Whether panels have data
is asked of a running Prometheus by checks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

from readiness.dashboards.load import Dashboard, Panel
from readiness.dashboards.queries import parse_panel_query
from readiness.dashboards.semantics import panel_semantics
from readiness.rules.exposition import SCRAPE_METRICS
from readiness.rules.finding import Finding
from readiness.rules.load import RuleSet
from readiness.rules.promql import Comparison, PromqlError, Query, parse_query

GRID_COLUMNS = 24
SERIES_SUFFIXES = ("", "_bucket", "_sum", "_count")
TEXT_PANELS = frozenset({"text", "row", "news", "dashlist", "welcome"})
"""Panels that show no query."""


@dataclass(frozen=True, slots=True)
class DashboardPolicy:
    """What this team wants; empty or None means that it does not care."""

    refresh: str = ""
    time_from: str = ""
    core_metrics: tuple[str, ...] = ()
    threshold_colors: tuple[str, ...] = ()
    newest_schema_version: int | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What the checks may look at: `queries` that parse, by expression; `thresholds` of alerts, by left side."""

    dashboard: Dashboard
    policy: DashboardPolicy
    exposed: frozenset[str] | None
    queries: Mapping[str, Query]
    thresholds: Mapping[str, tuple[str, float]]


def dashboard_findings(
    dashboard: Dashboard,
    *,
    policy: DashboardPolicy | None = None,
    exposed_metrics: Collection[str] | None = None,
    alerts: RuleSet | None = None,
) -> list[Finding]:
    """Every finding, sorted by line.

    `exposed_metrics` are the names that the system offers, `alerts` the rules whose thresholds panels should share;
    None leaves those checks out.
    """
    context = Context(
        dashboard=dashboard,
        policy=policy or DashboardPolicy(),
        exposed=None if exposed_metrics is None else frozenset(exposed_metrics),
        queries=_parsed(dashboard),
        thresholds=_alert_thresholds(alerts),
    )
    found = [finding for whole in DASHBOARD_CHECKS for finding in whole(context)]
    found += [
        finding for one in PANEL_CHECKS for panel in dashboard.panels for finding in one(panel, context)
    ]
    return sorted(found)


def _whole_policy(context: Context) -> Iterator[Finding]:
    dashboard, policy = context.dashboard, context.policy
    if policy.refresh and dashboard.refresh != policy.refresh:
        message = f"expected refresh {policy.refresh}, got: {dashboard.refresh or 'none'}."
        yield _top(dashboard, "refresh", "refresh", message, f'Set "refresh": "{policy.refresh}".')
    if policy.time_from and (dashboard.time_from, dashboard.time_to) != (policy.time_from, "now"):
        got = f"{dashboard.time_from or 'none'} to {dashboard.time_to or 'none'}"
        message = f"expected the time range {policy.time_from} to now, got: {got}."
        yield _top(dashboard, "time", "time-range", message, "Set it under time.")
    newest = policy.newest_schema_version
    if newest is not None and not 0 < dashboard.schema_version <= newest:
        message = f"expected schemaVersion 1..{newest}, got: {dashboard.schema_version}."
        remedy = "A server older than the schema shows the dashboard wrongly."
        yield _top(dashboard, "schemaVersion", "schema-version", message, remedy)


def _whole_datasource(context: Context) -> Iterator[Finding]:
    sources = [variable for variable in context.dashboard.variables if variable.type == "datasource"]
    if not sources:
        message = "no variable of type datasource, so the dashboard works on one server only."
        yield _top(
            context.dashboard, "templating", "datasource-variable", message, "Add one under templating."
        )
    names = {form for variable in sources for form in (f"${variable.name}", f"${{{variable.name}}}")}
    used = {panel.datasource for panel in context.dashboard.panels}
    used |= {query.datasource for panel in context.dashboard.panels for query in panel.queries}
    for unknown in sorted(name for name in used - names if sources and name.startswith("$")):
        message = f"panels ask {unknown}, and no variable of type datasource has that name."
        yield _top(context.dashboard, "templating", "datasource-unknown", message, "Use the variable's name.")


def _whole_coverage(context: Context) -> Iterator[Finding]:
    drawn = {metric for query in context.queries.values() for metric in query.metrics}
    for metric in context.policy.core_metrics:
        if drawn.isdisjoint(metric + suffix for suffix in SERIES_SUFFIXES):
            message = f"no panel shows {metric}."
            yield _top(context.dashboard, "panels", "metric-without-panel", message, "Add a panel for it.")


def _whole_ids(context: Context) -> Iterator[Finding]:
    seen: dict[int, Panel] = {}
    for panel in context.dashboard.panels:
        if panel.id is not None and seen.setdefault(panel.id, panel) is not panel:
            message = f"{panel.label} has the id {panel.id} of {seen[panel.id].label}."
            yield _at(panel, context, "duplicate-id", message, "Give each panel an id of its own.")


def _whole_overlap(context: Context) -> Iterator[Finding]:
    for first, second in combinations(context.dashboard.panels, 2):
        # Panels of a collapsed row are laid out when it is opened, and move what is below it.
        together = first.row == second.row
        if first.grid and second.grid and together and first.grid.overlaps(second.grid):
            message = f"{second.label} overlaps {first.label}."
            yield _at(second, context, "overlap", message, "Move it in gridPos.")


DASHBOARD_CHECKS: tuple[Callable[[Context], Iterator[Finding]], ...] = (
    _whole_policy,
    _whole_datasource,
    _whole_coverage,
    _whole_ids,
    _whole_overlap,
)
"""The checks that look at the dashboard as a whole. Adding one is a function and its line here."""


def _panel_words(panel: Panel, context: Context) -> Iterator[Finding]:
    for what, word in (("title", panel.title), ("description", panel.description)):
        if not word.strip():
            yield _at(panel, context, f"{what}-missing", f"{panel.label} has no {what}.", f"Add a {what}.")
    if not panel.unit and panel.type not in TEXT_PANELS:
        remedy = "Set fieldConfig.defaults.unit."
        yield _at(panel, context, "unit-missing", f"{panel.label} has no unit.", remedy)


def _panel_grid(panel: Panel, context: Context) -> Iterator[Finding]:
    grid = panel.grid
    if grid is not None and (grid.x < 0 or grid.width < 1 or grid.x + grid.width > GRID_COLUMNS):
        message = f"{panel.label} spans columns {grid.x}..{grid.x + grid.width}, the grid has {GRID_COLUMNS}."
        yield _at(panel, context, "beyond-grid", message, "Correct gridPos.")


def _panel_thresholds(panel: Panel, context: Context) -> Iterator[Finding]:
    steps = panel.thresholds
    wanted = context.policy.threshold_colors
    if wanted and sorted(step.color for step in steps) != sorted(wanted):
        got = ", ".join(step.color for step in steps) or "none"
        message = f"{panel.label}: expected thresholds {', '.join(wanted)}, got: {got}."
        yield _at(panel, context, "threshold-colors", message, "Set fieldConfig.defaults.thresholds.")
    values = [float("-inf") if step.value is None else step.value for step in steps]
    if any(left >= right for left, right in pairwise(values)):
        message = f"{panel.label}: thresholds {values} do not ascend, so Grafana paints the wrong colour."
        yield _at(panel, context, "threshold-order", message, "Sort the steps.")


def _panel_alert(panel: Panel, context: Context) -> Iterator[Finding]:
    red = [step.value for step in panel.thresholds if step.color == "red"]
    for query in panel.queries:
        parsed = context.queries.get(query.expr)
        alert = context.thresholds.get(parsed.canonical) if parsed is not None else None
        if alert is not None and alert[1] not in red:
            message = f"{panel.label} is red from {red}, but {alert[0]} fires at {alert[1]:g}."
            remedy = f"Let red begin at {alert[1]:g}."
            yield _at(panel, context, "threshold-differs-from-alert", message, remedy)


def _panel_queries(panel: Panel, context: Context) -> Iterator[Finding]:
    if panel.type in TEXT_PANELS:
        return
    if not any(query.expr for query in panel.queries):
        yield _at(panel, context, "no-query", f"{panel.label} has no query.", "Add a target with an expr.")
    refs = [query.ref for query in panel.queries]
    if len(set(refs)) < len(refs):
        message = f"{panel.label}: two queries share a refId ({', '.join(refs)})."
        yield _at(panel, context, "duplicate-ref", message, "Give each query a refId of its own.")
    for query in panel.queries:
        if query.expr and not (query.datasource or panel.datasource).startswith("$"):
            message = f"{panel.label} query {query.ref} does not use the datasource variable."
            yield _at(panel, context, "panel-datasource", message, "Set its datasource uid to ${datasource}.")
        if query.expr and query.expr not in context.queries:
            message = f"{panel.label} query {query.ref} is no PromQL: {_why_not(query.expr)}."
            yield _at(panel, context, "expr-syntax", message, "Correct the query.")


def _panel_metrics(panel: Panel, context: Context) -> Iterator[Finding]:
    if context.exposed is None:
        return
    parsed = [context.queries[query.expr] for query in panel.queries if query.expr in context.queries]
    for metric in sorted(
        {name for query in parsed for name in query.metrics} - context.exposed - SCRAPE_METRICS
    ):
        message = f"{panel.label} selects {metric}, which nothing exposes: it stays empty."
        yield _at(panel, context, "metric-not-exposed", message, "Correct the name.")


def _panel_meaning(panel: Panel, context: Context) -> Iterator[Finding]:
    for check, words, remedy in panel_semantics(panel):
        yield _at(panel, context, check, f"{panel.label}: {words}", remedy)


PANEL_CHECKS: tuple[Callable[[Panel, Context], Iterator[Finding]], ...] = (
    _panel_words,
    _panel_grid,
    _panel_thresholds,
    _panel_alert,
    _panel_queries,
    _panel_metrics,
    _panel_meaning,
)
"""The checks that look at one panel at a time. Adding one is a function and its line here."""


def _parsed(dashboard: Dashboard) -> dict[str, Query]:
    queries: dict[str, Query] = {}
    for expr in {query.expr for panel in dashboard.panels for query in panel.queries if query.expr}:
        try:
            queries[expr] = parse_panel_query(expr)
        except PromqlError:
            continue  # `_panel_queries` says so, with the reason
    return queries


def _alert_thresholds(alerts: RuleSet | None) -> dict[str, tuple[str, float]]:
    """Canonical left side of each alert's comparison -> the alert's name and its threshold."""
    found: dict[str, tuple[str, float]] = {}
    for alert in alerts.alerts if alerts is not None else ():
        comparison = _comparison(alert.expr)
        if comparison is not None:
            found[comparison.left] = (alert.name, comparison.threshold)
    return found


def _comparison(expr: str) -> Comparison | None:
    try:
        return parse_query(expr).comparison
    except PromqlError:
        return None


def _why_not(expr: str) -> str:
    try:
        parse_panel_query(expr)
    except PromqlError as error:
        return str(error)
    return "it is"


def _at(panel: Panel, context: Context, check: str, message: str, remedy: str) -> Finding:
    return Finding(context.dashboard.file, panel.line, f"dashboards/{check}", message, remedy)


def _top(dashboard: Dashboard, key: str, check: str, message: str, remedy: str) -> Finding:
    return Finding(dashboard.file, dashboard.lines.get(key, 1), f"dashboards/{check}", message, remedy)
