"""With a real Prometheus every panel draws something: its queries return finite points while the system
works.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress

import httpx
import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.dashboards import load_dashboard, substitute
from readiness.documents import Corpus
from readiness.pytest_plugin import LaneFactory
from readiness.root import Root
from readiness.stack.base import StackInfo

SCRAPED_SECONDS = 20.0  # target discovery hands changes on every 5 s, then a scrape each second
WORK_SECONDS = 30.0
DATA_SECONDS = 20.0
REQUEST_SECONDS = 5.0
RATE_INTERVAL = "10s"  # four scrapes and more at the run's scrape interval of 1 s
STEP_SECONDS = 1
DOCUMENTS_COUNT = 8  # enough that every histogram and counter moves between two scrapes


@pytest.mark.claim("E2.data")
def test_panels_have_data(
    root: Root, stack: StackInfo, lane: LaneFactory, documents: Corpus, evidence: ClaimEvidence
) -> None:
    """Given work between two scrapes, each query of each panel has at least one finite point in this run."""
    if stack.prometheus_url is None:
        pytest.skip("needs prometheus on this machine: it scrapes for real; `make services` installs it")
    dashboard = load_dashboard(root.path / "dashboards" / "ragworker.json")
    queries = {
        f"{panel.title} [{query.ref}]": substitute(query.expr, values={"__rate_interval": RATE_INTERVAL})
        for panel in dashboard.panels
        for query in panel.queries
    }
    started = time.time()
    running = lane("panels")
    with httpx.Client(base_url=stack.prometheus_url, timeout=REQUEST_SECONDS) as client:
        # A rate needs a scrape before the work and one after it.
        instance = running.api_url.removeprefix("http://")
        wait_until(
            lambda: points(client, f'rag_build_info{{instance="{instance}"}}', since=started),
            seconds=SCRAPED_SECONDS,
            what=f"a scrape of {instance}",
            every_seconds=0.2,
        )
        submitted = [running.enqueue(document) for document in documents.documents[:DOCUMENTS_COUNT]]
        running.wait_all([one.job_id for one in submitted if one.accepted], seconds=WORK_SECONDS)

        counts = dict.fromkeys(queries, 0)

        def all_have_data() -> bool:
            for name, query in queries.items():
                counts[name] = counts[name] or points(client, query, since=started)
            return all(counts.values())

        with suppress(WaitedTooLong):  # what is empty is judged below, by name
            wait_until(all_have_data, seconds=DATA_SECONDS, what="data in every panel", every_seconds=0.3)
    empty = [
        f"{name}: expected data, got none from {queries[name]}" for name, count in counts.items() if not count
    ]
    evidence.cases(len(queries), len(empty), empty, "panel queries with data in this run")
    evidence.facts(points=counts, documents=len(submitted), instance=instance)
    assert not empty, empty[0]


def points(client: httpx.Client, query: str, *, since: float) -> int:
    """How many finite points the query draws from `since` (seconds of the epoch) until now."""
    window = {"start": f"{since:.3f}", "end": f"{time.time():.3f}", "step": str(STEP_SECONDS)}
    answer = client.get("/api/v1/query_range", params={"query": query, **window})
    answer.raise_for_status()
    rows = answer.json()["data"]["result"]
    return sum(1 for row in rows for _, value in row["values"] if math.isfinite(float(value)))
