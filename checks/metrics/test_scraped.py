"""The run's Prometheus has all ten core metrics: scraped, stored and found by query."""

from __future__ import annotations

from contextlib import suppress

import httpx
import pytest

from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.stack.base import StackInfo

CORE = (
    "rag_queue_length",
    "rag_job_duration_ms_count",
    "sse_connections_open",
    "sse_reconnect_count",
    "commit_positive_total",
    "memory_token_used_pct",
    "ui_error_panel_shown",
    "dlq_entries_total",
    "worker_active_jobs",
    "embedding_api_latency_ms_count",
)
SCRAPED_SECONDS = 20.0  # target discovery (5 s) and some scrapes (1 s)
QUERY_SECONDS = 5.0


@pytest.mark.claim("E1.scraped")
def test_prometheus_has_all_ten(ingested: Ingested, stack: StackInfo, evidence: ClaimEvidence) -> None:
    """A query by each name answers with a series of this lane, and the value of commits is the one in SQL."""
    if stack.prometheus_url is None:
        pytest.skip("needs prometheus on this machine: it scrapes for real; `make services` installs it")
    instance = ingested.lane.api_url.removeprefix("http://")
    missing = list(CORE)
    with httpx.Client(base_url=stack.prometheus_url, timeout=QUERY_SECONDS) as client:

        def all_there() -> bool:
            missing[:] = [name for name in CORE if not query(client, f'{name}{{instance="{instance}"}}')]
            return not missing

        with suppress(WaitedTooLong):  # what is missing is judged below, by name
            wait_until(all_there, seconds=SCRAPED_SECONDS, what="all ten metrics", every_seconds=0.3)
        wrong = [f"{name}: expected a series of {instance} in Prometheus, got none" for name in missing]

        commits = len(ingested.lane.effects())

        def commits_seen() -> bool:
            return query(client, f'commit_positive_total{{instance="{instance}"}}') == [float(commits)]

        try:
            wait_until(
                commits_seen,
                seconds=SCRAPED_SECONDS,
                what=f"{commits} commits in Prometheus",
                every_seconds=0.3,
            )
        except WaitedTooLong as late:
            wrong.append(f"commit_positive_total: {late}")
        version = client.get("/api/v1/status/buildinfo").json()["data"]["version"]

    evidence.cases(len(CORE) + 1, len(wrong), wrong, "queries for the core metrics")
    evidence.facts(prometheus=version, instance=instance, commits=commits)
    assert not wrong, wrong[0]


def query(client: httpx.Client, expression: str) -> list[float]:
    """The values of an instant query."""
    answer = client.get("/api/v1/query", params={"query": expression})
    answer.raise_for_status()
    return [float(row["value"][1]) for row in answer.json()["data"]["result"]]
