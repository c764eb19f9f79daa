"""Each way in which a job can end is counted, once: counters against histories, SQL and the embedding API's log."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from readiness.checking.exposition import Exposition
from readiness.checking.fates import CLIENT_CLOSED, Fates
from readiness.checking.recorder import ClaimEvidence

Ledger = dict[tuple[str, str], float]
"""A metric and one value of its label (empty: the metric has none) -> what it must be."""

LABELS = {
    "rag_jobs_finished_total": "outcome",
    "rag_jobs_failed_total": "code",
    "rag_embedding_requests_total": "status",
    "ui_error_panel_shown": "type",
    "rag_stage_duration_ms_count": "stage",
}
PRICE_PER_MILLION = 0.02  # RAG_EMBEDDING_PRICE_PER_MILLION_TOKENS, default
RETRIES = 4  # RAG_MAX_RETRIES, default
STATES = {
    "plain": "done", "slow": "done", "failed-once": "done", "limited-once": "done", "garbled-once": "done",
    "normal": "done", "high": "done", "orphan": "done",
    "never": "dead", "rejected": "dead", "blank": "dead", "poison": "dead",
    "waiting": "cancelled", "unwanted": "cancelled",
}  # fmt: skip


@pytest.mark.claim("E1.ends")
def test_every_end_is_counted(fates: Fates, evidence: ClaimEvidence) -> None:
    """Done, retried, dead by exhaustion, dead at once, dead of its workers, cancelled waiting and running, taken over,
    requeued, rolled back: each counter is exactly what outside witnesses count.
    """
    end = fates.scrapes["end"]
    expected = ledger(fates)
    got = {key: value_of(end, *key) for key in expected}
    wrong = [*fates.trouble, *unplanned(fates)]
    wrong += [
        f"{metric}{{{value}}}: expected {expected[metric, value]:g}, got {got[metric, value]:g}"
        for metric, value in expected
        if abs(expected[metric, value] - got[metric, value]) > 1e-9
    ]
    # Nothing is counted under a label that no witness knows.
    for metric, label in LABELS.items():
        known = {value for name, value in expected if name == metric}
        wrong += [
            f"{metric}{{{one.labels.get(label)}}}: expected no such count, got {one.value:g}"
            for one in end.series
            if one.name == metric and one.labels.get(label) not in known and one.value
        ]
    n = max(len(expected), len(wrong))
    evidence.cases(
        n, len(wrong), wrong, "counters compared with histories, SQL and the embedding API's true log"
    )
    evidence.facts(counted={"/".join(key).rstrip("/"): value for key, value in got.items()})
    assert not wrong, wrong[0]


def ledger(fates: Fates) -> Ledger:
    """What outside witnesses count."""
    answered = [request for request in fates.requests if request.status not in (0, CLIENT_CLOSED)]
    ok = sum(request.tokens for request in answered if request.status == 200)
    dead = fates.events("dead")
    crashed = [event for event in dead if event.code == "WORKER_CRASHED"]
    retried = fates.events("retry_scheduled")
    cancelled = fates.events("cancelled")
    plain: dict[str, float] = {
        "rag_jobs_submitted_total": fates.submitted,
        "commit_positive_total": len(fates.effects),
        "dlq_entries_total": len(dead),
        "rag_dlq_entries": len(fates.dead_letters),
        "rag_jobs_retried_total": len(retried),
        "rag_jobs_taken_over_total": len(fates.events("taken_over")) + len(crashed),
        "rag_job_duration_ms_count": len(fates.events("done")) + len(dead),
        "embedding_api_latency_ms_count": len(answered),
        "rag_embedding_tokens_total": ok,
        "rag_embedding_cost_usd_total": ok * PRICE_PER_MILLION / 1e6,
        "rag_rate_limited_total": sum(1 for request in answered if request.status == 429),
        "sse_reconnect_count": fates.reconnects,
        "rag_queue_length": 0, "worker_active_jobs": 0, "rag_jobs_unfinished": 0, "sse_connections_open": 0,
        "rag_workers": 1, "rag_redis_up": 1, "rag_queue_paused": 0, "rag_build_info": 1,
    }  # fmt: skip
    found: Ledger = {(name, ""): float(value) for name, value in plain.items()}
    for outcome, events in (("done", fates.events("done")), ("dead", dead), ("cancelled", cancelled)):
        found["rag_jobs_finished_total", outcome] = len(events)
    for code, count in Counter(event.code for event in [*retried, *dead]).items():
        found["rag_jobs_failed_total", code] = count
    for status, count in Counter(str(request.status) for request in answered).items():
        found["rag_embedding_requests_total", status] = count
    found["ui_error_panel_shown", "network"] = found["ui_error_panel_shown", "unknown"] = 1
    found["rag_stage_duration_ms_count", "queue_wait"] = first_claims(fates)
    found["rag_stage_duration_ms_count", "commit"] = len(fates.effects)
    for stage in (
        "extract",
        "embed",
    ):  # counted by workers, also of deliveries that nobody outside sees: not exact
        found["rag_stage_duration_ms_count", stage] = value_of(
            fates.scrapes["end"], "rag_stage_duration_ms_count", stage
        )
    return found


def first_claims(fates: Fates) -> int:
    """How often a job was claimed for the first time since it entered the queue."""
    count = 0
    for status in fates.statuses.values():
        history = status.history if status is not None else ()
        count += sum(
            1
            for before, after in pairwise(history)
            if after.event == "claimed" and before.event in ("submitted", "requeued")
        )
    return count


def unplanned(fates: Fates) -> list[str]:
    """Where the scenario itself did not go as planned: then equal figures would show nothing."""
    wrong: list[str] = []
    for kind, state in STATES.items():
        for job in fates.jobs[kind]:
            status = fates.statuses.get(job)
            rolled_back = job == fates.jobs["plain"][1]
            wanted = "cancelled" if rolled_back else state
            if status is None or status.state != wanted:
                wrong.append(f"{kind} {job}: expected {wanted}, got {status.state if status else 'nothing'}")
    for job in fates.jobs["never"]:
        retries = sum(1 for one, _ in fates.job_events("retry_scheduled") if one == job)
        if retries != RETRIES:
            wrong.append(f"never {job}: expected {RETRIES} retries, got {retries}")
    return wrong


def value_of(scrape: Exposition, metric: str, value: str) -> float:
    """The sum of a metric's series, or of those with one value of its label."""
    return scrape.total(metric, **({LABELS[metric]: value} if value else {}))
