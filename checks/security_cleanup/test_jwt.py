"""Only a verified token opens the API, its subject is the user, and nobody reads another one's job."""

from __future__ import annotations

import time
from typing import Any

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.tokens import forgeries
from readiness.checking.waiting import wait_until
from readiness.documents import Document

USER, OTHER_USER = "alice@example.com", "bob@example.com"
FINISH_SECONDS = 20.0
# Routes below /rag/ that must be there; a forgery must not open a single one of them or of any other.
ROUTES = (
    ("POST", "/rag/jobs"),
    ("GET", "/rag/jobs/{job}"),
    ("GET", "/rag/jobs/{job}/events"),
    ("POST", "/rag/jobs/{job}/cancel"),
    ("POST", "/rag/jobs/{job}/rollback"),
    ("GET", "/rag/dlq"),
    ("GET", "/rag/dlq/{job}"),
    ("POST", "/rag/dlq/{job}/requeue"),
    ("DELETE", "/rag/dlq/{job}"),
)


@pytest.mark.claim("G4.jwt")
def test_only_a_verified_token_opens_the_api(secured_lane: Any, evidence: ClaimEvidence, seed: int) -> None:
    """Every forged token is answered 401 on every route, a valid one works, and jobs belong to the token's
    subject.
    """
    secured = secured_lane
    lane, client = secured.lane, secured.lane.http()
    document = Document(name="secured.txt", media_type="text/plain", content=f"secured {seed}".encode())
    mine = lane.enqueue(document, headers=secured.headers())
    job = mine.job_id
    wrong: list[str] = []
    n = 0

    # A valid token passes; the user id in answer and logs is its subject.
    n += 1
    if not mine.accepted:
        wrong.append(f"valid token: expected 202, got {mine.status_code}")

    def finished() -> dict[str, Any] | None:
        answer = client.get(f"/rag/jobs/{job}", headers=secured.headers())
        body = answer.json() if answer.status_code == 200 else {}
        return body if body.get("state") in ("done", "dead") else None

    body = wait_until(finished, seconds=FINISH_SECONDS, what="the end of the job of a valid token")
    n += 2
    if body["user_id"] != USER or body["state"] != "done":
        wrong.append(
            f"job of a valid token: expected done for its sub, got {body['state']} for {body['user_id']!r}"
        )
    users = {line.get("user_id") for line in lane.log_lines() if line.get("job_id") == job}
    if users != {USER}:
        wrong.append(
            f"log lines of the job: expected the token's sub as user_id, got {sorted(map(str, users))}"
        )

    # Forged ones do not pass; all forgeries on the cheapest route, and the classic ones on every route.
    forged = forgeries(secured.claims, secret=secured.secret, now=int(time.time()))
    tries = [(what, "GET", f"/rag/jobs/{job}") for what in forged]
    routes = [*ROUTES, *(route for route in described_routes(client) if route not in ROUTES)]
    tries += [("no header at all", method, route.format(job=job)) for method, route in routes]
    tries += [
        (what, method, route.format(job=job))
        for what in ("alg none", "other key")
        for method, route in routes
    ]
    for what, method, path in tries:
        n += 1
        headers = {"Authorization": forged[what]} if what in forged else {}
        answer = client.request(method, path, headers=headers)
        kind = answer.headers.get("content-type", "")
        if answer.status_code != 401 or not kind.startswith("application/problem+json"):
            wrong.append(
                f"{what}, {method} {path}: expected 401 problem+json, got {answer.status_code} {kind}"
            )

    # Another user's job does not exist for somebody else.
    for method, route in ROUTES[1:]:
        if "{job}" not in route:
            continue
        n += 1
        answer = client.request(method, route.format(job=job), headers=secured.headers(OTHER_USER))
        if answer.status_code != 404:
            wrong.append(f"other user, {method} {route}: expected 404, got {answer.status_code}")

    # The same content of two users is two jobs.
    n += 1
    if lane.enqueue(document, headers=secured.headers(OTHER_USER)).job_id == job:
        wrong.append("same content of another user: expected a job of its own, got the first user's")

    evidence.cases(n, len(wrong), wrong, "tokens and routes")
    evidence.facts(forgeries=sorted(forged), routes=[f"{method} {route}" for method, route in routes])
    assert not wrong, wrong[0]


@pytest.mark.claim("G4.jwt")
def test_a_token_counts_in_one_place_only(secured_lane: Any, evidence: ClaimEvidence) -> None:
    """A good token in the query, in a cookie or beside another one opens nothing, and no header beside it says who
    the user is.
    """
    secured = secured_lane
    client = secured.lane.http()
    forged = forgeries(secured.claims, secret=secured.secret, now=int(time.time()))["other key"]
    document = Document(name="placed.txt", media_type="text/plain", content=b"a token in its place")
    job = secured.lane.enqueue(document, headers=secured.headers()).job_id
    good = secured.headers()["Authorization"]
    bare = good.removeprefix("Bearer ")
    places: dict[str, dict[str, Any]] = {
        "token in the query": {"params": {"access_token": bare}},
        "token in a cookie": {"headers": {"Cookie": f"access_token={bare}; token={bare}"}},
        "two headers": {"headers": [("Authorization", good), ("Authorization", forged)]},
        "two headers, the good one last": {"headers": [("Authorization", forged), ("Authorization", good)]},
    }
    wrong: list[str] = []
    for what, request in places.items():
        status = client.get(f"/rag/jobs/{job}", **request).status_code
        if status != 401:
            wrong.append(f"{what}: expected 401, got {status}")
    claimed = {**secured.headers(OTHER_USER), "X-User-ID": USER, "X-Forwarded-User": USER}
    status = client.get(f"/rag/jobs/{job}", headers=claimed).status_code
    if status != 404:
        wrong.append(f"another user who names the first in a header: expected 404, got {status}")
    evidence.cases(len(places) + 1, len(wrong), wrong, "places of a token")
    assert not wrong, wrong[0]


def described_routes(client: Any) -> list[tuple[str, str]]:
    """Every route below /rag/, by the API's own description."""
    return [
        (method.upper(), path.replace("{job_id}", "{job}"))
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        for method in operations
        if path.startswith("/rag/") and method in ("get", "post", "put", "patch", "delete")
    ]
