"""Hold each user to RAG_USER_RATE_LIMIT requests in any 60 s, over all API processes of a queue.

The window lives in Redis (`lua/user_limit.lua`). When Redis does not answer in time, this process counts
by itself, with the same script on an in-process Redis, and asks again a few seconds later: while Redis is
away each API process allows the limit, nobody is locked out, and no request waits long.

Answers say where the caller stands by the fields `RateLimit-Policy` and `RateLimit` of
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (version 10): `q` requests in `w`
seconds, `r` of them left, and `t` seconds until the quota grows again.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import time
from importlib.resources import files
from typing import Any, Final

import redis.asyncio
from redis.exceptions import RedisError

from ragworker.api.problems import Problem
from ragworker.logs import get_logger

logger = get_logger(__name__)

SCRIPT: Final = (files("ragworker") / "lua" / "user_limit.lua").read_text("utf-8")

WINDOW_SECONDS: Final = 60

#: How long a request waits for the shared window, and how long it is left alone when it did not answer.
ANSWER_SECONDS: Final = 0.25
APART_SECONDS: Final = 5.0


class UserLimit:
    """The limit as one process sees it."""

    def __init__(self, client: redis.asyncio.Redis, *, prefix: str, requests: int) -> None:
        self._shared: Any = client.register_script(SCRIPT)
        self._own: Any = None
        self._prefix = prefix
        self._requests = requests
        self._apart_until = -math.inf

    async def admit(self, user_id: str) -> dict[str, str]:
        """Count one request; the headers of its answer. Problem 429 when it is one too many."""
        left, wait_ms = await self._asked(user_id)
        seconds = math.ceil(wait_ms / 1000)
        headers = {
            "RateLimit-Policy": f'"user";q={self._requests};w={WINDOW_SECONDS}',
            "RateLimit": f'"user";r={max(0, left)};t={seconds}',
        }
        if left < 0:
            detail = f"expected at most {self._requests} requests in {WINDOW_SECONDS} s of one user; wait {seconds} s"
            raise Problem("rate-limited", detail, headers={**headers, "Retry-After": str(seconds)})
        return headers

    async def _asked(self, user_id: str) -> tuple[int, int]:
        key = f"{self._prefix}limit:user:{hashlib.sha256(user_id.encode()).hexdigest()[:32]}"
        args = (WINDOW_SECONDS * 1000, self._requests, secrets.token_hex(8))
        if time.monotonic() >= self._apart_until:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    left, wait_ms = await self._shared(keys=[key], args=args)
                return left, wait_ms
            except (RedisError, OSError, TimeoutError) as error:
                self._apart_until = time.monotonic() + APART_SECONDS
                logger.warning("limit.apart", extra={"fields": {"reason": type(error).__name__}})
        if self._own is None:
            from fakeredis import FakeAsyncRedis  # noqa: PLC0415  most processes never need it

            self._own = FakeAsyncRedis().register_script(SCRIPT)
        left, wait_ms = await self._own(keys=[key], args=args)
        return left, wait_ms
