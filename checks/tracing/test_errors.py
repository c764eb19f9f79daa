"""What goes wrong can be joined with the request that caused it: every line about a failure carries all of its ids."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import pytest

from readiness.checking.ends import ends_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import JsonObject, Lane

FINISH_SECONDS = 30.0
LOG_SECONDS = 5.0  # lines are written before the state is seen, but by another process
OF_EACH = 8
RETRIES = 4  # RAG_MAX_RETRIES, default
# kind -> rule of the embedding API, lines that its job must leave.
FATES: Mapping[str, tuple[dict[str, object] | None, Mapping[str, int]]] = {
    "hopeless": (
        {"status": 503},
        {
            "job.failed": RETRIES + 1,
            "job.retry_scheduled": RETRIES,
            "job.dead_lettered": 1,
            "job.finished": 1,
        },
    ),
    "rejected": ({"status": 400}, {"job.failed": 1, "job.dead_lettered": 1, "job.finished": 1}),
    "stumbling": (
        {"status": 500, "times": 1},
        {"job.failed": 1, "job.retry_scheduled": 1, "job.finished": 1},
    ),
    "unreadable": (None, {"job.failed": 1, "job.dead_lettered": 1, "job.finished": 1}),
}
IDS = {"request_id": "X-Request-ID", "trace_id": "X-Trace-ID", "correlation_id": "X-Correlation-ID"}
BAD_LEVELS = {"WARNING", "ERROR", "CRITICAL"}


@pytest.mark.claim("G3.errors")
def test_every_failure_is_joined_with_its_request(retry_lane: Lane, evidence: ClaimEvidence) -> None:
    """Jobs that fail once, for good, or at once: each of their lines has the ids that the caller sent, and no line of
    trouble is missing.
    """
    lane = retry_lane
    # A rule a document: what is to happen once happens once to each of them.
    lane.script_embedding(
        [
            {"contains": f"join-{kind}-{number} ", **rule}
            for kind, (rule, _) in FATES.items()
            if rule is not None
            for number in range(OF_EACH)
        ]
    )
    sent: dict[str, tuple[str, dict[str, str]]] = {}
    for kind in FATES:
        for number in range(OF_EACH):
            ids = fresh_ids(f"{kind}-{number}")
            document = Document(
                f"join-{kind}-{number}.txt", "text/plain", f"join-{kind}-{number} word".encode()
            )
            if kind == "unreadable":
                document = Document(
                    f"join-{number}.pdf", "application/pdf", f"%PDF-1.7 none {number}".encode()
                )
            sent[lane.enqueue(document, headers=headers(ids)).job_id] = kind, ids
    ends_of(lane, list(sent), seconds=FINISH_SECONDS)
    wrong: list[str] = []

    def lines() -> dict[str, list[JsonObject]]:
        found: dict[str, list[JsonObject]] = {job: [] for job in sent}
        for line in lane.log_lines():
            found.get(str(line.get("job_id")), []).append(line)
        return found

    def complete() -> bool:
        by_job = lines()
        return all(any(line.get("message") == "job.finished" for line in by_job[job]) for job in sent)

    wait_until(
        complete, seconds=LOG_SECONDS, what="a job.finished line of every failed job", every_seconds=0.2
    )
    by_job = lines()
    for job, (kind, ids) in sent.items():
        why = missing(by_job[job], FATES[kind][1]) or foreign(by_job[job], ids)
        if why:
            wrong.append(f"{kind} job {job}: {why}")
    lane.script_embedding([])

    # A request that is refused leaves its trace in the API's log under the same ids.
    refused = [fresh_ids(f"refused-{number}") for number in range(OF_EACH)]
    for ids in refused:
        lane.http().get(f"/rag/jobs/job-{'0' * 32}", headers=headers(ids))
    for ids in refused:
        mine = [line for line in lane.log_lines() if line.get("correlation_id") == ids["correlation_id"]]
        if not any(line.get("status") == 404 and not foreign([line], ids) for line in mine):
            wrong.append(
                f"a refused request: expected a line with status 404 and {ids}, got {len(mine)} lines"
            )
    evidence.trials(len(sent) + len(refused), len(wrong), "jobs", examples=wrong)
    evidence.facts(lines=sum(map(len, by_job.values())), of_each_kind=OF_EACH, kinds=sorted(FATES))
    assert not wrong, wrong[0]


def fresh_ids(name: str) -> dict[str, str]:
    """Ids as another service would send them."""
    return {
        "request_id": f"req-{secrets.token_hex(8)}",
        "trace_id": f"trace-{secrets.token_hex(16)}",
        "correlation_id": f"order-{name}-{secrets.token_hex(4)}",
    }


def headers(ids: Mapping[str, str]) -> dict[str, str]:
    return {IDS[name]: value for name, value in ids.items()}


def missing(lines: Sequence[JsonObject], wanted: Mapping[str, int]) -> str:
    """The first event of which there are other than the wanted number of lines; "" for none."""
    seen = [str(line.get("message")) for line in lines]
    for event, count in wanted.items():
        if seen.count(event) != count:
            return f"expected {count} lines {event}, got {seen.count(event)}"
    return ""


def foreign(lines: Sequence[JsonObject], ids: Mapping[str, str]) -> str:
    """The first line that lacks an id of the request, or has another one; "" for none."""
    for line in lines:
        for name, value in ids.items():
            if line.get(name) != value:
                event = line.get("message")
                return f"{event} ({line.get('service')}): expected {name} {value!r}, got {line.get(name)!r}"
        if line.get("level") in BAD_LEVELS and not line.get("user_id"):
            return f"{line.get('message')} ({line.get('service')}): expected a user_id, got none"
    return ""
