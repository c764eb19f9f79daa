"""The text of /metrics: exact names and types, sums of both homes, and silence where nothing is known."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ragworker.queue import QueueGauges
from ragworker.telemetry import CORE_METRICS, METRICS, ProcessFigures, exposition

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
    background: QueueGauges | None = None,
    durable: QueueGauges | None = None,
    durable_expected: bool = True,
) -> str:
    return exposition(
        process or ProcessFigures(),
        background=background or QueueGauges(),
        durable=durable,
        durable_expected=durable_expected,
    )


def test_ten_core_names_have_their_exact_name_and_type() -> None:
    """The ten names of spec E1 are exposed as they are written, counters without _total included."""
    text = text_of(durable=QueueGauges())
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
    families = list(text_string_to_metric_families(text_of(process=figures, durable=QueueGauges())))
    routes = [s.labels["route"] for f in families for s in f.samples if "route" in s.labels]
    assert routes == [strange]


def test_names_are_unique_and_helped() -> None:
    """No metric is named twice, and each has a help sentence on one line."""
    names = [spec.name for spec in METRICS]
    assert len(names) == len(set(names))
    assert all(spec.help.endswith(".") and "\n" not in spec.help for spec in METRICS)


def test_figures_of_background_and_queue_are_added() -> None:
    """Figures are the sum of both queues; the token share is the larger one; workers and pause are Redis' own."""
    background = QueueGauges(
        queue_length=1,
        unfinished=3,
        workers=1,
        token_used_pct=10,
        stats={
            "committed": 2,
            "failed:RATE_LIMITED": 1,
            "taken_over": 9,
            "hist:rag_job_duration_ms:60000": 1,
            "hist:rag_job_duration_ms:sum": 60_000,
            "hist:rag_job_duration_ms:count": 1,
        },
    )
    durable = QueueGauges(
        queue_length=2,
        unfinished=40,
        paused=True,
        token_used_pct=7,
        dlq_entries=4,
        workers=2,
        stats={
            "committed": 5,
            "dead": 6,
            "taken_over": 4,
            "hist:rag_stage_duration_ms:extract:25": 2,
            "hist:rag_stage_duration_ms:extract:sum": 31.5,
            "hist:rag_stage_duration_ms:extract:count": 2,
            "hist:rag_job_duration_ms:+Inf": 3,
            "hist:rag_job_duration_ms:sum": 900_000,
            "hist:rag_job_duration_ms:count": 3,
        },
    )
    lines = text_of(background=background, durable=durable).splitlines()
    assert "rag_queue_length 3.0" in lines
    assert "commit_positive_total 7.0" in lines
    assert "dlq_entries_total 6.0" in lines
    assert "rag_jobs_unfinished 43.0" in lines
    assert "rag_workers 2.0" in lines
    assert "rag_queue_paused 1.0" in lines
    assert "rag_jobs_taken_over_total 4.0" in lines
    assert 'rag_stage_duration_ms_bucket{stage="extract",le="10.0"} 0.0' in lines
    assert 'rag_stage_duration_ms_bucket{stage="extract",le="25.0"} 2.0' in lines
    assert 'rag_stage_duration_ms_count{stage="extract"} 2.0' in lines
    assert 'rag_stage_duration_ms_sum{stage="extract"} 31.5' in lines
    assert 'rag_stage_duration_ms_count{stage="commit"} 0.0' in lines
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
    text = text_of(background=QueueGauges(stats={"committed": 3}), durable=None)
    assert "rag_redis_up 0.0" in text
    assert "sse_connections_open 0.0" in text
    for name in ("rag_queue_length", "commit_positive_total", "dlq_entries_total", "rag_job_duration_ms"):
        assert name not in types_in(text)


def test_background_mode_needs_no_redis_to_show_the_ten() -> None:
    """With the flag off and no Redis at all, this process' own figures stand under all ten names."""
    text = text_of(background=QueueGauges(stats={"committed": 3}), durable=None, durable_expected=False)
    assert set(CORE) <= set(types_in(text))
    assert "\ncommit_positive_total 3.0\n" in text
    assert "rag_workers" not in types_in(text)


def test_process_histogram_is_cumulated_per_route() -> None:
    """Requests observed here appear in their bucket and all larger ones, with their sum."""
    figures = ProcessFigures()
    for value in (2.5, 250.0, 99_999.0):
        figures.observe("rag_http_request_duration_ms", value, route="/rag/jobs")
    lines = text_of(process=figures, durable=QueueGauges()).splitlines()
    shown = [
        line.rpartition(" ")[2] for line in lines if line.startswith("rag_http_request_duration_ms_bucket")
    ]
    assert [float(count) for count in shown] == [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3]
    assert 'rag_http_request_duration_ms_sum{route="/rag/jobs"} 100251.5' in lines


@pytest.mark.parametrize(
    ("name", "labels"),
    [("rag_workers", {}), ("made_up", {}), ("rag_http_requests_total", {"method": "GET", "route": "/"})],
)
def test_what_this_process_does_not_count_is_an_error(name: str, labels: dict[str, str]) -> None:
    """A wrong metric or a missing label shows in the first test that runs the line."""
    with pytest.raises(KeyError):
        ProcessFigures().count(name, **labels)


def test_bucket_with_a_border_that_is_not_ours_is_an_error() -> None:
    """A histogram from Redis with another border is refused, not silently dropped."""
    durable = QueueGauges(stats={"hist:rag_job_duration_ms:77": 1})
    with pytest.raises(ValueError, match="got also: 77"):
        text_of(durable=durable)
