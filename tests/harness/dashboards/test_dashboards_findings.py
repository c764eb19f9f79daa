"""The shipped dashboard has no finding, and each kind of finding is provoked by breaking a copy of it once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ragworker.telemetry import CORE_METRICS, METRICS
from readiness.dashboards import dashboard_findings, load_dashboard
from readiness.rules import Finding, exposed_names, load_rules

BOARD = "dashboards/ragworker.json"
CHECK = "checks/dashboard/test_panels.py"

Board = dict[str, Any]


def _panel(board: Board, place: int = 0) -> Any:
    return board["panels"][place]


def _defaults(board: Board, place: int = 0) -> Any:
    return _panel(board, place)["fieldConfig"]["defaults"]


def _set(container: Any, key: Any, value: Any) -> None:
    container[key] = value


BREAKS: dict[str, Callable[[Board], None]] = {
    "refresh": lambda board: _set(board, "refresh", "5m"),
    "time-range": lambda board: _set(board["time"], "from", "now-6h"),
    "schema-version": lambda board: _set(board, "schemaVersion", 42),
    "datasource-variable": lambda board: _set(board["templating"], "list", []),
    "metric-without-panel": lambda board: board["panels"].pop(7),
    "duplicate-id": lambda board: _set(_panel(board), "id", 2),
    "overlap": lambda board: _set(_panel(board, 3)["gridPos"], "y", 4),
    "beyond-grid": lambda board: _set(_panel(board, 1)["gridPos"], "w", 13),
    "title-missing": lambda board: _set(_panel(board), "title", " "),
    "description-missing": lambda board: _panel(board).pop("description"),
    "unit-missing": lambda board: _defaults(board).pop("unit"),
    "threshold-colors": lambda board: _defaults(board)["thresholds"]["steps"].pop(),
    "threshold-order": lambda board: _set(_defaults(board)["thresholds"]["steps"][1], "value", 60),
    "threshold-differs-from-alert": lambda board: _set(
        _defaults(board)["thresholds"]["steps"][2], "value", 60
    ),
    "no-query": lambda board: _set(_panel(board), "targets", []),
    "duplicate-ref": lambda board: _set(_panel(board, 2)["targets"][1], "refId", "A"),
    "panel-datasource": lambda board: _set(
        _panel(board)["targets"][0]["datasource"], "uid", "P1809F7CD0C75ACF3"
    ),
    "expr-syntax": lambda board: _set(_panel(board)["targets"][0], "expr", "max(rag_queue_length"),
    "metric-not-exposed": lambda board: _set(_panel(board)["targets"][0], "expr", "max(rag_queue_size)"),
    "datasource-unknown": lambda board: _set(_panel(board)["datasource"], "uid", "${source}"),
    "hard-coded-place": lambda board: _set(
        _panel(board)["targets"][0], "expr", 'max(rag_queue_length{instance="10.0.0.7:8000"})'
    ),
    "unit-differs-from-metric": lambda board: _set(_defaults(board, 1), "unit", "s"),
    "title-differs-from-query": lambda board: _set(
        _panel(board, 1)["targets"][0],
        "expr",
        "max(rate(rag_job_duration_ms_sum[10m])) / max(rate(rag_job_duration_ms_count[10m]))",
    ),
    "description-differs-from-threshold": lambda board: _set(
        _defaults(board, 4)["thresholds"]["steps"][2], "value", 40
    ),
}


def findings(content: Path, check: ModuleType) -> list[Finding]:
    """Everything that is to be said about the dashboard of a content root."""
    exposed = exposed_names("".join(f"# TYPE {metric.name} {metric.kind}\n" for metric in METRICS))
    return dashboard_findings(
        load_dashboard(content / BOARD),
        policy=check.POLICY,
        exposed_metrics=exposed,
        alerts=load_rules(content / "rules"),
    )


def rewrite(content: Path, change: Callable[[Board], object]) -> None:
    """Change the JSON of the copy."""
    file = content / BOARD
    board = json.loads(file.read_text(encoding="utf-8"))
    before = json.dumps(board)
    change(board)
    assert json.dumps(board) != before, "this test would break nothing"
    file.write_text(json.dumps(board, indent=2), encoding="utf-8")


def test_the_shipped_dashboard_has_no_finding(
    repository: Path, load_check: Callable[[str], ModuleType]
) -> None:
    """Ten panels, one per core metric, not one finding, on the metrics that ragworker declares."""
    check = load_check(CHECK)
    assert findings(repository, check) == []
    assert check.unassigned(load_dashboard(repository / BOARD)) == []
    assert set(check.CORE_METRICS) == {metric.name for metric in CORE_METRICS}


@pytest.mark.parametrize("name", BREAKS)
def test_each_defect_is_found(name: str, content: Path, load_check: Callable[[str], ModuleType]) -> None:
    """A defect planted in a copy is found, with its id and a line inside the file."""
    rewrite(content, BREAKS[name])
    found = [
        finding for finding in findings(content, load_check(CHECK)) if finding.id == f"dashboards/{name}"
    ]
    assert found, f"dashboards/{name} did not notice"
    assert 1 <= found[0].line <= len((content / BOARD).read_text(encoding="utf-8").splitlines())
    assert found[0].remedy.endswith(".")


def test_an_alert_that_moves_leaves_its_panel_behind(
    content: Path, edit: Callable[[str, str, str], None], load_check: Callable[[str], ModuleType]
) -> None:
    """A threshold that is changed in the rules only is found on the panel: one fact, two places."""
    edit("rules/ragworker.yml", "max(rag_queue_length) > 50", "max(rag_queue_length) > 80")
    (finding,) = findings(content, load_check(CHECK))
    assert finding.id == "dashboards/threshold-differs-from-alert"
    assert "RAGQueueLengthHigh fires at 80" in finding.message


def test_the_panels_of_the_given_alerts_draw_their_expressions(repository: Path) -> None:
    """Each alert on a core metric alone is drawn by a panel: comparing thresholds would else compare nothing."""
    moved = load_rules(repository / "rules")
    drawn = {"RAGQueueLengthHigh", "SlowRAGProcessing", "DLQEntriesIncreasing", "HighMemoryTokenUsage"}
    drawn.add("SSEReconnectionSpike")
    for name in sorted(drawn):
        (alert,) = [alert for alert in moved.alerts if alert.name == name]
        left, _, _ = alert.expr.rpartition(">")
        higher = replace(moved, alerts=(replace(alert, expr=f"{left}> 123456"),))
        found = dashboard_findings(load_dashboard(repository / BOARD), alerts=higher)
        assert [finding.id for finding in found] == ["dashboards/threshold-differs-from-alert"], name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda board: board["panels"].pop(), "expected 10 panels, got 9"),
        (lambda board: board["panels"].append(board["panels"][0]), "rag_queue_length: expected one panel"),
        (
            lambda board: _set(_panel(board, 4)["targets"][0], "expr", "max(rag_queue_length)"),
            "worker_active_jobs: expected one panel that shows it, got 0",
        ),
    ],
)
def test_ten_panels_one_a_metric(
    change: Callable[[Board], object], words: str, content: Path, load_check: Callable[[str], ModuleType]
) -> None:
    """The check of E2.panels sees a missing panel, one too many, and one that shows another metric than it should."""
    rewrite(content, change)
    problems = load_check(CHECK).unassigned(load_dashboard(content / BOARD))
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("place", "change", "check"),
    [
        (0, {"unit": "ms"}, "unit-differs-from-metric"),
        (5, {"unit": "percentunit"}, "unit-differs-from-metric"),
        (6, {"unit": "short"}, "unit-differs-from-metric"),
        (1, {"title": "Job duration, P99 of 10 minutes"}, "title-differs-from-query"),
        (1, {"title": "Job duration of 10 minutes"}, "title-differs-from-query"),
        (3, {"title": "New dead letters in 1 hour"}, "title-differs-from-query"),
        (2, {"description": "Red below 95 %."}, "description-differs-from-threshold"),
        (6, {"description": "Yellow above 1 s, red above 9 s."}, "description-differs-from-threshold"),
    ],
)
def test_a_panel_that_says_something_else_than_it_draws(
    place: int, change: dict[str, str], check: str, content: Path
) -> None:
    """Units of times, shares and counts, percentiles, windows and colours are each compared with the query."""

    def changed(board: Board) -> None:
        for key, value in change.items():
            _set(_defaults(board, place) if key == "unit" else _panel(board, place), key, value)

    rewrite(content, changed)
    found = {finding.id for finding in dashboard_findings(load_dashboard(content / BOARD))}
    assert f"dashboards/{check}" in found


def test_an_alert_that_no_panel_draws_is_seen(content: Path, load_check: Callable[[str], ModuleType]) -> None:
    """A panel with the right metric and threshold that draws something else than the alert compares is found."""
    check = load_check(CHECK)
    board, rules = content / BOARD, load_rules(content / "rules")
    assert check.undrawn(load_dashboard(board), rules) == []
    assert check.stale(board) == []
    rewrite(content, lambda raw: _set(_panel(raw)["targets"][0], "expr", "sum(rag_queue_length)"))
    assert check.undrawn(load_dashboard(board), rules) == [
        "RAGQueueLengthHigh: expected a panel that draws what it compares, got none"
    ]
    assert "stale" in check.stale(board)[0]


def test_what_is_not_wanted_is_not_judged(content: Path) -> None:
    """Without a policy, a /metrics text and alerts, only what no dashboard should have is found."""

    def change(board: Board) -> None:
        for one in ("refresh", "time-range", "schema-version", "metric-without-panel", "metric-not-exposed"):
            BREAKS[one](board)

    rewrite(content, change)
    assert dashboard_findings(load_dashboard(content / BOARD)) == []


def test_panels_of_two_collapsed_rows_do_not_overlap(tmp_path: Path) -> None:
    """Collapsed rows lay their panels out when they are opened: the same cells in two rows are no overlap."""
    grid = {"x": 0, "y": 1, "w": 12, "h": 8}
    inner = {"type": "text", "title": "t", "description": "d", "gridPos": grid}
    rows = [{"type": "row", "panels": [{**inner, "id": place}]} for place in (1, 2)]
    file = tmp_path / "b.json"
    file.write_text(json.dumps({"panels": rows}), encoding="utf-8")
    assert [finding.id for finding in dashboard_findings(load_dashboard(file))] == [
        "dashboards/datasource-variable"
    ]
    both = [{"type": "row", "panels": [{**inner, "id": 1}, {**inner, "id": 2}]}]
    file.write_text(json.dumps({"panels": both}), encoding="utf-8")
    assert "dashboards/overlap" in {finding.id for finding in dashboard_findings(load_dashboard(file))}
