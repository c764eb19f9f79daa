"""The text of /metrics: exact names and types, sums of both homes, and silence where nothing is known."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ragworker.telemetry import (
    CORE_METRICS,
    JOB_DURATION_BUCKETS_MS,
    METRICS,
    ProcessFigures,
    Series,
    exposition,
    histogram_lines,
)

# Spec E1, typed here a second time on purpose: the names are a promise to dashboards and rules.
CORE = {
    "rag_queue_length": "gauge",
    "rag_job_duration_ms": "histogram",
    "sse_connections_open": "gauge",
    "sse_reconnect_count": "counter",
    "commit_positive_total": "counter",
    "memory_token_used_pct": "gauge",
    "ui_error_panel_shown": "counter",
    "dlq_entries_total": "counter",
    "worker_active_jobs": "gauge",
    "embedding_api_latency_ms": "histogram",
}


def types_in(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.M))


def test_ten_core_names_have_their_exact_name_and_type() -> None:
    """The ten names of spec E1 are exposed as they are written, counters without _total included."""
    text = exposition(ProcessFigures(), {}, queue_expected=True)
    assert {name: kind for name, kind in types_in(text).items() if name in CORE} == CORE
    assert {spec.name for spec in CORE_METRICS} == set(CORE)
    assert re.search(r"^sse_reconnect_count 0\.0$", text, flags=re.M)
    assert re.search(r'^ui_error_panel_shown\{type="network"\} 0\.0$', text, flags=re.M)
    assert "_created" not in text


def test_text_is_what_prometheus_parses() -> None:
    """Every line can be parsed, label values with quotes, backslashes and line breaks come back unchanged."""
    figures = ProcessFigures()
    strange = 'a"b\\c\nd'
    figures.count("rag_http_requests_total", method="GET", route=strange, status="200")
    families = list(text_string_to_metric_families(exposition(figures, {}, queue_expected=False)))
    routes = [s.labels["route"] for f in families for s in f.samples if "route" in s.labels]
    assert routes == [strange]


def test_names_are_unique_and_helped() -> None:
    """No metric is named twice, and each has a help sentence on one line."""
    names = [spec.name for spec in METRICS]
    assert len(names) == len(set(names))
    assert all(spec.help.endswith(".") and "\n" not in spec.help for spec in METRICS)


def test_figures_of_process_and_queue_are_added() -> None:
    """Counters and histograms are the sum of this process and Redis; the token share is the larger one."""
    figures = ProcessFigures()
    figures.count("commit_positive_total", 2)
    figures.observe("rag_job_duration_ms", 60_000)
    figures.set("memory_token_used_pct", 10)
    counts = [0] * (len(JOB_DURATION_BUCKETS_MS) + 1)
    counts[-1] = 3
    queue = {
        "commit_positive_total": {Series(): 5.0},
        "memory_token_used_pct": {Series(): 7.0},
        "rag_job_duration_ms": histogram_lines(counts, 900_000, buckets=JOB_DURATION_BUCKETS_MS),
    }
    text = exposition(figures, queue, queue_expected=True)
    assert "\ncommit_positive_total 7.0\n" in text
    assert "\nmemory_token_used_pct 10.0\n" in text
    assert '\nrag_job_duration_ms_bucket{le="60000.0"} 1.0\n' in text
    assert '\nrag_job_duration_ms_bucket{le="+Inf"} 4.0\n' in text
    assert "\nrag_job_duration_ms_sum 960000.0\n" in text
    assert "\nrag_job_duration_ms_count 4.0\n" in text


def test_queue_series_are_absent_while_redis_is_away() -> None:
    """With the durable worker in use and Redis silent, no queue figure is made up: the series are absent."""
    text = exposition(ProcessFigures(), None, queue_expected=True)
    assert "rag_redis_up 0.0" in text
    assert "sse_connections_open 0.0" in text
    for name in ("rag_queue_length", "commit_positive_total", "dlq_entries_total", "rag_job_duration_ms"):
        assert name not in types_in(text)


def test_background_mode_needs_no_redis_to_show_the_ten() -> None:
    """With the flag off and no Redis at all, this process' own figures stand in under all ten names."""
    assert set(CORE) <= set(types_in(exposition(ProcessFigures(), None, queue_expected=False)))


def test_wrong_number_of_buckets_is_an_error() -> None:
    """A histogram from Redis with other borders than ours is refused, not silently shifted."""
    with pytest.raises(ValueError, match="argument"):
        histogram_lines([1, 2], 3, buckets=JOB_DURATION_BUCKETS_MS)
