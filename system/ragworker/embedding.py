"""Ask an OpenAI-compatible API for embeddings: the only module that talks to it.

One call is one request that leaves in its turn (`limits.py`): no retries here, a failed attempt is the job's business,
with its own table. A refusal that says "too fast" slows all processes down. Whatever comes back is checked before it
is believed: count, order, dimensions, finite numbers. Source of the format:
https://platform.openai.com/docs/api-reference/embeddings

The ledger: each request is counted once by its status, in the attempt that sent it; the tokens of the batch and what
they are expected to cost when it was answered by 200, because refusals and failures are not billed. Whether a request
without an answer is billed only the provider knows; it is not counted.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Final

import httpx

from ragworker.errors import ErrorCode, JobFailedError, classify
from ragworker.job import EMBEDDING_LATENCY_BUCKETS_MS
from ragworker.limits import RedisLimiter
from ragworker.logs import current_context
from ragworker.settings import EmbeddingSettings
from ragworker.stats import Stats
from ragworker.tracing import span, traceparent

#: An answer may be this large, plus so much per input: 4,096 numbers of 25 characters fit.
ANSWER_BYTES: Final = 1 << 16
ANSWER_BYTES_PER_INPUT: Final = 1 << 17

#: Smaller answers are parsed faster than a thread is asked to.
PARSE_INLINE_BYTES: Final = 1 << 15

#: The ids of the job travel on, so that the other side's logs can be joined with ours (spec G3).
_ID_HEADERS: Final = {
    "request_id": "X-Request-ID",
    "trace_id": "X-Trace-ID",
    "correlation_id": "X-Correlation-ID",
}

_BY_STATUS: Final = {
    401: ErrorCode.EMBEDDING_AUTH_FAILED,
    403: ErrorCode.EMBEDDING_AUTH_FAILED,
    408: ErrorCode.EMBEDDING_SERVER_ERROR,
    429: ErrorCode.RATE_LIMITED,
}

#: The last event before bytes of a request are written; https://www.encode.io/httpcore/extensions/#trace
_LEAVES: Final = "http11.send_request_headers.started"


@dataclass(frozen=True, slots=True)
class Vector:
    """One embedding: `dimensions` little-endian float32 numbers."""

    dimensions: int
    data: bytes


class _TooLateError(Exception):
    """The turn was over before the request left, which it then did not."""


class EmbeddingClient:
    """A connection to the API. Parses large answers in `threads`, to keep the event loop free."""

    def __init__(
        self, settings: EmbeddingSettings, *, stats: Stats, threads: Executor, limiter: RedisLimiter
    ) -> None:
        self._settings = settings
        self._stats = stats
        self._threads = threads
        self._limiter = limiter
        self._url = f"{settings.url}/embeddings"
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._http = httpx.AsyncClient(
            headers=headers,
            # A deadline for the whole request is set around it; these are for its single steps.
            timeout=settings.timeout_seconds,
            limits=httpx.Limits(max_connections=settings.concurrency * 2),
            # TLS costs 20 ms and megabytes at start; an http:// URL needs none.
            verify=settings.url.startswith("https://"),
            trust_env=False,
            follow_redirects=False,
        )

    async def embed(self, texts: Sequence[str], *, tokens: int) -> list[Vector]:
        """One request of `tokens` tokens, in its turn; the vectors in the order of `texts`.

        JobFailedError: EMBEDDING_*, RATE_LIMITED, or QUEUE_UNAVAILABLE when nobody can say whose turn it is.
        """
        body = None
        while body is None:
            leave_by = await self._limiter.acquire(tokens)
            about = {"rag.chunks": len(texts), "rag.tokens": tokens}
            with span("embed", "client", about), suppress(_TooLateError):
                body = await self._request(texts, tokens=tokens, leave_by=leave_by)
        if len(body) <= PARSE_INLINE_BYTES:
            return parse_vectors(body, expected=len(texts))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, parse_vectors, body, len(texts))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _request(self, texts: Sequence[str], *, tokens: int, leave_by: float) -> bytes:
        started, status = time.monotonic(), ""
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                async with self._sent(texts, leave_by) as answer:
                    status = str(answer.status_code)
                    if answer.status_code == httpx.codes.OK:
                        return await _body(answer, limit=ANSWER_BYTES + ANSWER_BYTES_PER_INPUT * len(texts))
            failure = failure_of(answer.status_code, answer.headers)
        except (TimeoutError, httpx.TimeoutException) as error:
            status = "timeout"
            message = f"the embedding API did not answer within {self._settings.timeout_seconds:g} s"
            raise JobFailedError(ErrorCode.EMBEDDING_TIMEOUT, message) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            status = "unreachable"
            raise JobFailedError(ErrorCode.EMBEDDING_UNREACHABLE, classify(error).message) from error
        finally:
            if status:  # none: it never left, or was abandoned by a cancelled job
                self._count(status, seconds=time.monotonic() - started, tokens=tokens)
        if failure.code in (ErrorCode.RATE_LIMITED, ErrorCode.EMBEDDING_OVERLOADED):
            await self._limiter.slow_down(sent=started, retry_after_seconds=failure.retry_after_seconds)
        raise failure

    def _sent(self, texts: Sequence[str], leave_by: float) -> AbstractAsyncContextManager[httpx.Response]:
        async def before(event: str, _info: object) -> None:
            if event == _LEAVES and time.monotonic() > leave_by:
                raise _TooLateError

        ids = current_context()
        headers = {header: ids.get(name) for name, header in _ID_HEADERS.items()}
        headers["traceparent"] = traceparent()
        return self._http.stream(
            "POST",
            self._url,
            json={"model": self._settings.model, "input": list(texts)},
            headers={name: value for name, value in headers.items() if value},
            extensions={"trace": before},
        )

    def _count(self, status: str, *, seconds: float, tokens: int) -> None:
        self._stats.observe("embedding_api_latency_ms", seconds * 1000, borders=EMBEDDING_LATENCY_BUCKETS_MS)
        counted: dict[str, float] = {f"embedding_requests:{status}": 1}
        if status == "200":
            cost = tokens * self._settings.price_per_million_tokens / 1e6
            counted |= {"embedding_tokens": tokens, "embedding_cost_usd": cost}
        elif status == "429":
            counted["rate_limited"] = 1
        self._stats.add(counted)


def failure_of(status: int, headers: Mapping[str, str]) -> JobFailedError:
    """The failure that an HTTP status other than 200 stands for."""
    wait = retry_after_seconds(headers)
    failed = status >= httpx.codes.INTERNAL_SERVER_ERROR
    code = ErrorCode.EMBEDDING_SERVER_ERROR if failed else ErrorCode.EMBEDDING_REJECTED
    if status == httpx.codes.SERVICE_UNAVAILABLE and wait is not None:
        code = ErrorCode.EMBEDDING_OVERLOADED
    code = _BY_STATUS.get(status, code)
    return JobFailedError(code, f"the embedding API answered {status}", retry_after_seconds=wait)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What Retry-After says, in seconds from now: a number or a date (RFC 9110, 10.2.3); None when absent or wrong.

    A date is read against the answer's own Date header where there is one: clocks of two machines differ.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        then, now = _http_date(text), _http_date(headers.get("date", "")) or time.time()
        return None if then is None else max(0.0, then - now)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def parse_vectors(body: bytes, expected: int) -> list[Vector]:
    """The vectors of an answer, in the order of the inputs. EMBEDDING_BAD_RESPONSE when it is not one."""
    try:
        items = json.loads(body)["data"]
        by_index = {int(item.get("index", place)): item["embedding"] for place, item in enumerate(items)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _garbage("a JSON object with data[].embedding") from None
    if len(items) != expected or set(by_index) != set(range(expected)):
        raise _garbage(f"{expected} embeddings, got: {len(items)}")
    vectors = [_vector(by_index[index]) for index in range(expected)]
    if len({vector.dimensions for vector in vectors}) > 1:
        raise _garbage("vectors of one length")
    return vectors


def _vector(numbers: Any) -> Vector:
    # JSON parsers let NaN and Infinity through; a double that float32 cannot hold is an OverflowError.
    with suppress(TypeError, OverflowError):
        if numbers and {*map(type, numbers)} <= {float, int} and math.isfinite(sum(numbers)):
            return Vector(len(numbers), struct.pack(f"<{len(numbers)}f", *numbers))
    raise _garbage("a list of finite float32 numbers as embedding")


async def _body(answer: httpx.Response, *, limit: int) -> bytes:
    body = bytearray()
    async for piece in answer.aiter_bytes():
        body += piece
        if len(body) > limit:
            raise _garbage(f"at most {limit} bytes")
    return bytes(body)


def _garbage(expected: str) -> JobFailedError:
    message = f"the embedding API answered something else: expected {expected}"
    return JobFailedError(ErrorCode.EMBEDDING_BAD_RESPONSE, message)


def _http_date(text: str) -> float | None:
    parts = parsedate_tz(text)
    try:
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError):
        return None
