"""The second opinion on /metrics texts: a sound text has no fault, and each kind of fault is planted once and named."""

from __future__ import annotations

import pytest

from ragworker.queue import QueueGauges
from ragworker.telemetry import ProcessFigures, exposition
from readiness.checking.exposition import parse
from readiness.checking.exposition_faults import fallen, faults

STATS = {
    "hist:rag_job_duration_ms:100": 2.0,
    "hist:rag_job_duration_ms:500": 1.0,
    "hist:rag_job_duration_ms:sum": 450.0,
    "hist:rag_job_duration_ms:count": 3.0,
    "dead": 1.0,
}


def text() -> str:
    """What an API process with some figures would answer."""
    process = ProcessFigures()
    process.count("rag_http_requests_total", method="GET", route="/x", status="200")
    process.observe("rag_http_request_duration_ms", 3.2, route='/"x"')
    return exposition(
        process, durable=QueueGauges(stats=STATS), background=QueueGauges(), durable_expected=True
    )


BREAKS = {
    "no type": ("# TYPE rag_workers gauge\n", "", "rag_workers comes without HELP and TYPE"),
    "no help": ("# HELP rag_workers Workers with a live lease.\n", "", "comes without HELP and TYPE"),
    "empty help": ("Workers with a live lease.", "workers", "rag_workers: expected a sentence of help"),
    "wrong type": (
        "rag_job_duration_ms histogram",
        "rag_job_duration_ms gauge",
        "stands below rag_job_duration_ms",
    ),
    "unknown type": (
        "TYPE rag_workers gauge",
        "TYPE rag_workers number",
        "rag_workers has the type 'number'",
    ),
    "total that is no counter": (
        "dlq_entries_total counter",
        "dlq_entries_total gauge",
        "whose name says counter",
    ),
    "help without unit": (", done or dead, in ms.", ", done or dead.", "its help does not say ms"),
    "no number": ("rag_workers 0.0", "rag_workers none", "'none' is no number"),
    "not a number": ("rag_workers 0.0", "rag_workers NaN", "rag_workers is NaN"),
    "negative counter": ("dlq_entries_total 1.0", "dlq_entries_total -1.0", "a counter of -1"),
    "negative share": ("memory_token_used_pct 0.0", "memory_token_used_pct -1.0", "a share of -1"),
    "twice": ("rag_workers 0.0", "rag_workers 0.0\nrag_workers 0.0", "rag_workers is there twice"),
    "not cumulative": ('le="500.0"} 3.0', 'le="500.0"} 1.0', "expected buckets that count all below"),
    "count is another": (
        "rag_job_duration_ms_count 3.0",
        "rag_job_duration_ms_count 4.0",
        "expected a count of 3",
    ),
    "no count": ("rag_job_duration_ms_count 3.0\n", "", "expected one rag_job_duration_ms_count, got 0"),
    "no infinity": ('rag_job_duration_ms_bucket{le="+Inf"} 3.0\n', "", "expected rising borders up to +Inf"),
    "sum of seconds": (
        "rag_job_duration_ms_sum 450.0",
        "rag_job_duration_ms_sum 0.45",
        "does not fit its buckets",
    ),
    "sum of microseconds": ("_ms_sum 450.0", "_ms_sum 450000.0", "does not fit its buckets"),
    "an id in a label": ('route="/x"', 'job_id="job-1"', "a label that every job or request has of its own"),
    "raw quote": ('/\\"x\\"', '/"x"', "neither comment nor sample"),
    "garbage": ("rag_workers 0.0", "<html>", "neither comment nor sample"),
}


def test_what_ragworker_writes_has_no_fault() -> None:
    """All 28 metrics, labels with quotes in them, empty and filled histograms."""
    assert faults(text()) == []


@pytest.mark.parametrize("name", BREAKS)
def test_each_fault_is_named(name: str) -> None:
    """One change to a sound text, one sentence that says what a scraper would stumble over."""
    old, new, words = BREAKS[name]
    before = text()
    assert old in before, "this test would break nothing"
    found = faults(before.replace(old, new, 1))
    assert any(words in fault for fault in found), found


def test_a_family_in_two_places_and_a_text_that_stops_are_faults() -> None:
    """Prometheus takes the first for a second family, and the last line for whatever of it arrived."""
    again = "# HELP rag_workers Workers again.\n# TYPE rag_workers gauge\n"
    assert any("stands in two places" in fault for fault in faults(text() + again))
    assert faults(text().rstrip("\n"))[0] == "the last line does not end"


def test_a_counter_that_falls_or_vanishes_is_named() -> None:
    """What may only rise is compared series by series; gauges may do what they want."""
    before, after = parse(text()), text()
    lower = after.replace("dlq_entries_total 1.0", "dlq_entries_total 0.0").replace(
        "rag_workers 0.0", "rag_workers -5"
    )
    assert fallen(before, parse(after)) == []
    assert fallen(before, parse(lower)) == ["dlq_entries_total: expected at least 1, got 0.0"]
    gone = after.replace("rag_job_duration_ms_count 3.0\n", "")
    assert fallen(before, parse(gone)) == ["rag_job_duration_ms_count: expected at least 3, got no series"]
