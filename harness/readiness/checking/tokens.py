"""Make JWTs, good and forged, by hand: a library that refuses to sign nonsense cannot produce it for a check.

Source: RFC 7519 (claims), RFC 7515 (compact form), RFC 8725 (what goes wrong in practice). Verifies nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any


def encode_segment(content: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def sign(header: Mapping[str, Any], claims: Mapping[str, Any], *, secret: str, digest: str = "sha256") -> str:
    """A token with exactly this header and these claims, signed by HMAC whatever the header says."""
    parts = [encode_segment(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)]
    text = ".".join(parts)
    signature = hmac.new(secret.encode(), text.encode("ascii"), getattr(hashlib, digest)).digest()
    return f"{text}.{encode_segment(signature)}"


def good(claims: Mapping[str, Any], *, secret: str) -> str:
    """A plain HS256 token."""
    return sign({"alg": "HS256", "typ": "JWT"}, claims, secret=secret)


def forgeries(claims: Mapping[str, Any], *, secret: str, now: int) -> dict[str, str]:
    """Authorization headers that must all be refused, by what is wrong with them.

    ``claims`` is a set that would be accepted when signed with ``secret``; ``now`` is the time in seconds.
    """
    token = good(claims, secret=secret)
    head, body, signature = token.split(".")
    root = encode_segment(json.dumps({**claims, "sub": "root"}).encode())
    # The first character, because the last one carries unused bits: two texts of it can be the same signature.
    bent = ("A" if signature[0] != "A" else "B") + signature[1:]

    def without(name: str) -> str:
        return good({key: value for key, value in claims.items() if key != name}, secret=secret)

    def changed(**other: Any) -> str:
        return good({**claims, **other}, secret=secret)

    def none(algorithm: str) -> str:
        return ".".join([*sign({"alg": algorithm, "typ": "JWT"}, claims, secret="").split(".")[:2], ""])

    tokens: dict[str, str] = {
        "alg none": none("none"),
        "alg None": none("None"),
        "alg none, signature kept": f"{none('none').rstrip('.')}.{signature}",
        "other key": good(claims, secret=secret + "x"),
        "empty key": good(claims, secret=""),
        "HS512 with the right key": sign(
            {"alg": "HS512", "typ": "JWT"}, claims, secret=secret, digest="sha512"
        ),
        "alg RS256 signed by HMAC": sign({"alg": "RS256", "typ": "JWT"}, claims, secret=secret),
        "no alg": sign({"typ": "JWT"}, claims, secret=secret),
        "expired": changed(exp=now - 60),
        "expired one second ago": changed(exp=now - 1),
        "not yet valid": changed(nbf=now + 600),
        "issued in the future": changed(iat=now + 600),
        "exp no number": changed(exp="tomorrow"),
        "without exp": without("exp"),
        "without sub": without("sub"),
        "empty sub": changed(sub=""),
        "sub no text": changed(sub=["mallory"]),
        "sub with a line break": changed(sub="mallory\nadmin"),
        "body changed": f"{head}.{root}.{signature}",
        "signature bent": f"{head}.{body}.{bent}",
        "signature cut": f"{head}.{body}.",
        "two segments": f"{head}.{body}",
        "five segments": f"{token}.{head}.{body}",
        "no JSON": f"{encode_segment(b'{{')}.{body}.{signature}",
        "rubbish": "rubbish",
    }
    if "aud" in claims:
        tokens |= {"other audience": changed(aud="somebody-else"), "without audience": without("aud")}
    if "iss" in claims:
        tokens |= {"other issuer": changed(iss="somebody-else"), "without issuer": without("iss")}
    headers = {what: f"Bearer {forged}" for what, forged in tokens.items()}
    return headers | {
        "empty header": "",
        "no token": "Bearer",
        "other scheme": f"Basic {token}",
        "token without scheme": token,
        "very long": "Bearer " + "a" * 20_000,
    }
