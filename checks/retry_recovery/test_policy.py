"""Each kind of failure is answered by its own policy: later, on the server's terms, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from readiness.checking.history import Request, attempts_on, gaps_between, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.simulators.embedding import GARBAGE, vector_for
from readiness.targets.base import JobStatus, Lane

pytestmark = pytest.mark.xdist_group("retry")

RETRY_AFTER_SECONDS = 1.0
FIRST_DELAY_SECONDS = 0.02
SOON_SECONDS = 0.75
FINISH_SECONDS = 20.0
TABLE_SECONDS = 20.0
# Spec C4: 19 codes, three of them with a given policy; the others have one of the same three.
CODES = 19
GIVEN_POLICIES = {
    "TEMPORARY_FAILURE": "EXPONENTIAL_BACKOFF",
    "RATE_LIMITED": "DELAYED_RETRY",
    "VALIDATION_ERROR": "NO_RETRY",
}
# Without any text by the chunking rule: nothing to embed, and trying again cannot help.
HOPELESS = {
    "empty.txt": ("text/plain", b""),
    "blank.txt": ("text/plain", b" \n\t \xc2\xa0\n"),
    "markup-only.html": ("text/html", b"<html><script>var text = 'not text'</script></html>"),
    "broken.pdf": ("application/pdf", b"%PDF-1.7 this is no document"),
}
NO_RETRY_CODES = dict.fromkeys(HOPELESS, "VALIDATION_ERROR") | {"broken.pdf": "DOCUMENT_UNREADABLE"}


@pytest.mark.claim("C4.policy")
def test_each_failure_has_its_policy(retry_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """429 waits as told, 500 backs off, garbage is retried and never stored, a document without text is
    refused at once.
    """
    limited, failing = f"policy-429-{seed}", f"policy-500-{seed}"
    garbled = {kind: f"policy-garbage-{kind}-{seed}" for kind in GARBAGE}
    retry_lane.script_embedding(
        [
            {"contains": limited, "times": 1, "status": 429, "retry_after": RETRY_AFTER_SECONDS},
            {"contains": failing, "times": 1, "status": 500},
            *({"contains": text, "times": 1, "garbage": kind} for kind, text in garbled.items()),
        ]
    )
    texts = [limited, failing, *garbled.values()]
    jobs = {text: submit(retry_lane, f"{text}.txt", "text/plain", text.encode()) for text in texts}
    refused = {name: submit(retry_lane, name, *what) for name, what in HOPELESS.items()}
    statuses = retry_lane.wait_all(
        [job for job in [*jobs.values(), *refused.values()] if job], seconds=FINISH_SECONDS
    )
    attempts = {text: attempts_on(requests_of(retry_lane.embedding_log()), text) for text in texts}

    wrong: list[str] = []
    wrong += gap_is_wrong(attempts[limited], RETRY_AFTER_SECONDS, "429 with Retry-After")
    wrong += gap_is_wrong(attempts[failing], FIRST_DELAY_SECONDS, "500")
    for text in texts:
        chunks = retry_lane.chunks(jobs[text])
        if statuses[jobs[text]].state != "done" or len(attempts[text]) != 2:
            wrong.append(
                f"{text}: expected done at the second attempt,"
                f" got {statuses[jobs[text]].state} after {len(attempts[text])}"
            )
        elif [tuple(chunk.vector) for chunk in chunks] != [vector_for(text)]:
            wrong.append(f"{text}: expected the vector of the good answer in SQL, got another one")
    for name, job in refused.items():
        wrong += refusal_is_wrong(name, statuses[job] if job else None)

    policies = declared_policies()
    wrong += [
        f"{code}: expected the policy {policy}, got {policies.get(code)}"
        for code, policy in GIVEN_POLICIES.items()
        if policies.get(code) != policy
    ]
    if len(policies) != CODES or not set(policies.values()) <= set(GIVEN_POLICIES.values()):
        wrong.append(f"expected {CODES} codes with one of three policies each, got {policies}")

    n = 2 + len(texts) + len(refused) + len(GIVEN_POLICIES) + 1
    evidence.cases(n, len(wrong), wrong, "failures and the policy that answered them")
    evidence.facts(
        gaps_seconds={text: gaps_between(found) for text, found in attempts.items()},
        codes={text: codes_of(statuses[job]) for text, job in jobs.items()},
        refused={name: statuses[job].error_code if job else "at submit" for name, job in refused.items()},
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


def submit(lane: Lane, name: str, media_type: str, content: bytes) -> str:
    """Submit and answer the job id, "" when the API refused the document itself."""
    return lane.enqueue(Document(name=name, media_type=media_type, content=content)).job_id


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
