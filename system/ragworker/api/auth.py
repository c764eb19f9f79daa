"""Learn who calls from a verified JWT (spec G4). Of HTTP it knows one header.

A token's own header chooses between the keys that we have, never what is done with them (RFC 8725, sections
3.1 and 3.2): HS256 is checked with the shared secret alone, RS256 with a key of the JWKS alone, everything
else is refused. So `alg: none` and algorithm confusion end here, as do keys that a token brings itself
(`jwk`, `jku`, `x5u`). Time claims are checked without leeway.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx
import jwt

from ragworker.api.problems import Problem, UnavailableError
from ragworker.logs import get_logger
from ragworker.settings import Settings, SettingsError

logger = get_logger(__name__)

#: The user where neither secret nor key set is given: authentication is off and everybody is the same user.
ANONYMOUS: Final = "anonymous"

#: A header beyond this is no token of ours; the bound keeps decoding cheap.
MAX_HEADER_CHARS: Final = 8_192

#: A subject goes into logs, Redis and SQL: printable, and short enough for an index.
MAX_SUBJECT_CHARS: Final = 200

#: RFC 7518, sections 3.2 and 3.3: no HMAC key shorter than the hash, no RSA key below 2048 bits.
MIN_SECRET_BYTES: Final = 32
MIN_RSA_BITS: Final = 2048

#: A fetch of the key set ends by then; a request that needs a key we do not have waits for it.
FETCH_SECONDS: Final = 3.0

#: A token with an unknown key makes us look for it again, at most this often; longer than a fetch lasts.
REFETCH_SECONDS: Final = 5.0

#: A key that the set lists no more is refused after this time at the latest, unless the settings say another.
MAX_AGE_SECONDS: Final = 300.0

#: A key set is a few kilobytes.
MAX_KEY_SET_BYTES: Final = 256 * 1024


class AuthError(Problem):
    """401: the caller is not known. The detail names the check that failed and never repeats the token."""

    def __init__(self, detail: str) -> None:
        super().__init__("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="ragworker"'})


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Turns an Authorization header into a user id; without secret and keys everybody is `anonymous`."""

    secret: str = ""
    keys: KeySet | None = None
    audience: str = ""
    issuer: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Authenticator:
        """What the settings ask for. SettingsError for a secret that is too short to be one."""
        if 0 < len(settings.jwt_secret.encode()) < MIN_SECRET_BYTES:
            raise SettingsError(f"RAG_JWT_SECRET: expected at least {MIN_SECRET_BYTES} bytes. Lengthen it.")
        max_age = settings.jwt_keys_max_age_seconds
        keys = KeySet(settings.jwt_jwks_url, max_age_seconds=max_age) if settings.jwt_jwks_url else None
        return cls(settings.jwt_secret, keys, settings.jwt_audience, settings.jwt_issuer)

    @property
    def required(self) -> bool:
        """Whether a token is asked for at all."""
        return bool(self.secret or self.keys)

    async def user_of(self, authorizations: Sequence[str]) -> str:
        """The verified `sub`. AuthError: missing, malformed, forged or out of date; UnavailableError."""
        if not self.required:
            return ANONYMOUS
        token = _bearer_token(authorizations)
        bound = ["aud"] * bool(self.audience) + ["iss"] * bool(self.issuer)
        try:
            header = jwt.get_unverified_header(token)
            key, algorithm = await self._key(header)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self.audience or None,
                issuer=self.issuer or None,
                options={"require": ["exp", "sub", *bound], "verify_aud": bool(self.audience)},
            )
        except jwt.PyJWTError as error:
            why = _REFUSALS.get(type(error), "it cannot be read")
            raise AuthError(f"expected a valid token, it was refused: {why}") from None
        subject = claims["sub"]
        if not 1 <= len(subject) <= MAX_SUBJECT_CHARS or not subject.isprintable():
            raise AuthError(f"expected a sub claim of 1 to {MAX_SUBJECT_CHARS} printable characters")
        return str(subject)

    async def _key(self, header: dict[str, Any]) -> tuple[Any, str]:
        if header.get("alg") == "HS256" and self.secret:
            return self.secret, "HS256"
        if header.get("alg") == "RS256" and self.keys:
            return await self.keys.find(header.get("kid")), "RS256"
        raise jwt.InvalidAlgorithmError


class KeySet:
    """The RSA signing keys that a JWKS lists (RFC 7517), by their `kid`.

    `source` is an http(s) or file URL, or a path. The set is read when a key is first asked for, again when a
    key is not in it, and when it is old; a reading that fails keeps what was read before.
    """

    def __init__(self, source: str, *, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self._source = source
        self._max_age_seconds = max_age_seconds
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = -math.inf
        self._reading: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> jwt.PyJWK:
        """The key of this id. InvalidKeyError when the set has none, UnavailableError when there is no set."""
        patience = self._max_age_seconds if kid in self._keys else REFETCH_SECONDS
        if monotonic() - self._read_at > patience:
            self._read_at = monotonic()
            self._reading = asyncio.create_task(self._read(), name="key-set")
        if kid not in self._keys and self._reading:
            # Shared by all who wait: one that leaves must not end it for the others.
            await asyncio.shield(self._reading)
        if not self._keys:
            # Nobody can be known now, which is not the caller's fault.
            raise UnavailableError("the keys that tokens are checked with cannot be read (RAG_JWT_JWKS_URL)")
        if kid not in self._keys:
            raise jwt.InvalidKeyError
        return self._keys[kid]

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                text = await (_fetched if self._source.startswith("http") else _read_file)(self._source)
            found = jwt.PyJWKSet.from_dict(dict(json.loads(text))).keys
            keys: dict[str | None, jwt.PyJWK] = {key.key_id: key for key in found if _signs_rs256(key)}
            if not keys:
                raise ValueError("no RSA signing key of enough bits")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TypeError, jwt.PyJWTError) as error:
            reason = {"reason": f"{type(error).__name__}: {error}", "keys_kept": len(self._keys)}
            logger.warning("auth.keys_unreadable", extra={"fields": reason})
            return
        if len(keys) == 1:
            # RFC 7515, section 4.1.4: a kid is optional; with one key there is nothing to choose.
            keys[None] = next(iter(keys.values()))
        if keys.keys() != self._keys.keys():
            logger.info("auth.keys_changed", extra={"fields": {"kids": [kid for kid in keys if kid]}})
        self._keys = keys


async def _fetched(url: str) -> bytes:
    content = b""
    options: dict[str, Any] = {"headers": {"Accept-Encoding": "identity"}}
    async with (
        httpx.AsyncClient(timeout=FETCH_SECONDS) as client,
        client.stream("GET", url, **options) as answer,
    ):
        answer.raise_for_status()
        async for piece in answer.aiter_raw():
            content += piece
            if len(content) > MAX_KEY_SET_BYTES:
                raise ValueError(f"more than {MAX_KEY_SET_BYTES} bytes")
    return content


async def _read_file(source: str) -> bytes:
    path = unquote(urlsplit(source).path) if source.startswith("file:") else source

    def read() -> bytes:
        with Path(path).open("rb") as file:
            return file.read(MAX_KEY_SET_BYTES)

    return await asyncio.to_thread(read)


def _signs_rs256(key: jwt.PyJWK) -> bool:
    fits = key.key_type == "RSA" and key.algorithm_name == "RS256" and key.public_key_use in (None, "sig")
    return fits and key.key.key_size >= MIN_RSA_BITS


def _bearer_token(authorizations: Sequence[str]) -> str:
    given = authorizations[0] if authorizations else ""
    scheme, _, token = given.partition(" ")
    if len(authorizations) != 1 or scheme.lower() != "bearer" or not token.strip():
        raise AuthError("expected one header Authorization: Bearer <token>, came none, another or several")
    if len(given) > MAX_HEADER_CHARS:
        raise AuthError(f"expected an Authorization header of at most {MAX_HEADER_CHARS} characters")
    return token.strip()


#: Our words for the library's refusals; its own messages may quote parts of the token.
_REFUSALS: Final[Mapping[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "it has expired (exp)",
    jwt.ImmatureSignatureError: "it is not valid yet (nbf or iat)",
    jwt.InvalidAudienceError: "it is for another audience (aud)",
    jwt.InvalidIssuerError: "it comes from another issuer (iss)",
    jwt.InvalidSignatureError: "its signature does not fit",
    jwt.InvalidAlgorithmError: "its algorithm (alg) is none that is accepted here",
    jwt.InvalidKeyError: "its key (kid) is not in the key set",
    jwt.MissingRequiredClaimError: "it lacks a required claim (exp, sub, aud or iss)",
}
