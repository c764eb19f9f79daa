"""Each kind of failure is answered by its own policy: later, on the server's terms, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from readiness.checking.history import Request, gaps_between
from readiness.checking.recorder import ClaimEvidence
from readiness.simulators.embedding import vector_for
from readiness.targets.base import JobStatus

RETRY_AFTER_SECONDS = 1.0  # what the simulator asks for
FIRST_DELAY_SECONDS = 0.02
SOON_SECONDS = (
    5.0  # how much later a retry may come: behind the pause that the 429 brings, on a crowded machine
)
TABLE_SECONDS = 20.0
# Spec C4: 19 codes, three of them with a given policy; the others have one of the same three.
CODES = 19
GIVEN_POLICIES = {
    "TEMPORARY_FAILURE": "EXPONENTIAL_BACKOFF",
    "RATE_LIMITED": "DELAYED_RETRY",
    "VALIDATION_ERROR": "NO_RETRY",
}
# The documents without text, by the code that must end them at once.
NO_RETRY_CODES = {
    "empty.txt": "VALIDATION_ERROR",
    "blank.txt": "VALIDATION_ERROR",
    "markup-only.html": "VALIDATION_ERROR",
    "broken.pdf": "DOCUMENT_UNREADABLE",
}


@pytest.mark.claim("C4.policy")
def test_each_failure_has_its_policy(retried: Any, evidence: ClaimEvidence) -> None:
    """429 waits as told, 500 backs off, garbage is tried again and never stored, no text is no retry."""
    texts = (retried.limited, retried.failing, *retried.garbled)
    wrong = gap_is_wrong(retried.attempts(retried.limited), RETRY_AFTER_SECONDS, "429 with Retry-After")
    wrong += gap_is_wrong(retried.attempts(retried.failing), FIRST_DELAY_SECONDS, "500")
    for text in texts:
        state, attempts = retried.status(text).state, len(retried.attempts(text))
        vectors = [tuple(chunk.vector) for chunk in retried.lane.chunks(retried.jobs[text])]
        if (state, attempts) != ("done", 2):
            wrong.append(f"{text}: expected done at the second attempt, got {state} after {attempts}")
        elif vectors != [vector_for(text)]:
            wrong.append(f"{text}: expected the vector of the good answer in SQL, got another one")
    for name, job in retried.refused.items():
        if job and retried.statuses[job] is None:
            wrong.append(f"{name}: the target does not know its job any more")
        else:
            wrong += refusal_is_wrong(name, retried.statuses[job] if job else None)
    policies = declared_policies()
    wrong += [
        f"{code}: expected the policy {policy}, got {policies.get(code)}"
        for code, policy in GIVEN_POLICIES.items()
        if policies.get(code) != policy
    ]
    if len(policies) != CODES or not set(policies.values()) <= set(GIVEN_POLICIES.values()):
        wrong.append(f"expected {CODES} codes with one of three policies each, got {policies}")

    n = 2 + len(texts) + len(retried.refused) + len(GIVEN_POLICIES) + 1
    evidence.cases(n, len(wrong), wrong, "failures and the policy that answered them")
    evidence.facts(
        gaps_seconds={text: gaps_between(retried.attempts(text)) for text in texts},
        codes={text: codes_of(retried.status(text)) for text in texts},
        refused={
            name: retried.statuses[job].error_code if retried.statuses.get(job) else "no job"
            for name, job in retried.refused.items()
        },
    )
    assert not wrong, wrong[0]


def declared_policies() -> dict[str, str]:
    """Error code -> policy, as the operator's command prints them."""
    answer = subprocess.run(
        [sys.executable, "-m", "ragworker", "retry-table", "--json"],
        capture_output=True,
        text=True,
        timeout=TABLE_SECONDS,
        check=True,
    )
    return dict(json.loads(answer.stdout)["policies"])


def gap_is_wrong(attempts: list[Request], delay: float, what: str) -> list[str]:
    """The one gap must be at least the delay, and not much longer."""
    gaps = gaps_between(attempts)
    if len(gaps) == 1 and delay <= gaps[0] <= delay + SOON_SECONDS:
        return []
    return [f"{what}: expected one retry after {delay:g} to {delay + SOON_SECONDS:g} s, got gaps {gaps}"]


def refusal_is_wrong(name: str, status: JobStatus | None) -> list[str]:
    """Refused at submit is fine; as a job it must be dead at its first attempt, by a code that is never
    retried.
    """
    code = NO_RETRY_CODES[name]
    if status is None or (status.state, status.error_code, retries(status)) == ("dead", code, 0):
        return []
    return [
        f"{name}: expected dead by {code} without a retry,"
        f" got {status.state} {status.error_code} after {retries(status)} retries"
    ]


def retries(status: JobStatus) -> int:
    """Retries that the history shows, by their delays."""
    return sum(1 for event in status.history if event.delay_ms is not None)


def codes_of(status: JobStatus) -> list[str]:
    return [event.code for event in status.history if event.code]
