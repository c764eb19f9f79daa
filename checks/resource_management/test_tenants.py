"""What one user or one queue uses up is its own: nobody else is refused for it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import httpx
import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.tokens import good
from readiness.checking.waiting import wait_until

TOKEN_SECONDS = 600
QUIET = 5  # users who ask now and then
EXTRA = 10  # requests of the noisy user beyond the limit
WINDOW_SECONDS = 60


@pytest.mark.claim("B2.tenants")
def test_a_noisy_user_uses_up_only_its_own_limit(tenant_lane: Any, evidence: ClaimEvidence) -> None:
    """One user is refused from exactly the limit on and told when to come back; users who ask meanwhile never are."""
    asked = Asked(tenant_lane)
    limit = int(tenant_lane.lane.settings["RAG_USER_RATE_LIMIT"])
    started = time.monotonic()
    wrong: list[str] = []
    statuses: list[int] = []
    last: httpx.Response | None = None
    for number in range(limit + EXTRA):
        last = asked.by("noisy")
        statuses.append(last.status_code)
        if number % 5 == 0:
            quiet = asked.by(f"quiet-{number % QUIET}")
            if quiet.status_code != httpx.codes.OK:
                wrong.append(f"a quiet user got {quiet.status_code} while another one was noisy")
    took = time.monotonic() - started
    expected = [200] * limit + [429] * EXTRA
    if took < WINDOW_SECONDS and statuses != expected:
        wrong.append(
            f"expected {limit} requests to pass and {EXTRA} to be refused, got {dict(Counter(statuses))},"
            f" the first refusal at request {statuses.index(429) + 1 if 429 in statuses else None}"
        )
    assert last is not None
    wait = last.headers.get("retry-after", "")
    if not (wait.isdigit() and 1 <= int(wait) <= WINDOW_SECONDS):
        wrong.append(f"expected Retry-After of 1 to {WINDOW_SECONDS} s with the 429, got {wait!r}")
    # A refused request has no effect.
    refused = asked.by("noisy", method="POST")
    if refused.status_code != httpx.codes.TOO_MANY_REQUESTS or "job_id" in refused.text:
        wrong.append(f"expected a submit above the limit to be refused, got {refused.status_code}")
    n = len(statuses) + 3
    evidence.cases(n, min(n, len(wrong)), wrong, "requests of a noisy and of quiet users")
    evidence.facts(limit=limit, seconds=round(took, 3), answers=dict(Counter(statuses)))
    assert not wrong, wrong[0]


@pytest.mark.early
@pytest.mark.claim("B2.user_window")
def test_the_window_of_a_user_slides(tenant_lane: Any, evidence: ClaimEvidence) -> None:
    """A burst just before a minute is over is not followed by another one just after it: no 60 s hold more."""
    asked = Asked(tenant_lane)
    limit = int(tenant_lane.lane.settings["RAG_USER_RATE_LIMIT"])
    passed: list[float] = []

    def ask(count: int) -> int:
        before = len(passed)
        for _ in range(count):
            if asked.by("sliding").status_code == httpx.codes.OK:
                passed.append(time.monotonic())
        return len(passed) - before

    started = time.monotonic()
    first = ask(1)
    wait_until(lambda: time.monotonic() > started + 55, seconds=90, what="55 s", every_seconds=0.2)
    before_edge = ask(limit)
    wait_until(lambda: time.monotonic() > started + 62, seconds=90, what="62 s", every_seconds=0.2)
    after_edge = ask(limit)
    got = (first, before_edge, after_edge)
    expected = (1, limit - 1, 1)
    wrong = [] if got == expected else [f"expected {expected} requests to pass at 0, 55 and 62 s, got {got}"]
    evidence.cases(3, len(wrong), wrong, "bursts around the end of a minute")
    assert not wrong, wrong[0]


class Asked:
    """Requests of users with tokens of their own."""

    def __init__(self, tenants: Any) -> None:
        self._tenants = tenants
        self._until = int(time.time()) + TOKEN_SECONDS

    def by(self, user: str, *, method: str = "GET") -> httpx.Response:
        """One request that costs the system little, or a submit."""
        token = good({"sub": user, "exp": self._until}, secret=self._tenants.secret)
        headers = {"Authorization": f"Bearer {token}"}
        client: httpx.Client = self._tenants.lane.http()
        if method == "POST":
            return client.post("/rag/jobs", json={"text": "above the limit"}, headers=headers)
        return client.get("/rag/dlq", headers=headers)
