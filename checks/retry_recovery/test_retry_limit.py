"""A job that always fails is tried five times and no more."""

from __future__ import annotations

import pytest

from readiness.checking.history import attempts_on, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.targets.base import Lane

pytestmark = pytest.mark.xdist_group("retry")

RETRIES = 4  # RAG_MAX_RETRIES, default
DOCUMENTS = 3
FINISH_SECONDS = 20.0


@pytest.mark.claim("C2.limit")
def test_hopeless_job_is_tried_five_times(retry_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """The embedding API sees exactly one attempt and four retries; then the job is dead and stays so."""
    texts = [f"limit-always-fails-{seed}-{number}" for number in range(DOCUMENTS)]
    retry_lane.script_embedding([{"contains": text, "status": 500} for text in texts])
    jobs = {
        text: retry_lane.enqueue(
            Document(name=f"{text}.txt", media_type="text/plain", content=text.encode(), path=None)
        ).job_id
        for text in texts
    }
    statuses = retry_lane.wait_all(list(jobs.values()), seconds=FINISH_SECONDS)
    effects = {effect.job_id for effect in retry_lane.effects()}

    requests = requests_of(retry_lane.embedding_log())
    problems: list[str] = []
    seen: dict[str, int] = {}
    for text, job in jobs.items():
        seen[text] = len(attempts_on(requests, text))
        if seen[text] != RETRIES + 1:
            problems.append(f"{text}: expected {RETRIES + 1} attempts in the true log, got {seen[text]}")
        if statuses[job].state != "dead":
            problems.append(f"{text}: expected state dead, got {statuses[job].state}")
        if job in effects:
            problems.append(f"{text}: expected no committed effect of a dead job, got one")

    n = DOCUMENTS * 3
    evidence.cases(n, len(problems), problems, "attempts, end state and effects of hopeless jobs")
    evidence.facts(attempts=seen, max_retries=RETRIES)
    assert not problems, problems[0]
