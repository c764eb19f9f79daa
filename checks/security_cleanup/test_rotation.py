"""Tokens signed by RSA keys of a JWKS: only listed keys count, new ones join, and a revoked one is soon refused."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.tokens import encode_segment, sign
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.pytest_plugin import lane_factory
from readiness.targets.base import Lane, Target

AUDIENCE, ISSUER, USER = "ragworker", "readiness", "alice@example.com"
MAX_AGE_SECONDS = 2  # by default 300: the same rule, sooner
# The set's age, a fetch (3 s at most), and a busy machine.
REVOKED_SECONDS = 10.0
# A key that the set lists anew may wait for the next look at it, 5 s after the last one.
JOINED_SECONDS = 12.0
TOKEN_SECONDS = 600
PATH = f"/rag/jobs/job-{'0' * 32}"  # 404 for whoever is known, 401 for whoever is not


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key with its id."""

    kid: str
    private: rsa.RSAPrivateKey

    @classmethod
    def made(cls, kid: str) -> Key:
        return cls(kid, rsa.generate_private_key(public_exponent=65537, key_size=2048))

    def listed(self) -> dict[str, str]:
        """The public half, as a JWKS lists it (RFC 7517)."""
        numbers = self.private.public_key().public_numbers()
        parts = {"n": numbers.n, "e": numbers.e}
        encoded = {
            name: base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))
            .rstrip(b"=")
            .decode()
            for name, value in parts.items()
        }
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, **encoded}

    def public_pem(self) -> str:
        public = self.private.public_key()
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return public.public_bytes(serialization.Encoding.PEM, kind).decode()

    def token(
        self, *, kid: str | None = None, algorithm: str = "RS256", headers: Any = None, **claims: Any
    ) -> str:
        now = int(time.time())
        body = {"sub": USER, "aud": AUDIENCE, "iss": ISSUER, "iat": now, "exp": now + TOKEN_SECONDS, **claims}
        return jwt.encode(
            body,
            self.private,
            algorithm=algorithm,
            headers={"kid": self.kid if kid is None else kid, **(headers or {})},
        )


@dataclass(frozen=True, slots=True)
class Rotated:
    """An API that takes tokens of the keys that a file lists."""

    lane: Lane
    file: Path

    def lists(self, *keys: Key) -> None:
        """From now on these keys are listed; the file is replaced whole."""
        temporary = self.file.with_suffix(".new")
        temporary.write_text(json.dumps({"keys": [key.listed() for key in keys]}), encoding="utf-8")
        temporary.replace(self.file)

    def status(self, token: str) -> int:
        return self.lane.http().get(PATH, headers={"Authorization": f"Bearer {token}"}).status_code


@pytest.fixture(scope="session")
def rotated_lane(target: Target, run_dir: Path) -> Iterator[Rotated]:
    """The API alone, with a JWKS in a file of ours that it may keep for two seconds."""
    file = run_dir / "data" / "rotated-jwks.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"keys": []}', encoding="utf-8")
    with ExitStack() as cleanup:
        lane = lane_factory(cleanup, target)(
            "rotated",
            workers=0,
            RAG_JWT_JWKS_URL=str(file),
            RAG_JWT_KEYS_MAX_AGE_SECONDS=MAX_AGE_SECONDS,
            RAG_JWT_AUDIENCE=AUDIENCE,
            RAG_JWT_ISSUER=ISSUER,
        )
        yield Rotated(lane=lane, file=file)


@pytest.mark.claim("G4.rotation")
def test_a_revoked_key_is_soon_refused(rotated_lane: Rotated, evidence: ClaimEvidence) -> None:
    """A listed key opens the API, forged ones never do; after a rotation the old key is refused within its bound
    although nobody came with the new one, and the new one works.
    """
    old, new, never = Key.made("old"), Key.made("new"), Key.made("never-listed")
    rotated_lane.lists(old)
    wrong: list[str] = []

    def eventually(what: str, token: str, status: int, seconds: float) -> None:
        began = time.monotonic()
        try:
            wait_until(
                lambda: rotated_lane.status(token) == status, seconds=seconds, what=what, every_seconds=0.1
            )
        except WaitedTooLong:
            wrong.append(f"{what}: expected {status} within {seconds:g} s, got {rotated_lane.status(token)}")
        took[what] = round(time.monotonic() - began, 3)

    took: dict[str, float] = {}
    eventually("listed key", old.token(), 404, JOINED_SECONDS)
    forged = forgeries(old, never)
    for what, token in forged.items():
        if (status := rotated_lane.status(token)) != 401:
            wrong.append(f"{what}: expected 401, got {status}")
    old_token = old.token()
    rotated_lane.lists(new)
    eventually("revoked key", old_token, 401, REVOKED_SECONDS)
    eventually("new key", new.token(), 404, JOINED_SECONDS)
    if (status := rotated_lane.status(old_token)) != 401:
        wrong.append(f"revoked key after the new one came: expected 401 within 0 s, got {status}")
    evidence.cases(4 + len(forged), len(wrong), wrong, "keys and forgeries")
    evidence.facts(seconds=took, forgeries=sorted(forged))
    assert not wrong, wrong[0]


def forgeries(key: Key, other: Key) -> dict[str, str]:
    """Tokens that must be refused while ``key`` is listed and ``other`` is not."""
    now = int(time.time())
    claims = {"sub": USER, "aud": AUDIENCE, "iss": ISSUER, "exp": now + TOKEN_SECONDS}
    head, body, signature = key.token().split(".")
    none = encode_segment(json.dumps({"alg": "none", "kid": key.kid}).encode())
    bent = ("A" if signature[0] != "A" else "B") + signature[1:]
    return {
        "key that is not listed": other.token(),
        "other key under a listed id": other.token(kid=key.kid),
        "other key that brings itself": other.token(kid=key.kid, headers={"jwk": other.listed()}),
        "other key by its address": other.token(kid=key.kid, headers={"jku": "http://127.0.0.1:1/keys"}),
        "public key as an HMAC secret": sign(
            {"alg": "HS256", "kid": key.kid}, claims, secret=key.public_pem()
        ),
        "alg none": f"{none}.{body}.",
        "alg none, signature kept": f"{none}.{body}.{signature}",
        "PS256 with the listed key": key.token(algorithm="PS256"),
        "RS512 with the listed key": key.token(algorithm="RS512"),
        "signature bent": f"{head}.{body}.{bent}",
        "expired": key.token(exp=now - 1),
        "not valid yet": key.token(nbf=now + 60),
        "other audience": key.token(aud="somebody-else"),
        "other issuer": key.token(iss="somebody-else"),
        "empty sub": key.token(sub=""),
    }
