"""Who may see what: a valid token for everything below /rag/, and only one's own jobs."""

from __future__ import annotations

import pytest
from api_process import SECRET, Api
from test_auth import FORGED, claims, signed

from ragworker.errors import ErrorCode
from ragworker.job import JobError, OutcomeKind

ROUTES = [
    ("POST", "/rag/jobs"),
    ("GET", "/rag/jobs/x"),
    ("POST", "/rag/jobs/x/cancel"),
    ("GET", "/rag/jobs/x/events"),
    ("GET", "/rag/dlq"),
    ("GET", "/rag/dlq/x"),
    ("POST", "/rag/dlq/x/requeue"),
    ("DELETE", "/rag/dlq/x"),
    ("GET", "/rag/anything"),
]


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


def test_another_users_job_is_404(guarded_api: Api) -> None:
    """To everybody else a job does not exist, alive or dead; same text, other user is another job."""
    alice, bob = bearer("alice"), bearer("bob")
    mine = guarded_api.submit("the same text of two users", headers=alice, priority="high").json()["job_id"]
    error = JobError(ErrorCode.VALIDATION_ERROR, "no words")
    guarded_api.settle(guarded_api.claim(), OutcomeKind.DEAD, error=error)
    theirs = guarded_api.submit("the same text of two users", headers=bob).json()["job_id"]
    assert mine != theirs
    for method, path in [
        ("GET", f"/rag/jobs/{mine}"),
        ("GET", f"/rag/jobs/{mine}/events"),
        ("POST", f"/rag/jobs/{mine}/cancel"),
        ("GET", f"/rag/dlq/{mine}"),
        ("POST", f"/rag/dlq/{mine}/requeue"),
        ("DELETE", f"/rag/dlq/{mine}"),
    ]:
        assert guarded_api.client.request(method, path, headers=bob).status_code == 404, (method, path)
    assert guarded_api.client.get("/rag/dlq", headers=bob).json() == {"entries": [], "count": 0}
    assert guarded_api.client.get("/rag/dlq", headers=alice).json()["count"] == 1
    assert (
        guarded_api.client.get(f"/rag/dlq/{mine}", headers=alice).json()["error"]["code"]
        == "VALIDATION_ERROR"
    )
