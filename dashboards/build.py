"""Build the Grafana dashboard: ten panels, one per core metric [spec E2-E6]. Writes ragworker.json beside itself.

    python dashboards/build.py            writes the file
    python dashboards/build.py --check    writes nothing; exit status 1 when the file is not what this source gives

A panel is one entry in PANELS. Where an alert watches the metric, the panel draws exactly the alert's left side and its
red begins at the alert's threshold, so that red on the screen and the message in Slack are the same fact (a test
compares them with rules/). The JSON is in the form of Grafana 9.0 (schemaVersion 36), which every newer one migrates
by itself. Needs the standard library only, and nothing outside this folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"

OUTPUT = Path(__file__).resolve().parent / "ragworker.json"

SCHEMA_VERSION = 36
"""Grafana 9.0's; a newer number would make 9.0 refuse what it could show."""

REFRESH = "30s"
TIME_FROM = "now-1h"
COLUMNS = 24
PANEL_WIDTH = 12
PANEL_HEIGHT = 8
DATASOURCE: dict[str, Json] = {"type": "prometheus", "uid": "${datasource}"}
RUNBOOKS = "https://docs.ai-script-generator.com/runbooks"


@dataclass(frozen=True, slots=True)
class Steps:
    """Where a panel turns yellow and red, in the panel's unit. `falling`: small is bad, so green lies on top."""

    yellow: float
    red: float
    falling: bool = False

    def to_json(self) -> list[Json]:
        """Grafana wants steps in ascending order, the first without a value."""
        if self.falling:
            return [_step("red", None), _step("yellow", self.red), _step("green", self.yellow)]
        return [_step("green", None), _step("yellow", self.yellow), _step("red", self.red)]


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel and the name of its line."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is Grafana's id of a unit; `steps` has its reason in the description."""

    title: str
    metric: str
    description: str
    unit: str
    steps: Steps
    targets: tuple[Target, ...]
    runbook: str
    decimals: int | None = None
    maximum: float | None = None
    other_units: dict[str, str] = field(default_factory=dict)


def _counted(metric: str, window: str, across_replicas: str) -> str:
    """How often a counter was raised in the window, exactly; the text of rules/ragworker.yml, which says why."""
    return (
        f"{across_replicas}(\n"
        f"    ({metric} - {metric} offset {window}) and resets({metric}[{window}]) == 0\n"
        f"  or\n"
        f"    increase({metric}[{window}])\n"
        f")"
    )


PANELS: tuple[Panel, ...] = (
    Panel(
        title="Jobs waiting",
        metric="rag_queue_length",
        description="Ready, or delayed until a retry. Red above 50: RAGQueueLengthHigh fires after 5 minutes.",
        unit="short",
        decimals=0,
        steps=Steps(yellow=25, red=50),
        targets=(Target("max(rag_queue_length)", "waiting"),),
        runbook="performance-tuning#ragqueuelengthhigh",
    ),
    Panel(
        title="Job duration, P95 of 10 minutes",
        metric="rag_job_duration_ms",
        description="Submission to end, waiting included. Red above 60 s: SlowRAGProcessing fires after 10 minutes.",
        unit="ms",
        steps=Steps(yellow=45_000, red=60_000),
        targets=(
            Target(
                "histogram_quantile(0.95, max by (le) (rate(rag_job_duration_ms_bucket[10m])))",
                "P95 duration",
            ),
        ),
        runbook="performance-tuning#slowragprocessing",
    ),
    Panel(
        title="Committed: share of finished jobs, and per minute",
        metric="commit_positive_total",
        description=(
            "Committed jobs as a share of those that finished without being cancelled, over 5 minutes."
            " Red below 97 %, where HighRAGFailureRate begins (failures above 3 %). Empty while nothing finishes."
        ),
        unit="percentunit",
        maximum=1,
        steps=Steps(yellow=0.985, red=0.97, falling=True),
        targets=(
            Target(
                "clamp_max(\n"
                "  max(increase(commit_positive_total[5m]))\n"
                "    /\n"
                '  max(sum without (outcome) (increase(rag_jobs_finished_total{outcome=~"done|dead"}[5m]))),\n'
                "  1\n"
                ")",
                "share committed",
            ),
            Target("60 * max(rate(commit_positive_total[5m]))", "committed per minute"),
        ),
        other_units={"committed per minute": "cpm"},
        runbook="worker-recovery#ragprocessingstalled",
    ),
    Panel(
        title="New dead letters in 10 minutes",
        metric="dlq_entries_total",
        description="Jobs that failed for good. Red above 5: DLQEntriesIncreasing fires after 2 minutes.",
        unit="short",
        decimals=0,
        steps=Steps(yellow=1, red=5),
        targets=(Target(_counted("dlq_entries_total", "10m", "max"), "new dead letters"),),
        runbook="dlq-troubleshooting#dlqentriesincreasing",
    ),
    Panel(
        title="Active jobs per worker",
        metric="worker_active_jobs",
        description=(
            "Jobs running under a live lease, divided by live workers. Red at 4, the default of RAG_WORKER_CONCURRENCY:"
            " every slot is busy, and what comes now waits. Full slots without commits: RAGProcessingStalled."
        ),
        unit="short",
        steps=Steps(yellow=3, red=4),
        targets=(Target("max(worker_active_jobs) / clamp_min(max(rag_workers), 1)", "jobs per worker"),),
        runbook="worker-recovery#ragprocessingstalled",
    ),
    Panel(
        title="Token memory used",
        metric="memory_token_used_pct",
        description=(
            "Share of its token budget that the fullest worker holds in unfinished batches."
            " Red above 35 %: HighMemoryTokenUsage fires after 5 minutes."
        ),
        unit="percent",
        maximum=100,
        steps=Steps(yellow=25, red=35),
        targets=(Target("max(memory_token_used_pct)", "fullest worker"),),
        runbook="performance-tuning#highmemorytokenusage",
    ),
    Panel(
        title="Embedding API latency, P95 of 5 minutes",
        metric="embedding_api_latency_ms",
        description=(
            "Until the embedding API answered. Yellow above 1 s, where batches begin to queue; red above 5 s,"
            " where a document of a dozen batches no longer ends within its minute."
        ),
        unit="ms",
        steps=Steps(yellow=1000, red=5000),
        targets=(
            Target(
                "histogram_quantile(0.95, max by (le) (rate(embedding_api_latency_ms_bucket[5m])))",
                "P95 latency",
            ),
        ),
        runbook="performance-tuning#ratelimitingspike",
    ),
    Panel(
        title="Event streams open",
        metric="sse_connections_open",
        description=(
            "Browsers that listen to the progress of a job, over all API replicas. Red at 1000, the default limit"
            " of open files (1024) of one process: start another replica before it is reached."
        ),
        unit="short",
        decimals=0,
        steps=Steps(yellow=500, red=1000),
        targets=(Target("sum(sse_connections_open)", "open streams"),),
        runbook="performance-tuning#ssereconnectionspike",
    ),
    Panel(
        title="Event stream reconnects in 10 minutes",
        metric="sse_reconnect_count",
        description="Streams resumed by Last-Event-ID. Red above 100: SSEReconnectionSpike fires after 2 minutes.",
        unit="short",
        decimals=0,
        steps=Steps(yellow=50, red=100),
        targets=(Target(_counted("sse_reconnect_count", "10m", "sum"), "reconnects"),),
        runbook="performance-tuning#ssereconnectionspike",
    ),
    Panel(
        title="Error panels shown in 10 minutes",
        metric="ui_error_panel_shown",
        description="Error panels that users saw, by type. Red from 20 of one type: more than a few users.",
        unit="short",
        decimals=0,
        steps=Steps(yellow=5, red=20),
        targets=(Target("sum by (type) (increase(ui_error_panel_shown[10m]))", "{{type}}"),),
        runbook="performance-tuning#ssereconnectionspike",
    ),
)


def dashboard() -> dict[str, Json]:
    """The whole dashboard as Grafana imports it."""
    return {
        "uid": "ragworker-core",
        "title": "ragworker: core metrics",
        "description": "The ten core metrics of the durable RAG worker. Made by dashboards/build.py: edit that.",
        "tags": ["ragworker", "readiness"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "id": None,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": REFRESH,
        "time": {"from": TIME_FROM, "to": "now"},
        "timepicker": {"refresh_intervals": ["5s", "10s", REFRESH, "1m", "5m", "15m", "1h"]},
        "templating": {"list": [_datasource_variable()]},
        "annotations": {"list": []},
        "links": [
            _link("DLQ troubleshooting", f"{RUNBOOKS}/dlq-troubleshooting"),
            _link("Performance tuning", f"{RUNBOOKS}/performance-tuning"),
            _link("Worker recovery", f"{RUNBOOKS}/worker-recovery"),
        ],
        "panels": [_panel(panel, index) for index, panel in enumerate(PANELS)],
    }


def text() -> str:
    """The file's content; the same on every machine."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def _panel(panel: Panel, index: int) -> dict[str, Json]:
    per_row = COLUMNS // PANEL_WIDTH
    grid: dict[str, Json] = {
        "x": index % per_row * PANEL_WIDTH,
        "y": index // per_row * PANEL_HEIGHT,
        "w": PANEL_WIDTH,
        "h": PANEL_HEIGHT,
    }
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": grid,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": {
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "links": [{"title": "Runbook", "url": f"{RUNBOOKS}/{panel.runbook}", "targetBlank": True}],
        "targets": [_target(target, ref) for target, ref in zip(panel.targets, "ABCDEFGH", strict=False)],
    }


def _defaults(panel: Panel) -> dict[str, Json]:
    defaults: dict[str, Json] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "palette-classic" if "{{" in panel.targets[0].legend else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": panel.steps.to_json()},
        "custom": {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 2,
            "fillOpacity": 10,
            "showPoints": "auto",
            "spanNulls": False,
            "axisPlacement": "auto",
            "thresholdsStyle": {"mode": "line+area"},
        },
        "mappings": [],
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    return defaults


def _overrides(panel: Panel) -> list[Json]:
    """A second line of another unit has its own axis on the right, without the thresholds of the first."""
    return [
        {
            "matcher": {"id": "byName", "options": legend},
            "properties": [
                {"id": "unit", "value": unit},
                {"id": "max", "value": None},
                {"id": "custom.axisPlacement", "value": "right"},
                {"id": "custom.thresholdsStyle", "value": {"mode": "off"}},
                {"id": "color", "value": {"mode": "fixed", "fixedColor": "text"}},
            ],
        }
        for legend, unit in panel.other_units.items()
    ]


def _target(target: Target, ref: str) -> dict[str, Json]:
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "expr": target.expr,
        "legendFormat": target.legend,
        "range": True,
        "instant": False,
        "editorMode": "code",
    }


def _datasource_variable() -> dict[str, Json]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "regex": "",
        "options": [],
        "current": {},
    }


def _link(title: str, url: str) -> dict[str, Json]:
    return {"title": title, "type": "link", "icon": "doc", "url": url, "targetBlank": True, "tags": []}


def _step(color: str, value: float | None) -> dict[str, Json]:
    return {"color": color, "value": value}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dashboard, or say whether the written one is fresh."""
    parser = argparse.ArgumentParser(description="build the Grafana dashboard of ragworker")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 when the file is stale"
    )
    options = parser.parse_args(argv)
    built = text()
    if options.check:
        fresh = OUTPUT.is_file() and OUTPUT.read_text(encoding="utf-8") == built
        print(f"{OUTPUT.name} is {'fresh' if fresh else 'stale: run python dashboards/build.py'}")
        return 0 if fresh else 1
    OUTPUT.write_text(built, encoding="utf-8", newline="\n")
    print(f"{OUTPUT.name}: {len(PANELS)} panels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
