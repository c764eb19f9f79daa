"""The ten core metrics are exposed by exactly these names and types, each family once."""

from __future__ import annotations

from collections import Counter

import pytest

from readiness.checking.exposition import parse
from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence

# Spec E1; the types are what their alerts and panels need (rate() of counters, quantiles of histograms).
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
# A percentile is read from buckets: the objective must be a border, the longest job below infinity.
OBJECTIVE_BUCKET_MS, LONGEST_BUCKET_MS = "60000", 300_000.0
LABELS_PER_FAMILY = 200  # bounded labels: a job id in a label makes one series a job


@pytest.mark.claim("E1.names")
def test_ten_metrics_by_name_and_type(ingested: Ingested, evidence: ClaimEvidence) -> None:
    """After real work every core metric has its type and at least one series, and no label grows with the
    jobs.
    """
    client = ingested.lane.http()
    shown = client.post("/ui/errors", json={"type": "network"})
    answer = client.get("/metrics")
    scrape = parse(answer.text)
    lines = answer.text.splitlines()
    declared = Counter(line.split()[2] for line in lines if line.startswith("# TYPE "))
    wrong: list[str] = []
    for name, kind in CORE.items():
        series = name + "_count" if kind == "histogram" else name
        if scrape.types.get(name) != kind:
            wrong.append(f"{name}: expected type {kind}, got {scrape.types.get(name)}")
        elif declared[name] != 1:
            wrong.append(f"{name}: expected one TYPE line, got {declared[name]}")
        elif not scrape.values(series):
            wrong.append(f"{name}: expected at least one series, got none")
        if not any(line.startswith(f"# HELP {name} ") and len(line.split()) > 3 for line in lines):
            wrong.append(f"{name}: expected a HELP sentence, got none")

    borders = {series.labels["le"] for series in scrape.series if series.name == "rag_job_duration_ms_bucket"}
    finite = [float(border) for border in borders if border != "+Inf"]
    if (
        OBJECTIVE_BUCKET_MS not in {f"{border:g}" for border in finite}
        or max(finite, default=0) < LONGEST_BUCKET_MS
    ):
        wrong.append(f"rag_job_duration_ms: expected borders 60000 and up to 300000 ms, got {sorted(finite)}")
    if shown.status_code != 204 or not scrape.total("ui_error_panel_shown", type="network"):
        wrong.append(f"POST /ui/errors: expected 204 and a counted panel, got {shown.status_code}")
    crowded = [
        name
        for name, count in Counter(one.name for one in scrape.series).items()
        if count > LABELS_PER_FAMILY
    ]
    wrong += [f"{name}: more than {LABELS_PER_FAMILY} series, expected bounded labels" for name in crowded]

    n = 2 * len(CORE) + 3
    evidence.cases(n, min(len(wrong), n), wrong, "names, types, help, buckets and labels of the core metrics")
    evidence.facts(families=len(scrape.types), series=len(scrape.series))
    assert not wrong, wrong[0]
