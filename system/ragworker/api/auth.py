"""Learn who calls from a verified JWT (spec G4). Knows no HTTP beyond the text of one header.

Only HS256 is accepted, whatever the token's own header asks for: `alg: none` and algorithm confusion end here
(RFC 8725, section 3.1). Time claims are checked without leeway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import jwt

#: The user where no secret is set: authentication is off and everybody is the same user.
ANONYMOUS: Final = "anonymous"

ALGORITHM: Final = "HS256"

#: A header beyond this is no token of ours; the bound keeps decoding cheap.
MAX_HEADER_CHARS: Final = 8_192

#: A subject goes into logs, Redis and SQL: printable, and short enough for an index.
MAX_SUBJECT_CHARS: Final = 200


class AuthError(Exception):
    """The caller is not known. The message names the check that failed and never repeats the token."""


class AuthSettings(Protocol):
    """What authentication needs to know of the settings."""

    @property
    def jwt_secret(self) -> str: ...
    @property
    def jwt_audience(self) -> str: ...
    @property
    def jwt_issuer(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Turns an Authorization header into a user id; without a secret everybody is `anonymous`."""

    secret: str = ""
    audience: str = ""
    issuer: str = ""

    @property
    def required(self) -> bool:
        """Whether a token is asked for at all."""
        return bool(self.secret)

    def user_of(self, authorization: str | None) -> str:
        """The verified `sub`; AuthError when the header is missing, malformed, forged or out of date."""
        if not self.required:
            return ANONYMOUS
        token = _bearer_token(authorization)
        try:
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=[ALGORITHM],
                audience=self.audience or None,
                issuer=self.issuer or None,
                options={
                    "require": ["exp", "sub"] + ["aud"] * bool(self.audience) + ["iss"] * bool(self.issuer),
                    "verify_aud": bool(self.audience),
                    "verify_iss": bool(self.issuer),
                },
            )
        except jwt.PyJWTError as error:
            raise AuthError(f"expected a valid {ALGORITHM} token, it was refused: {_why(error)}") from None
        subject = claims["sub"]
        if (
            not isinstance(subject, str)
            or not 1 <= len(subject) <= MAX_SUBJECT_CHARS
            or not subject.isprintable()
        ):
            raise AuthError(f"expected a sub claim of 1 to {MAX_SUBJECT_CHARS} printable characters")
        return subject


def _bearer_token(authorization: str | None) -> str:
    if not authorization:
        raise AuthError("expected the header Authorization: Bearer <token>, came none")
    if len(authorization) > MAX_HEADER_CHARS:
        raise AuthError(f"expected an Authorization header of at most {MAX_HEADER_CHARS} characters")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthError("expected the header Authorization: Bearer <token>, came another scheme or no token")
    return token.strip()


#: Our words for the library's refusals; its own messages may quote parts of the token.
_REFUSALS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "it has expired (exp)"),
    (jwt.ImmatureSignatureError, "it is not valid yet (nbf or iat)"),
    (jwt.InvalidAudienceError, "it is for another audience (aud)"),
    (jwt.InvalidIssuerError, "it comes from another issuer (iss)"),
    (jwt.InvalidSignatureError, "its signature does not fit"),
    (jwt.InvalidAlgorithmError, f"its algorithm is not {ALGORITHM}"),
    (jwt.MissingRequiredClaimError, "it lacks a required claim (exp, sub, aud or iss)"),
)


def _why(error: Exception) -> str:
    return next((words for kind, words in _REFUSALS if isinstance(error, kind)), "it cannot be read")
