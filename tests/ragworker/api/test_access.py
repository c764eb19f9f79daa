"""Who may see what: a valid token for everything below /rag/, and only one's own jobs."""

from __future__ import annotations

import json

import pytest
from api_process import SECRET, Api, routes_of
from test_auth import FORGED, claims, signed

from ragworker.api import jobs
from ragworker.errors import ErrorCode
from ragworker.job import JobError, OutcomeKind

#: Every route below /rag/, as the app itself lists them, and one that does not exist.
ROUTES = [
    *((method, path.replace("{job_id}", "x")) for method, path in routes_of(*jobs.routers)),
    ("GET", "/rag/anything"),
]

#: What a stranger is answered on each route that names a job; a route that is not listed fails the test.
STRANGERS = {
    ("GET", "/rag/jobs/{job_id}"): 404,
    ("GET", "/rag/jobs/{job_id}/events"): 404,
    ("POST", "/rag/jobs/{job_id}/cancel"): 404,
    ("POST", "/rag/jobs/{job_id}/rollback"): 404,
    ("GET", "/rag/dlq/{job_id}"): 404,
    ("POST", "/rag/dlq/{job_id}/requeue"): 404,
    ("DELETE", "/rag/dlq/{job_id}"): 404,
}


def bearer(user_id: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {signed(claims(sub=user_id))}"}


@pytest.mark.parametrize("name", [*FORGED, "header missing"])
def test_forged_token_is_401_on_every_route(guarded_api: Api, name: str) -> None:
    """No route below /rag/ answers anything but a 401 problem to a forged, outdated or missing token."""
    headers = {} if name == "header missing" else {"Authorization": f"Bearer {FORGED[name]()}".strip()}
    for method, path in ROUTES:
        answer = guarded_api.client.request(method, path, headers=headers)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


def test_open_routes_need_no_token(guarded_api: Api) -> None:
    """Probes, metrics and UI error reports stay open when a secret is set."""
    assert guarded_api.client.get("/healthz").status_code == 200
    assert guarded_api.client.get("/metrics").status_code == 200
    assert guarded_api.client.post("/ui/errors", json={"type": "network"}).status_code == 204


def test_user_of_the_token_owns_the_job(guarded_api: Api) -> None:
    """The verified subject is the job's user, in the job and in the log; the token is in no line."""
    headers = bearer("alice@example.org")
    answer = guarded_api.submit("a text of alice", headers=headers)
    job = guarded_api.client.get(f"/rag/jobs/{answer.json()['job_id']}", headers=headers).json()
    assert job["user_id"] == "alice@example.org"
    (line,) = guarded_api.lines(message="job.submitted", job_id=job["job_id"])
    assert line["user_id"] == "alice@example.org"
    log = guarded_api.log.read_text("utf-8")
    assert headers["Authorization"] not in log
    assert SECRET not in log


@pytest.mark.parametrize("state", ["queued", "running", "done", "dead", "cancelled"])
@pytest.mark.parametrize("mode", ["durable", "background"])
def test_another_users_job_is_404_on_every_route(guarded_api: Api, mode: str, state: str) -> None:
    """To everybody else a job does not exist, in whatever state and mode: the answers are those of no job at all."""
    alice, bob = bearer("alice"), bearer("bob")
    text = f"the same text of two users {mode} {state}"
    guarded_api.set_flag("true" if mode == "durable" else "false")
    mine = guarded_api.submit(text, headers=alice, priority="high").json()["job_id"]
    if mode == "durable" and state in ("running", "done", "dead"):
        job = guarded_api.claim()
        error = JobError(ErrorCode.VALIDATION_ERROR, "no words")
        if state == "done":
            guarded_api.settle(job, OutcomeKind.DONE)
        elif state == "dead":
            guarded_api.settle(job, OutcomeKind.DEAD, error=error)
    elif state == "cancelled":
        guarded_api.client.post(f"/rag/jobs/{mine}/cancel", headers=alice)
    assert {(method, path) for method, path in routes_of(*jobs.routers) if "{job_id}" in path} == set(
        STRANGERS
    )
    for (method, path), status in STRANGERS.items():
        answers = [
            guarded_api.client.request(method, path.replace("{job_id}", job_id), headers=bob)
            for job_id in (mine, "job-" + "0" * 32)
        ]
        assert [answer.status_code for answer in answers] == [status, status], (method, path)
        said, of_none = ({**answer.json(), "request_id": 0, "trace_id": 0} for answer in answers)
        assert json.dumps(said).replace(mine, "job-" + "0" * 32) == json.dumps(of_none)
    assert guarded_api.client.get("/rag/dlq", headers=bob).json() == {"entries": [], "count": 0}
    theirs = guarded_api.submit(text, headers=bob).json()["job_id"]
    assert theirs != mine
    assert guarded_api.client.get(f"/rag/jobs/{mine}", headers=alice).json()["user_id"] == "alice"
    listed = guarded_api.client.get("/rag/dlq", headers=alice).json()["entries"]
    assert (mine in [entry["job_id"] for entry in listed]) == (mode == "durable" and state == "dead")
    # No job stays that the next case would claim in place of its own.
    guarded_api.client.post(f"/rag/jobs/{mine}/cancel", headers=alice)
    guarded_api.client.post(f"/rag/jobs/{theirs}/cancel", headers=bob)
    guarded_api.set_flag("true")


def test_same_key_of_two_users_is_two_jobs(guarded_api: Api) -> None:
    """An Idempotency-Key names work of one user: another one can neither find nor block it with the same key."""
    answers = [
        guarded_api.submit("text", headers={**bearer(user), "Idempotency-Key": "order-7"})
        for user in ("alice", "bob", "alice")
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 200]
    assert answers[0].json()["job_id"] == answers[2].json()["job_id"] != answers[1].json()["job_id"]
