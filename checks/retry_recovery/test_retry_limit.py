"""A job that always fails is tried five times and no more."""

from __future__ import annotations

from typing import Any

import pytest

from readiness.checking.history import attempts_on, requests_of
from readiness.checking.recorder import ClaimEvidence

RETRIES = 4  # RAG_MAX_RETRIES, default


@pytest.mark.claim("C2.limit")
def test_hopeless_job_is_tried_five_times(retried: Any, evidence: ClaimEvidence) -> None:
    """The embedding API sees exactly one attempt and four retries; then the job is dead and stays so."""
    effects = {effect.job_id for effect in retried.lane.effects()}
    now = requests_of(retried.lane.embedding_log())  # later than the jobs' ends: a sixth attempt would show
    seen = {text: len(attempts_on(now, text)) for text in retried.hopeless}
    problems: list[str] = []
    for text, attempts in seen.items():
        if attempts != RETRIES + 1:
            problems.append(f"{text}: expected {RETRIES + 1} attempts in the true log, got {attempts}")
        if (state := retried.status(text).state) != "dead":
            problems.append(f"{text}: expected state dead, got {state}")
        if retried.jobs[text] in effects:
            problems.append(f"{text}: expected no committed effect of a dead job, got one")
    n = 3 * len(seen)
    evidence.cases(n, len(problems), problems, "attempts, end state and effects of hopeless jobs")
    evidence.facts(attempts=seen, max_retries=RETRIES)
    assert not problems, problems[0]
