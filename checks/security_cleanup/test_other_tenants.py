"""Nobody sees, stops, undoes, repeats or forgets another tenant's job: every route of the API, every state of a job."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document

FINISH_SECONDS = 20.0
STRANGER = "bob@example.com"
UNKNOWN = f"job-{'0' * 32}"
SLOW_MS = 15_000  # keeps one job running while it is asked for
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.mark.claim("G4.tenant")
def test_another_tenants_job_does_not_exist(secured_lane: Any, evidence: ClaimEvidence, seed: int) -> None:
    """Each route that names a job, found in the API's own description, answers a stranger as it answers an unknown
    id, for a job that is done, dead or running; afterwards nothing about these jobs has changed.
    """
    secured = secured_lane
    lane, client, mine = secured.lane, secured.lane.http(), secured.headers()
    routes = job_routes(client)
    lane.script_embedding(
        [
            {"contains": f"tenant-dead-{seed}", "status": 400},
            {"contains": f"tenant-running-{seed}", "delay_ms": SLOW_MS},
        ]
    )
    jobs: dict[str, str] = {}
    for state in ("done", "dead", "running"):
        document = Document(f"tenant-{state}.txt", "text/plain", f"tenant-{state}-{seed} text".encode())
        jobs[state] = lane.enqueue(document, headers=mine, key=f"tenant-{state}-{seed}").job_id

    def states() -> dict[str, str]:
        return {
            state: client.get(f"/rag/jobs/{job}", headers=mine).json().get("state", "")
            for state, job in jobs.items()
        }

    expected = {state: state for state in jobs}
    wait_until(
        lambda: states() == expected, seconds=FINISH_SECONDS, what=f"jobs {expected}", every_seconds=0.1
    )
    before = {state: client.get(f"/rag/jobs/{job}", headers=mine).json() for state, job in jobs.items()}

    wrong: list[str] = []
    n = 0
    stranger = secured.headers(STRANGER)
    for method, route in routes:
        unknown = client.request(method, route.format(job_id=UNKNOWN), headers=stranger)
        for state, job in jobs.items():
            n += 1
            answer = ask(client, method, route.format(job_id=job), stranger)
            where = f"another tenant, {method.upper()} {route} of a {state} job"
            if answer.status_code != 404:
                wrong.append(f"{where}: expected 404, got {answer.status_code}")
            elif told(answer, job) != told(unknown, UNKNOWN):
                wrong.append(f"{where}: expected the answer for an unknown job, got another one")
    # Lists and idempotency keys are each tenant's own.
    n += 2
    listed = client.get("/rag/dlq", headers=stranger)
    if listed.status_code != 200 or any(job in listed.text for job in jobs.values()):
        wrong.append(
            f"another tenant, GET /rag/dlq: expected 200 without the other's jobs, got {listed.status_code}"
        )
    again = Document("tenant-done.txt", "text/plain", f"tenant-other-{seed} text".encode())
    same_key = lane.enqueue(again, headers=stranger, key=f"tenant-done-{seed}")
    if same_key.job_id in jobs.values() or same_key.duplicate:
        wrong.append(
            "another tenant with the same Idempotency-Key: expected a job of its own, got the other's"
        )

    # What the stranger tried has left no mark.
    n += len(jobs)
    after = {state: client.get(f"/rag/jobs/{job}", headers=mine).json() for state, job in jobs.items()}
    for state in jobs:
        changed = [
            name
            for name in ("state", "history", "error")
            if before[state].get(name) != after[state].get(name)
        ]
        if changed:
            wrong.append(
                f"another tenant, a {state} job: expected {', '.join(changed)} unchanged, they changed"
            )
    client.post(f"/rag/jobs/{jobs['running']}/cancel", headers=mine)
    lane.script_embedding([])
    evidence.cases(n, min(len(wrong), n), wrong, "routes of another tenant's jobs")
    evidence.facts(routes=[f"{method.upper()} {route}" for method, route in routes], states=list(jobs))
    assert not wrong, wrong[0]


def job_routes(client: httpx.Client) -> list[tuple[str, str]]:
    """Every route that names a job, by the API's own description."""
    described = client.get("/openapi.json").json()["paths"]
    routes = [
        (method, path)
        for path, operations in described.items()
        for method in operations
        if method in METHODS and "{job_id}" in path
    ]
    assert len(routes) >= 6, f"expected the routes of jobs and dead letters, got {routes}"
    return sorted(routes, key=lambda route: METHODS.index(route[0]))


def ask(client: httpx.Client, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    """The answer; of an endless one (an event stream that was opened after all) its head."""
    with client.stream(method, path, headers=headers) as answer:
        if "event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
        return answer


def told(answer: httpx.Response, job: str) -> dict[str, object]:
    """What an answer tells, without what differs between any two requests."""
    try:
        body = json.loads(answer.text.replace(job, "JOB"))
    except (httpx.ResponseNotRead, ValueError):
        return {"status": answer.status_code}
    return {name: value for name, value in body.items() if name not in ("request_id", "trace_id")}
