"""The text of /metrics: exact names and types, sums of both homes, and silence where nothing is known."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ragworker.telemetry import CORE_METRICS, METRICS, JobFigures, ProcessFigures, exposition

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


def text_of(
    *,
    process: ProcessFigures | None = None,
    background: JobFigures | None = None,
    queue: JobFigures | None = None,
    queue_expected: bool = True,
) -> str:
    return exposition(
        process or ProcessFigures(),
        background=background or JobFigures(),
        queue=queue,
        queue_expected=queue_expected,
    )


def test_ten_core_names_have_their_exact_name_and_type() -> None:
    """The ten names of spec E1 are exposed as they are written, counters without _total included."""
    text = text_of(queue=JobFigures())
    assert {name: kind for name, kind in types_in(text).items() if name in CORE} == CORE
    assert {spec.name for spec in CORE_METRICS} == set(CORE)
    assert re.search(r"^sse_reconnect_count 0\.0$", text, flags=re.M)
    assert re.search(r'^ui_error_panel_shown\{type="network"\} 0\.0$', text, flags=re.M)
    assert "_created" not in text


def test_text_is_what_prometheus_parses() -> None:
    """Every line can be parsed; label values with quotes, backslashes and line breaks come back unchanged."""
    figures = ProcessFigures()
    strange = 'a"b\\c\nd'
    figures.count("rag_http_requests_total", method="GET", route=strange, status="200")
    families = list(text_string_to_metric_families(text_of(process=figures, queue=JobFigures())))
    routes = [s.labels["route"] for f in families for s in f.samples if "route" in s.labels]
    assert routes == [strange]


def test_names_are_unique_and_helped() -> None:
    """No metric is named twice, and each has a help sentence on one line."""
    names = [spec.name for spec in METRICS]
    assert len(names) == len(set(names))
    assert all(spec.help.endswith(".") and "\n" not in spec.help for spec in METRICS)


def test_figures_of_background_and_queue_are_added() -> None:
    """Counters and histograms are the sum of both places; the token share is the larger one."""
    background = JobFigures(
        queue_length=1,
        token_used_pct=10,
        stats={
            "committed": 2,
            "failed:RATE_LIMITED": 1,
            "hist:rag_job_duration_ms:60000": 1,
            "hist:rag_job_duration_ms:sum": 60_000,
            "hist:rag_job_duration_ms:count": 1,
        },
    )
    queue = JobFigures(
        queue_length=2,
        token_used_pct=7,
        dlq_entries=4,
        workers=2,
        stats={
            "committed": 5,
            "dead": 6,
            "hist:rag_job_duration_ms:+Inf": 3,
            "hist:rag_job_duration_ms:sum": 900_000,
            "hist:rag_job_duration_ms:count": 3,
        },
    )
    lines = text_of(background=background, queue=queue).splitlines()
    assert "rag_queue_length 3.0" in lines
    assert "commit_positive_total 7.0" in lines
    assert "dlq_entries_total 6.0" in lines
    assert "rag_dlq_entries 4.0" in lines
    assert "memory_token_used_pct 10.0" in lines
    assert 'rag_jobs_failed_total{code="RATE_LIMITED"} 1.0' in lines
    assert 'rag_jobs_failed_total{code="WORKER_CRASHED"} 0.0' in lines
    assert 'rag_job_duration_ms_bucket{le="45000.0"} 0.0' in lines
    assert 'rag_job_duration_ms_bucket{le="60000.0"} 1.0' in lines
    assert 'rag_job_duration_ms_bucket{le="300000.0"} 1.0' in lines
    assert 'rag_job_duration_ms_bucket{le="+Inf"} 4.0' in lines
    assert "rag_job_duration_ms_sum 960000.0" in lines
    assert "rag_job_duration_ms_count 4.0" in lines


def test_job_series_are_absent_while_redis_is_away() -> None:
    """With the durable worker in use and Redis silent, no figure about jobs is made up: they are absent."""
    text = text_of(background=JobFigures(stats={"committed": 3}), queue=None)
    assert "rag_redis_up 0.0" in text
    assert "sse_connections_open 0.0" in text
    for name in ("rag_queue_length", "commit_positive_total", "dlq_entries_total", "rag_job_duration_ms"):
        assert name not in types_in(text)


def test_background_mode_needs_no_redis_to_show_the_ten() -> None:
    """With the flag off and no Redis at all, this process' own figures stand under all ten names."""
    text = text_of(background=JobFigures(stats={"committed": 3}), queue=None, queue_expected=False)
    assert set(CORE) <= set(types_in(text))
    assert "\ncommit_positive_total 3.0\n" in text
    assert "rag_workers" not in types_in(text)


def test_bucket_with_a_border_that_is_not_ours_is_an_error() -> None:
    """A histogram from Redis with another border is refused, not silently dropped."""
    queue = JobFigures(stats={"hist:rag_job_duration_ms:77": 1})
    with pytest.raises(ValueError, match="got also: 77"):
        text_of(queue=queue)
