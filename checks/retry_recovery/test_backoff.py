"""A failed job waits min(base x 5^(retry-1), 125) seconds before each retry."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from readiness.checking.history import attempts_on, gaps_between, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.targets.base import Lane

pytestmark = pytest.mark.xdist_group("retry")

BASE_SECONDS = 0.02  # what retry_lane sets
FACTORS = (1, 5, 25, 125)
DECLARED_SECONDS = (1.0, 5.0, 25.0, 125.0)
LATE_SECONDS = 0.75  # a retry may come later than due by the scheduler's tick and a crowded machine
DOCUMENTS = 3
FINISH_SECONDS = 20.0
TABLE_SECONDS = 20.0


@pytest.mark.claim("C1.backoff")
def test_retries_wait_as_the_table_says(retry_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """Four failures are followed by waits of base x 1, 5, 25, 125, as the embedding API saw them."""
    texts = [f"backoff-fails-four-times-{seed}-{number}" for number in range(DOCUMENTS)]
    retry_lane.script_embedding([{"contains": text, "times": len(FACTORS), "status": 500} for text in texts])
    jobs = {text: retry_lane.enqueue(plain(text)).job_id for text in texts}
    statuses = retry_lane.wait_all(list(jobs.values()), seconds=FINISH_SECONDS)

    # The true log: one gap a retry, never shorter than the delay, and not much longer.
    requests = requests_of(retry_lane.embedding_log())
    due = [BASE_SECONDS * factor for factor in FACTORS]
    problems: list[str] = []
    gaps: dict[str, list[float]] = {}
    for text, job in jobs.items():
        gaps[text] = gaps_between(attempts_on(requests, text))
        if statuses[job].state != "done":
            problems.append(f"{text}: expected done after {len(FACTORS)} retries, got {statuses[job].state}")
        if len(gaps[text]) != len(due):
            problems.append(f"{text}: expected {len(due) + 1} attempts, got {len(gaps[text]) + 1}")
        for retry, (gap, delay) in enumerate(zip(gaps[text], due, strict=False), start=1):
            if not delay <= gap <= delay + LATE_SECONDS:
                problems.append(
                    f"{text}: expected retry {retry} after {delay:g} s to"
                    f" {delay + LATE_SECONDS:g} s, got {gap:.3f} s"
                )
        delays = [event.delay_ms for event in statuses[job].history if event.delay_ms is not None]
        if delays != [round(delay * 1000) for delay in due]:
            problems.append(f"{text}: expected delays {due} s in the history, got {delays} ms")

    # The table itself, at its real base: data, because nobody waits 125 s in a check.
    table = declared_table()
    if table != list(DECLARED_SECONDS):
        problems.append(f"retry-table: expected {list(DECLARED_SECONDS)} s, got {table}")

    n = DOCUMENTS * (2 + 2 * len(due)) + len(DECLARED_SECONDS)
    evidence.cases(n, min(len(problems), n), problems, "retry delays: true gaps, history, table")
    evidence.facts(gaps_seconds=gaps, due_seconds=due, tolerance_seconds=LATE_SECONDS, table_seconds=table)
    assert not problems, problems[0]


def plain(text: str) -> Document:
    return Document(name=f"{text}.txt", media_type="text/plain", content=text.encode(), path=None)


def declared_table() -> list[float]:
    """The delays that the operator's command prints for the default settings."""
    answer = subprocess.run(
        [sys.executable, "-m", "ragworker", "retry-table", "--json"],
        capture_output=True,
        text=True,
        timeout=TABLE_SECONDS,
        check=True,
    )
    return [float(delay) for delay in json.loads(answer.stdout)["delays_seconds"]]
