"""The delays of a real worker at the table's real base, and the cap on them, without anybody waiting for minutes."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.targets.base import JobStatus, Lane
from readiness.targets.ragworker_keys import QueueKeys, operate

LONGEST_SECONDS = 125
RETRIES = 6  # what lease_lane sets: two more than the table has rows
DOCUMENTS = 2
FINISH_SECONDS = 30.0
LOOK_SECONDS = 0.05
DEADLINE_SECONDS = 2  # RAG_EMBEDDING_TIMEOUT_SECONDS of lease_lane
# Bases of which some are no binary fractions and one is the cap, each for so many retries.
TABLES = (("0.3", 100), ("0.001", 12), ("125", 3))


@pytest.mark.claim("C1.backoff")
def test_a_worker_schedules_the_table_at_its_real_base(
    lease_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """Six retries are put off by 1, 5, 25, 125, 125 and 125 s, in history and queue; then the job is dead."""
    lane = lease_lane
    due = [min(5**retry, LONGEST_SECONDS) * 1000 for retry in range(RETRIES)]
    texts = [f"real-delays-{seed}-{number}" for number in range(DOCUMENTS)]
    slow = f"real-timeout-{seed}"
    lane.script_embedding(
        [
            *({"contains": text, "status": 500} for text in texts),
            {"contains": slow, "times": 1, "delay_ms": 2 * DEADLINE_SECONDS * 1000},
        ]
    )
    jobs = {
        text: lane.enqueue(Document(f"{text}.txt", "text/plain", text.encode())).job_id
        for text in [*texts, slow]
    }
    statuses, put_off = hastened(lane, list(jobs.values()))
    effects = {effect.job_id for effect in lane.effects()}
    lane.script_embedding([])

    problems: list[str] = []
    for text in texts:
        status = statuses[jobs[text]]
        waits = [event for event in status.history if event.delay_ms is not None]
        delays = [event.delay_ms for event in waits]
        promised = [event.at_ms + (event.delay_ms or 0) for event in waits]
        if delays != due:
            problems.append(
                f"{text}: expected delays of {due} ms at the real base, none above the cap, got {delays}"
            )
        if put_off[jobs[text]] != promised:
            problems.append(f"{text}: expected due times {promised} in the queue, got {put_off[jobs[text]]}")
        if (status.state, jobs[text] in effects) != ("dead", False):
            problems.append(
                f"{text}: expected dead after {RETRIES} retries without an effect, got {status.state}"
            )
    status = statuses[jobs[slow]]
    seen = [(event.code, event.delay_ms) for event in status.history if event.code]
    if status.state != "done" or seen != [("EMBEDDING_TIMEOUT", due[0])]:
        wish = f"done after EMBEDDING_TIMEOUT, put off by {due[0]} ms"
        problems.append(f"{slow}: expected {wish}, got {status.state} after {seen}")

    # And every other table that can be configured, as data: exact, rounded once, never above the cap.
    for base, retries in TABLES:
        problems += table_is_wrong(lane, base, retries)
    n = 3 * DOCUMENTS + 1 + sum(retries for _, retries in TABLES)
    evidence.cases(n, min(len(problems), n), problems, "delays at the real base and in other tables")
    evidence.facts(due_ms=due, tables=[f"base {base} s, {retries} retries" for base, retries in TABLES])
    assert not problems, problems[0]


def hastened(lane: Lane, jobs: list[str]) -> tuple[dict[str, JobStatus], dict[str, list[int]]]:
    """Let every delay be over as soon as it was seen, until all jobs ended; their ends and the due times seen."""
    seen: dict[str, list[int]] = {job: [] for job in jobs}
    statuses = {job: lane.status(job) for job in jobs}
    deadline = time.monotonic() + FINISH_SECONDS
    with QueueKeys(lane) as keys:
        while time.monotonic() < deadline and not all(status.finished for status in statuses.values()):
            for job, at_ms in keys.due_ms().items():
                if job in seen and at_ms > 0:  # 0: hastened already, and not yet taken up
                    seen[job].append(at_ms)
                    keys.hasten(job)
            time.sleep(LOOK_SECONDS)
            statuses |= {job: lane.status(job) for job, status in statuses.items() if not status.finished}
    return statuses, seen


def table_is_wrong(lane: Lane, base: str, retries: int) -> list[str]:
    """The first row in which the table of the operator's command is not the formula's."""
    status, answer = operate(lane, "retry-table", RAG_RETRY_BASE_SECONDS=base, RAG_MAX_RETRIES=retries)
    rows = answer["delays_seconds"] if status == 0 else []
    exact = [
        float(min(Fraction(float(base)) * 5**retry, Fraction(LONGEST_SECONDS))) for retry in range(retries)
    ]
    if len(rows) != retries:
        return [f"retry-table of base {base} s: expected {retries} rows, got {len(rows)} (status {status})"]
    return [
        f"retry-table of base {base} s: expected retry {number} after {want} s, got {have}"
        for number, (want, have) in enumerate(zip(exact, rows, strict=True), start=1)
        if want != have
    ][:1]
