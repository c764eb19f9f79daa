"""A failed job waits min(base x 5^(retry-1), 125) seconds before each retry."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from readiness.checking.history import gaps_between
from readiness.checking.recorder import ClaimEvidence

BASE_SECONDS = 0.02  # what retry_lane sets
FACTORS = (1, 5, 25, 125)
DECLARED_SECONDS = [1.0, 5.0, 25.0, 125.0]
LATE_SECONDS = (
    5.0  # the 429 of one document holds all of them back for a second, a crowded machine for longer
)
TABLE_SECONDS = 20.0


@pytest.mark.claim("C1.backoff")
def test_retries_wait_as_the_table_says(retried: Any, evidence: ClaimEvidence) -> None:
    """Four failures are followed by waits of base x 1, 5, 25, 125, as the embedding API saw them."""
    due = [BASE_SECONDS * factor for factor in FACTORS]
    gaps = {text: gaps_between(retried.attempts(text)) for text in retried.backoff}
    problems: list[str] = []
    for text, found in gaps.items():
        status = retried.status(text)
        if status.state != "done" or len(found) != len(due):
            problems.append(
                f"{text}: expected done after {len(due)} retries, got {status.state} after {len(found)}"
            )
        for retry, (gap, delay) in enumerate(zip(found, due, strict=False), start=1):
            if not delay <= gap <= delay + LATE_SECONDS:
                latest = delay + LATE_SECONDS
                problems.append(
                    f"{text}: expected retry {retry} after {delay:g} to {latest:g} s, got {gap:.3f} s"
                )
        delays = [event.delay_ms for event in status.history if event.delay_ms is not None]
        if delays != [round(delay * 1000) for delay in due]:
            problems.append(f"{text}: expected delays of {due} s in the history, got {delays} ms")

    # The table itself, at its real base: data, because nobody waits 125 s in a check.
    table = declared_table()
    if table != DECLARED_SECONDS:
        problems.append(f"retry-table: expected {DECLARED_SECONDS} s, got {table}")

    n = len(gaps) * (2 + len(due)) + 1
    evidence.cases(n, min(len(problems), n), problems, "retry delays: true gaps, history, table")
    evidence.facts(gaps_seconds=gaps, due_seconds=due, tolerance_seconds=LATE_SECONDS, table_seconds=table)
    assert not problems, problems[0]


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
