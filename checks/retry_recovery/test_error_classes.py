"""The matrix of error classes: what each cause is called, whether it is tried again, and after which delay."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from readiness.checking.ends import ends_of
from readiness.checking.history import attempts_on, gaps_between, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import JobStatus, Lane
from readiness.targets.ragworker_sql import refused_rows

BASE_SECONDS = 0.02  # what retry_lane sets
UPLOAD_BYTES = 2_000_000  # as well
LONGEST_WORD = 65_536  # characters; the public chunking rule refuses a longer one
FINISH_SECONDS = 30.0
TABLE_SECONDS = 20.0
BACKOFF, DELAYED, NEVER = "EXPONENTIAL_BACKOFF", "DELAYED_RETRY", "NO_RETRY"

# Spec C4: three are given, sixteen are ours; this is what we declared for each.
POLICIES = {
    "TEMPORARY_FAILURE": BACKOFF,
    "RATE_LIMITED": DELAYED,
    "VALIDATION_ERROR": NEVER,
    "UNSUPPORTED_MEDIA_TYPE": NEVER,
    "DOCUMENT_UNREADABLE": NEVER,
    "DOCUMENT_TOO_LARGE": NEVER,
    "PAYLOAD_MISSING": NEVER,
    "EMBEDDING_TIMEOUT": BACKOFF,
    "EMBEDDING_UNREACHABLE": BACKOFF,
    "EMBEDDING_SERVER_ERROR": BACKOFF,
    "EMBEDDING_OVERLOADED": DELAYED,
    "EMBEDDING_BAD_RESPONSE": BACKOFF,
    "EMBEDDING_AUTH_FAILED": NEVER,
    "EMBEDDING_REJECTED": NEVER,
    "QUEUE_UNAVAILABLE": BACKOFF,
    "STORE_UNAVAILABLE": BACKOFF,
    "STORE_REJECTED": NEVER,
    "RESOURCE_EXHAUSTED": BACKOFF,
    "WORKER_CRASHED": NEVER,
}


@dataclass(frozen=True, slots=True, eq=False)
class Cause:
    """What goes wrong once, and the code under which it must be known. ``wish`` is a Retry-After in seconds."""

    name: str
    code: str
    rule: Mapping[str, Any]
    wish: float | None = None


CAUSES = (
    *(Cause(f"status-{status}", "EMBEDDING_REJECTED", {"status": status}) for status in (400, 404, 413, 422)),
    *(Cause(f"status-{status}", "EMBEDDING_AUTH_FAILED", {"status": status}) for status in (401, 403)),
    *(
        Cause(f"status-{status}", "EMBEDDING_SERVER_ERROR", {"status": status})
        for status in (408, 500, 502, 503, 504)
    ),
    Cause("status-429", "RATE_LIMITED", {"status": 429}),
    Cause("status-429-later", "RATE_LIMITED", {"status": 429, "retry_after": 0.5}, wish=0.5),
    Cause("status-503-later", "EMBEDDING_OVERLOADED", {"status": 503, "retry_after": 0.7}, wish=0.7),
    # Where the table decides, a wish changes nothing.
    Cause("status-500-later", "EMBEDDING_SERVER_ERROR", {"status": 500, "retry_after": 60}),
    *(
        Cause(f"garbage-{kind}", "EMBEDDING_BAD_RESPONSE", {"garbage": kind})
        for kind in ("json", "shape", "count", "nan")
    ),
)


class Met(NamedTuple):
    """What a cause met: the job's end, the true number of requests, the seconds between them, effects in SQL."""

    status: JobStatus | None
    requests: int
    gaps: list[float]
    effects: int


@pytest.mark.claim("C4.policy")
def test_each_error_class_meets_its_policy(retry_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """Each cause is known by its code; what cannot help is tried once, all else again after exactly its delay."""
    lane = retry_lane
    texts = {cause: f"{cause.name}-of-{seed}" for cause in CAUSES}
    lane.script_embedding(
        [{**cause.rule, "contains": f"{text} ", "times": 1} for cause, text in texts.items()]
    )
    # The names are no prefixes of each other, because a space ends them.
    documents = {text: f"{text} ends" for text in texts.values()}
    stored, unstored = f"stored-never-{seed}", f"stored-late-{seed}"
    longest = f"{'x' * (LONGEST_WORD + 1)}{seed}"
    with refused_rows(lane, rejected=stored, failing=unstored) as database:
        jobs = {text: submit(lane, text, content) for text, content in documents.items()}
        jobs |= {text: submit(lane, text, f"{text} ends") for text in (stored, unstored) if database}
        jobs["long-word"] = submit(lane, "long-word", longest)
        if database:
            job = jobs[unstored]
            wait_until(
                lambda: codes_of(lane.status(job)),
                seconds=FINISH_SECONDS,
                what="a failure of the text that SQL fails on",
            )
        failed = ends_of(lane, [jobs[text] for text in (stored,) if database], seconds=FINISH_SECONDS)
    ended = ends_of(lane, list(jobs.values()), seconds=FINISH_SECONDS) | failed

    log = requests_of(lane.embedding_log())
    effects = [effect.job_id for effect in lane.effects()]

    def met(text: str, content: str) -> Met:
        attempts = attempts_on(log, content)
        return Met(ended[jobs[text]], len(attempts), gaps_between(attempts), effects.count(jobs[text]))

    wrong: list[str] = []
    for cause, text in texts.items():
        wrong += wrong_about(cause.name, cause.code, met(text, documents[text]), wish=cause.wish)
    wrong += wrong_about("a word too long", "DOCUMENT_TOO_LARGE", met("long-word", longest), requests=0)
    if database:
        wrong += wrong_about("SQL refuses the row", "STORE_REJECTED", met(stored, f"{stored} ends"))
        wrong += wrong_about("SQL fails", "STORE_UNAVAILABLE", met(unstored, f"{unstored} ends"), often=True)
    refusals = refused_at_once(lane, seed)
    wrong += [problem for problem in refusals.values() if problem]
    declared = declared_policies()
    wrong += [
        f"{code}: expected the declared policy {POLICIES.get(code)}, got {declared.get(code)}"
        for code in sorted({*POLICIES, *declared})
        if declared.get(code) != POLICIES.get(code)
    ]
    lane.script_embedding([])

    n = len(jobs) + len(refusals) + len(POLICIES)
    evidence.cases(n, min(len(wrong), n), wrong, "error classes: code, attempts, delay, effect")
    codes = {text: codes_of(ended[job]) for text, job in jobs.items()}
    evidence.facts(codes=codes, sql_failures_injected=database)
    assert not wrong, wrong[0]


def wrong_about(
    name: str,
    code: str,
    met: Met,
    *,
    wish: float | None = None,
    requests: int | None = None,
    often: bool = False,
) -> Iterator[str]:
    """How an end differs from the policy of its code. ``often``: the cause may have come more than once."""
    status, policy = met.status, POLICIES[code]
    if status is None:
        yield f"{name}: the target does not know its job any more"
        return
    delays = [event.delay_ms for event in status.history if event.delay_ms is not None]
    codes = codes_of(status)
    if policy == NEVER:
        attempts = 1 if requests is None else requests
        if (status.state, status.error_code, met.requests, met.effects) != ("dead", code, attempts, 0):
            yield (
                f"{name}: expected dead by {code} after {attempts} request(s), never retried, without an effect,"
                f" got {status.state} by {status.error_code or codes} after {met.requests}, {met.effects} effects"
            )
        return
    table = [round(BASE_SECONDS * 5**retry * 1000) for retry in range(4)]
    due = [table[0]] if wish is None else [round(wish * 1000)]
    right = delays == due or (often and bool(delays) and delays == table[: len(delays)])
    if status.state != "done" or not right or set(codes) != {code} or met.effects != 1:
        yield (
            f"{name}: expected {policy} by {code} with delays of {due} ms, then done with one effect,"
            f" got {status.state} by {codes} with {delays} ms, {met.effects} effects"
        )
    early = [gap for gap in met.gaps if gap < due[0] / 1000]
    if early or met.requests != len(delays) + 1:
        yield f"{name}: expected {len(delays) + 1} requests, none earlier than {due[0]} ms, got gaps {met.gaps} s"


def refused_at_once(lane: Lane, seed: int) -> dict[str, str]:
    """What must not become a job at all, with what is wrong about its answer ("" when nothing is)."""
    documents = {
        415: Document("picture.png", "image/png", f"no picture {seed}".encode()),
        413: Document("large.txt", "text/plain", b"large " * (UPLOAD_BYTES // 6 + 1)),
    }
    found: dict[str, str] = {}
    for expected, document in documents.items():
        answer = lane.enqueue(document)
        right = answer.status_code == expected and not answer.job_id
        found[document.name] = (
            ""
            if right
            else f"{document.name}: expected {expected} and no job, got {answer.status_code} {answer.job_id!r}"
        )
    answer = lane.enqueue(Document("key.txt", "text/plain", b"a key that is none"), key="white space")
    right = answer.status_code == 422 and not answer.job_id
    found["key"] = "" if right else f"a key with a space: expected 422 and no job, got {answer.status_code}"
    return found


def submit(lane: Lane, name: str, content: str) -> str:
    return lane.enqueue(Document(f"{name}.txt", "text/plain", content.encode())).job_id


def codes_of(status: JobStatus | None) -> list[str]:
    return [event.code for event in status.history if event.code] if status is not None else []


def declared_policies() -> dict[str, str]:
    """Error code -> policy, as the operator's command prints them."""
    words = [sys.executable, "-m", "ragworker", "retry-table", "--json"]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=TABLE_SECONDS, check=True)
    return dict(json.loads(answer.stdout)["policies"])
