"""Findings about alert rules that need no server: one small function a check, listed in one table.

Whether Prometheus takes the rules is asked of promtool (tools.py); whether they fire, of the unit tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from readiness.rules.exposition import SCRAPE_METRICS
from readiness.rules.finding import Finding
from readiness.rules.load import Alert, Record, RuleSet
from readiness.rules.promql import PromqlError, Query, parse_query
from readiness.rules.unit_tests import AlertCoverage, alert_coverage, unit_test_files

REQUIRED_LABELS = ("severity", "team")
SEVERITIES = ("critical", "warning")
REQUIRED_ANNOTATIONS = ("summary", "description", "runbook_url")

_TEMPLATE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Context:
    """What the checks may look at. None means not known: then the checks that need it say nothing."""

    ruleset: RuleSet
    exposed: frozenset[str] | None
    runbooks_dir: Path | None
    tested: Mapping[str, AlertCoverage]
    queries: Mapping[str, Query]


def static_findings(
    ruleset: RuleSet,
    *,
    exposed_metrics: Collection[str] | None,
    runbooks_dir: Path | None,
    tests_dir: Path | None = None,
) -> list[Finding]:
    """Every finding about the rules, sorted by file and line.

    `exposed_metrics` are the names that the system offers (see `exposition.exposed_names`); None leaves that check
    out. `tests_dir` is `tests` beside the rules when it is not given.
    """
    folder = tests_dir or (ruleset.path if ruleset.path.is_dir() else ruleset.path.parent) / "tests"
    context = Context(
        ruleset=ruleset,
        exposed=None if exposed_metrics is None else frozenset(exposed_metrics),
        runbooks_dir=runbooks_dir,
        tested=alert_coverage(unit_test_files(folder)),
        queries=_parsed(ruleset),
    )
    found = [finding for check in CHECKS for alert in ruleset.alerts for finding in check(alert, context)]
    found += [finding for rule in ruleset.rules for finding in _expression(rule, context)]
    found += _duplicates(ruleset)
    return sorted(found)


def _labels(alert: Alert, context: Context) -> Iterator[Finding]:
    for label in REQUIRED_LABELS:
        if not alert.labels.get(label):
            yield _finding(
                alert, "label-missing", f"{alert.name} has no label {label}.", f"Add {label} under labels."
            )
    severity = alert.labels.get("severity")
    if severity and severity not in SEVERITIES:
        message = f"{alert.name}: expected severity {' or '.join(SEVERITIES)}, got: {severity}."
        yield _finding(alert, "severity-unknown", message, "No route knows it: use one of these.")
    for label, value in alert.labels.items():
        if "$value" in value or ".Value" in value:
            message = f"{alert.name}: label {label} holds the value, so each evaluation is another alert."
            yield _finding(alert, "value-in-label", message, "Move it to an annotation.")


def _annotations(alert: Alert, context: Context) -> Iterator[Finding]:
    for annotation in REQUIRED_ANNOTATIONS:
        if not alert.annotations.get(annotation):
            message = f"{alert.name} has no annotation {annotation}."
            yield _finding(alert, "annotation-missing", message, f"Add {annotation} under annotations.")
    description = alert.annotations.get("description")
    if description and not _TEMPLATE.search(description):
        message = f"{alert.name}: the description has no template, so it never says how bad it is."
        yield _finding(alert, "description-static", message, "Print {{ $value | humanize }}, or a label.")
    if _TEMPLATE.search(alert.annotations.get("summary", "")):
        message = f"{alert.name}: the summary has a template, so one alert has many summaries."
        yield _finding(alert, "summary-templated", message, "Move it to the description.")


def _runbook(alert: Alert, context: Context) -> Iterator[Finding]:
    url = alert.annotations.get("runbook_url", "")
    if context.runbooks_dir is None or not url:
        return
    page = url.split("#")[0].rstrip("/").rpartition("/")[2]
    file = context.runbooks_dir / f"{page}.md"
    if not file.is_file():
        message = f"{alert.name}: runbook_url names {page!r}, but {file.name} is not among the runbooks."
        yield _finding(alert, "runbook-missing", message, f"Write {file.name}, or correct the URL.")
        return
    headings = _HEADING.findall(file.read_text(encoding="utf-8"))
    if alert.name not in headings:
        message = f"{alert.name}: {file.name} has no heading of that name."
        yield _finding(alert, "runbook-heading-missing", message, f"Add a section `## {alert.name}`.")
    anchor = url.partition("#")[2]
    if anchor and anchor != alert.name.lower():
        message = f"{alert.name}: runbook_url ends in #{anchor}, which is not its heading."
        yield _finding(alert, "runbook-anchor", message, f"Let it end in #{alert.name.lower()}.")


def _condition(alert: Alert, context: Context) -> Iterator[Finding]:
    query = context.queries.get(alert.expr)
    if query is not None and not query.compares:
        message = f"{alert.name}: the expression has no comparison, so it fires as long as the series exist."
        yield _finding(alert, "no-comparison", message, "Compare with a threshold.", line=alert.expr_line)
    if alert.for_seconds <= 0:
        message = f"{alert.name} has no `for`, so one odd scrape fires it."
        yield _finding(alert, "for-missing", message, "Add `for`.")


def _unit_test(alert: Alert, context: Context) -> Iterator[Finding]:
    tested = context.tested.get(alert.name)
    if tested is None or tested.firing == 0:
        message = f"{alert.name}: no unit test in which it fires."
        yield _finding(alert, "unit-test-missing", message, "Add one under tests/ (promtool test rules).")
    elif tested.silent == 0:
        message = f"{alert.name}: no unit test in which it keeps silent."
        yield _finding(alert, "unit-test-never-silent", message, "Add one just below the threshold.")


CHECKS: tuple[Callable[[Alert, Context], Iterator[Finding]], ...] = (
    _labels,
    _annotations,
    _runbook,
    _condition,
    _unit_test,
)
"""The checks that look at one alert at a time. Adding one is a function and its line here."""


def _expression(rule: Alert | Record, context: Context) -> Iterator[Finding]:
    query = context.queries.get(rule.expr)
    if query is None:
        message = f"{rule.name}: the expression is no PromQL: {_why_not(rule.expr)}."
        yield _finding(rule, "expr-syntax", message, "Correct the expression.", line=rule.expr_line)
        return
    if context.exposed is None:
        return
    known = context.exposed | SCRAPE_METRICS | {record.name for record in context.ruleset.records}
    for metric in sorted(query.metrics - known):
        message = f"{rule.name} selects {metric}, which nothing exposes: it can never see a value."
        yield _finding(rule, "metric-not-exposed", message, "Correct the name.", line=rule.expr_line)


def _duplicates(ruleset: RuleSet) -> Iterator[Finding]:
    seen: dict[tuple[str, frozenset[tuple[str, str]]], Alert] = {}
    for alert in ruleset.alerts:
        first = seen.setdefault((alert.name, frozenset(alert.labels.items())), alert)
        if first is not alert:
            message = f"{alert.name} stands already at {first.file.name}:{first.line} with the same labels."
            yield _finding(alert, "duplicate-alert", message, "Remove one, or let a label tell them apart.")


def _parsed(ruleset: RuleSet) -> dict[str, Query]:
    queries: dict[str, Query] = {}
    for rule in ruleset.rules:
        try:
            queries[rule.expr] = parse_query(rule.expr)
        except PromqlError:
            continue  # `_expression` says so, with the reason
    return queries


def _why_not(expr: str) -> str:
    try:
        parse_query(expr)
    except PromqlError as error:
        return str(error)
    return "it is"


def _finding(rule: Alert | Record, check: str, message: str, remedy: str, *, line: int = 0) -> Finding:
    return Finding(
        file=rule.file, line=line or rule.line, id=f"rules/{check}", message=message, remedy=remedy
    )
