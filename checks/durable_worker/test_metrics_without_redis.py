"""While Redis is away /metrics says so, and nothing about jobs that it cannot know; what it counted comes back."""

from __future__ import annotations

from typing import Any

import pytest

from readiness.checking.exposition import Exposition, parse
from readiness.checking.exposition_faults import fallen, faults
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document

BACK_SECONDS = 15.0
FINISH_SECONDS = 20.0
JOBS = 3
FAULT = "Redis stopped, then started again"
# A sum without its larger half would read as an empty queue and as a counter that was reset.
UNKNOWN = (
    "rag_queue_length",
    "worker_active_jobs",
    "commit_positive_total",
    "dlq_entries_total",
    "rag_workers",
)
OWN = (
    "sse_connections_open",
    "sse_reconnect_count",
    "ui_error_panel_shown",
    "rag_http_requests_total",
    "rag_build_info",
)


@pytest.mark.claim("E1.away")
def test_metrics_without_redis(outage_lane: Any, evidence: ClaimEvidence, seed: int) -> None:
    """rag_redis_up falls to 0, jobs' figures are absent and not 0; background jobs are counted; then all is back."""
    lane, redis = outage_lane.lane, outage_lane.redis
    jobs = [lane.enqueue(document(f"away-{seed}-{number}")).job_id for number in range(JOBS)]
    lane.wait_all(jobs, seconds=FINISH_SECONDS)
    before = up(lane, 1)

    redis.stop()
    away = up(lane, 0)
    text = lane.metrics()
    wrong = [f"without Redis: {fault}" for fault in faults(text)]
    wrong += [f"{name} without Redis: expected no series, got one" for name in UNKNOWN if away.values(name)]
    wrong += [f"{name} without Redis: expected a series, got none" for name in OWN if not away.values(name)]
    # Switched to background jobs, the API knows all that there is to know.
    lane.set_flag("false")
    alone = [lane.enqueue(document(f"alone-{seed}-{number}")).job_id for number in range(JOBS)]
    lane.wait_all(alone, seconds=FINISH_SECONDS)
    background = parse(lane.metrics())
    done = background.total("rag_jobs_finished_total", outcome="done")
    if done < JOBS or background.total("rag_jobs_submitted_total") < JOBS:
        wrong.append(f"background jobs: expected at least {JOBS} submitted and done, got {done:g}")
    lane.set_flag("true")

    redis.start()
    after = up(lane, 1)
    wrong += [f"after Redis came back: {fault}" for fault in fallen(before, after)]
    both = after.total("commit_positive_total") - before.total("commit_positive_total")
    if both != JOBS:
        wrong.append(
            f"commit_positive_total: expected to rise by the {JOBS} background jobs, rose by {both:g}"
        )
    n = len(UNKNOWN) + len(OWN) + 4
    evidence.cases(
        n, min(n, len(wrong)), wrong, "metrics before, during and after an outage of Redis", fault=FAULT
    )
    assert not wrong, wrong[0]


def up(lane: Any, value: int) -> Exposition:
    """A scrape that says so of Redis."""

    def seen() -> Exposition | None:
        scrape = parse(lane.metrics())
        return scrape if scrape.values("rag_redis_up") == [value] else None

    found = wait_until(seen, seconds=BACK_SECONDS, what=f"rag_redis_up {value}", every_seconds=0.1)
    assert found is not None
    return found


def document(text: str) -> Document:
    return Document(f"{text}.txt", "text/plain", text.encode())
