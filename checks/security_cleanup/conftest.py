"""The lane that asks for tokens, and the one whose jobs are cancelled and whose worker is killed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from readiness.checking.tokens import good
from readiness.pytest_plugin import lane_factory
from readiness.targets.base import Lane, Target

AUDIENCE, ISSUER = "ragworker", "readiness"
TOKEN_SECONDS = 600  # longer than any run of the checks
USER, OTHER_USER = "alice@example.com", "bob@example.com"


@dataclass(frozen=True, slots=True)
class Secured:
    """A lane that asks for tokens, with the secret that signs them. The secret must never be printed."""

    lane: Lane
    secret: str
    claims: dict[str, Any]

    def headers(self, user: str = USER) -> dict[str, str]:
        """The Authorization header of a user."""
        token = good({**self.claims, "sub": user}, secret=self.secret)
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="session")
def secured_lane(target: Target) -> Iterator[Secured]:
    """API and one worker with a secret of this session's own."""
    secret = f"canary-jwt-{secrets.token_hex(24)}"
    now = int(time.time())
    claims = {"sub": USER, "aud": AUDIENCE, "iss": ISSUER, "iat": now, "exp": now + TOKEN_SECONDS}
    with ExitStack() as cleanup:
        lane = lane_factory(cleanup, target)(
            "secured",
            RAG_JWT_SECRET=secret,
            RAG_JWT_AUDIENCE=AUDIENCE,
            RAG_JWT_ISSUER=ISSUER,
            ALERTMANAGER_WEBHOOK_URL=f"https://hooks.invalid/canary-hook-{secrets.token_hex(16)}",
            OTEL_EXPORTER_OTLP_HEADERS=f"x-key=canary-otlp-{secrets.token_hex(16)}",
        )
        yield Secured(lane=lane, secret=secret, claims=claims)


@pytest.fixture(scope="session")
def cleanup_lane(target: Target) -> Iterator[Lane]:
    """API and one worker with small batches, so that jobs have many stages, and a short lease. Who waits for a retry
    waits for half a minute: a cancellation that waits for the retry too comes late.
    """
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)(
            "cleanup", RAG_LEASE_SECONDS=1, RAG_EMBEDDING_BATCH_SIZE=4, RAG_RETRY_BASE_SECONDS=30
        )
