"""What the metrics say is what an outside count of SQL, jobs and the embedding API's log says."""

from __future__ import annotations

import pytest

from readiness.checking.exposition import Exposition, parse
from readiness.checking.fates import CLIENT_CLOSED
from readiness.checking.history import requests_of
from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

JOBS = 6
DEAD = 2
QUIET_SECONDS = 15.0  # workers report their figures with the renewal of their lease
FINISH_SECONDS = 20.0


@pytest.mark.claim("E1.truth")
def test_metrics_equal_an_outside_count(ingested: Ingested, evidence: ClaimEvidence, seed: int) -> None:
    """Commits, dead letters, finished jobs and durations rise by what happened, and gauges return to zero."""
    lane = ingested.lane
    before = settled(lane)
    effects_before = len(lane.effects())
    requests_before = len(lane.embedding_log())

    # Given a known piece of work: jobs that succeed, and documents without text that end dead.
    good = [submit(lane, f"truth-{seed}-{number}", f"truth {seed} {number}") for number in range(JOBS)]
    dead = [submit(lane, f"truth-empty-{seed}-{number}", " " * (number + 1)) for number in range(DEAD)]
    states = [status.state for status in lane.wait_all([*good, *dead], seconds=FINISH_SECONDS).values()]
    requests = len(lane.embedding_log()) - requests_before

    def reported() -> bool:
        delta = parse(lane.metrics()).total("embedding_api_latency_ms_count")
        return delta - before.total("embedding_api_latency_ms_count") >= requests

    wait_until(reported, seconds=QUIET_SECONDS, what="the workers' report of their embedding requests")
    after = settled(lane)

    # Then each counter rose by exactly what an outside witness counted.
    expected = {
        "commit_positive_total": len(lane.effects()) - effects_before,
        "dlq_entries_total": states.count("dead"),
        "rag_job_duration_ms_count": len(states),
        "embedding_api_latency_ms_count": requests,
    }
    rises = {name: after.total(name) - before.total(name) for name in expected}
    wrong = [
        f"{name}: expected to rise by {expected[name]}, rose by {rises[name]:g}"
        for name in expected
        if rises[name] != expected[name]
    ]
    gauges = ("rag_queue_length", "worker_active_jobs")
    wrong += [
        f"{name}: expected 0 after the drain, got {after.total(name):g}"
        for name in gauges
        if after.total(name)
    ]

    # And the totals since the lane's birth agree with everything that was ever committed.
    if (total := after.total("commit_positive_total")) != len(lane.effects()):
        wrong.append(
            f"commit_positive_total: expected {len(lane.effects())} rows of commit_log, got {total:g}"
        )
    listed = len(lane.dead_letters())
    if (entries := after.total("dlq_entries_total")) < listed:
        wrong.append(f"dlq_entries_total: expected at least {listed} entries listed, got {entries:g}")
    # The histogram is cumulative: its last bucket is its count.
    if after.total("rag_job_duration_ms_bucket", le="+Inf") != after.total("rag_job_duration_ms_count"):
        wrong.append("rag_job_duration_ms: expected the +Inf bucket to equal the count")

    wrong += delayed(lane, seed)
    n = len(expected) + len(gauges) + 4
    evidence.cases(n, len(wrong), wrong, "metrics compared with SQL, API and the embedding API's true log")
    evidence.facts(
        rises=rises, expected=expected, states={state: states.count(state) for state in set(states)}
    )
    assert states.count("done") == JOBS, f"the known work did not end as planned: {states}"
    assert states.count("dead") == DEAD, f"the known work did not end as planned: {states}"
    assert not wrong, wrong[0]


def delayed(lane: Lane, seed: int) -> list[str]:
    """What the gauges say while a job waits for its retry, which is waiting too: nothing runs, one is unfinished."""
    text = f"truth-delayed-{seed}"
    lane.script_embedding([{"contains": text, "times": 1, "status": 500}])
    job = submit(lane, text, text)

    def seen() -> Exposition | None:
        before, scrape, after = lane.status(job).state, parse(lane.metrics()), lane.status(job).state
        return scrape if (before, after) == ("retrying", "retrying") or after == "done" else None

    scrape = wait_until(seen, seconds=QUIET_SECONDS, what="a job that waits for its retry")
    lane.wait_all([job], seconds=FINISH_SECONDS)
    lane.script_embedding([])
    wanted = {"rag_queue_length": 1, "worker_active_jobs": 0, "rag_jobs_unfinished": 1}
    return [
        f"{name} while a job waits for its retry: expected {value}, got {scrape.total(name):g}"
        for name, value in wanted.items()
        if scrape is not None and scrape.total(name) != value
    ]


def settled(lane: Lane) -> Exposition:
    """A scrape after the queue is empty, no job runs, and the workers have reported every request that they sent."""
    sent = sum(1 for one in requests_of(lane.embedding_log()) if one.status not in (0, CLIENT_CLOSED))

    def quiet() -> Exposition | None:
        scrape = parse(lane.metrics())
        busy = scrape.total("rag_queue_length") + scrape.total("worker_active_jobs")
        return None if busy or scrape.total("embedding_api_latency_ms_count") < sent else scrape

    found = wait_until(quiet, seconds=QUIET_SECONDS, what="gauges back at zero and all requests reported")
    assert found is not None
    return found


def submit(lane: Lane, name: str, text: str) -> str:
    return lane.enqueue(Document(name=f"{name}.txt", media_type="text/plain", content=text.encode())).job_id
