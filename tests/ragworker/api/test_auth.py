"""Only a token that is signed with our secret, in time and for us, names a user."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from ragworker.api.auth import Authenticator, AuthError

# 64 bytes and more, so that the token signed with HS512 differs in nothing but its algorithm.
SECRET = "a-secret-of-the-tests-" * 3
GUARD = Authenticator(secret=SECRET, audience="rag", issuer="tests")


def user_of(guard: Authenticator, *headers: str | None) -> str:
    return asyncio.run(guard.user_of([header for header in headers if header is not None]))


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, changed; a change to None leaves the claim out."""
    base = {"sub": "alice", "aud": "rag", "iss": "tests", "exp": int(time.time()) + 60}
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def signed(payload: dict[str, Any], *, key: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(payload, key, algorithm=algorithm)


def raw_token(header: dict[str, Any], payload: dict[str, Any], *, key: str = SECRET) -> str:
    """A token made by hand, for headers that the library would not write."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    body = f"{part(header)}.{part(payload)}"
    mac = hmac.new(key.encode(), body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def tampered(token: str) -> str:
    """The same header and signature around the claims of another user."""
    head, _, signature = token.split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims(sub="mallory")).encode()).rstrip(b"=").decode()
    return f"{head}.{payload}.{signature}"


FORGED: dict[str, Callable[[], str]] = {
    "unsigned (alg none)": lambda: jwt.encode(claims(), "", algorithm="none"),
    "alg None in another spelling": lambda: (
        raw_token({"alg": "nOnE", "typ": "JWT"}, claims()).rpartition(".")[0] + "."
    ),
    "wrong key": lambda: signed(claims(), key="another-secret-of-the-tests-with-32-bytes"),
    "another algorithm of the family": lambda: signed(claims(), algorithm="HS512"),
    "header claims RS256 over an HMAC": lambda: raw_token({"alg": "RS256", "typ": "JWT"}, claims()),
    "expired": lambda: signed(claims(exp=int(time.time()) - 1)),
    "not valid yet": lambda: signed(claims(nbf=int(time.time()) + 60)),
    "another audience": lambda: signed(claims(aud="billing")),
    "no audience": lambda: signed(claims(aud=None)),
    "another issuer": lambda: signed(claims(iss="elsewhere")),
    "no issuer": lambda: signed(claims(iss=None)),
    "no expiry": lambda: signed(claims(exp=None)),
    "no subject": lambda: signed(claims(sub=None)),
    "empty subject": lambda: signed(claims(sub="")),
    "subject with a line break": lambda: signed(claims(sub="alice\nroot")),
    "subject that is no text": lambda: raw_token({"alg": "HS256"}, claims(sub=["alice"])),
    "tampered payload": lambda: tampered(signed(claims())),
    "signature cut off": lambda: signed(claims()).rpartition(".")[0] + ".",
    "no token at all": lambda: "",
    "garbage": lambda: "not.a.token",
}


def test_good_token_names_its_subject() -> None:
    """A token with our signature, audience and issuer gives its subject as the user id."""
    assert user_of(GUARD, f"Bearer {signed(claims())}") == "alice"
    assert user_of(GUARD, f"bearer {signed(claims())}") == "alice", (
        "the scheme's case does not matter (RFC 9110)"
    )


@pytest.mark.parametrize("name", FORGED)
def test_forged_token_is_refused(name: str) -> None:
    """Every forged or outdated token is refused, and the refusal does not repeat the token."""
    token = FORGED[name]()
    with pytest.raises(AuthError) as refusal:
        user_of(GUARD, f"Bearer {token}")
    assert "expected" in refusal.value.detail
    assert not token or token not in refusal.value.detail


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Basic YWxpY2U6cHc=", signed(claims()), "Bearer " + "x" * 9000]
)
def test_header_of_another_shape_is_refused(header: str | None) -> None:
    """A missing header, another scheme, a bare token and an oversized header are refused."""
    with pytest.raises(AuthError):
        user_of(GUARD, header)


def test_audience_and_issuer_are_asked_for_only_where_set() -> None:
    """Without a configured audience and issuer a token may carry any, and the signature still counts."""
    guard = Authenticator(secret=SECRET)
    assert user_of(guard, f"Bearer {signed(claims(aud='x', iss='y'))}") == "alice"
    with pytest.raises(AuthError):
        user_of(guard, f"Bearer {signed(claims(), key='another-secret-of-the-tests-with-32-bytes')}")


def test_without_secret_everybody_is_anonymous() -> None:
    """No secret means no authentication: the user is anonymous, whatever the header says."""
    assert user_of(Authenticator(), None) == "anonymous"
    assert user_of(Authenticator(), "Bearer whatever") == "anonymous"
