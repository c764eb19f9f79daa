"""The number of series does not grow with jobs, requests, users or whatever a client may send."""

from __future__ import annotations

import secrets

import pytest

from readiness.checking.exposition import Exposition, parse
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

ROUNDS = 6  # of everything that a client can do, each with names of its own
SERIES_BUDGET = (
    1500  # of one API process; a job or a path in a label passes it within the first thousand jobs
)
FINISH_SECONDS = 20.0
METHODS = ("GET", "PUT", "PATCH", "DELETE", "PROPFIND", "X-{word}")


@pytest.mark.claim("E1.cardinality")
def test_series_do_not_grow(main_lane: Lane, evidence: ClaimEvidence) -> None:
    """Everything is done once, then five times more under other names: no series is new, no name is in a label."""
    words: list[str] = []
    jobs: list[str] = []
    words += everything(main_lane, jobs)
    before = keys(settled(main_lane))
    for _ in range(ROUNDS - 1):
        words += everything(main_lane, jobs)
    scrape = settled(main_lane)
    new = sorted(keys(scrape) - before)
    text = main_lane.metrics()
    wrong = [f"a series that came with the second round: {one}" for one in new]
    wrong += [f"the name {word} of a job or client is in a label" for word in {*words, *jobs} if word in text]
    if len(scrape.series) > SERIES_BUDGET:
        wrong.append(f"expected at most {SERIES_BUDGET} series, got {len(scrape.series)}")
    n = max(ROUNDS + len(words) + len(jobs), len(wrong))
    evidence.cases(n, len(wrong), wrong, "rounds without a new series, and names that are in no label")
    evidence.facts(series=len(scrape.series), jobs=len(jobs))
    assert not wrong, wrong[0]


def everything(lane: Lane, jobs: list[str]) -> list[str]:
    """Each request that a client can make, under names of its own; the names. Ends with all its jobs at an end."""
    client, word = lane.http(), f"card{secrets.token_hex(6)}"
    ids = {"X-Request-ID": f"req-{secrets.token_hex(8)}", "X-Correlation-ID": f"corr-{word}"}
    mine = [
        lane.enqueue(
            Document(f"{word}.txt", "text/plain", content), key=f"{word}-{place}", headers=ids
        ).job_id
        for place, content in enumerate((word.encode(), b" "))
    ]
    jobs += mine
    lane.wait_all(mine, seconds=FINISH_SECONDS)
    client.post("/ui/errors", json={"type": word})
    client.post("/rag/jobs", json={"text": word, "priority": word})
    for job in (*mine, f"job-{word}"):
        for path in ("", "/events", "/cancel", "/rollback"):
            method = "GET" if path in ("", "/events") else "POST"
            client.request(method, f"/rag/jobs/{job}{path}", headers={"Last-Event-ID": "1-1"})
        client.get(f"/rag/dlq/{job}")
    client.get("/rag/dlq", params={"offset": len(jobs), "limit": 5})
    client.delete(f"/rag/dlq/{mine[1]}")
    for method in METHODS:
        client.request(method.format(word=word), f"/{word}/{word}")
    return [word, *ids.values()]


def settled(lane: Lane) -> Exposition:
    """A scrape with all that workers report: it comes with their heartbeat."""
    sent = len([one for one in lane.embedding_log() if one.get("status") not in (None, 0, 499)])

    def reported() -> Exposition | None:
        scrape = parse(lane.metrics())
        return scrape if scrape.total("embedding_api_latency_ms_count") >= sent else None

    found = wait_until(reported, seconds=FINISH_SECONDS, what="the workers' report")
    assert found is not None
    return found


def keys(scrape: Exposition) -> set[str]:
    """Every series by name and labels."""
    return {f"{one.name}{sorted(one.labels.items())}" for one in scrape.series}
