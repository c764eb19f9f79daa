"""Ask an OpenAI-compatible API for embeddings: the only module that talks to it.

One call is one request: no retries here (a failed attempt is the job's business, with its own table), no waiting
for limits (`limits.py`). Whatever comes back is checked before it is believed: count, order, dimensions, finite
numbers. Source of the format: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from ragworker.errors import ErrorCode, JobFailedError, classify
from ragworker.job import EMBEDDING_LATENCY_BUCKETS_MS
from ragworker.logs import current_context
from ragworker.settings import EmbeddingSettings
from ragworker.stats import Stats

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


@dataclass(frozen=True, slots=True)
class Vector:
    """One embedding: `dimensions` little-endian float32 numbers."""

    dimensions: int
    data: bytes


class EmbeddingClient:
    """A connection to the API. Parses large answers in `threads`, to keep the event loop free."""

    def __init__(self, settings: EmbeddingSettings, *, stats: Stats, threads: Executor) -> None:
        self._settings = settings
        self._stats = stats
        self._threads = threads
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

    async def embed(self, texts: Sequence[str], *, tokens: int = 0) -> list[Vector]:
        """One request; the vectors in the order of `texts`. JobFailedError with an EMBEDDING_* code."""
        started = time.monotonic()
        status = "unreachable"
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                answer, body = await self._post(texts)
            status = str(answer.status_code)
        except (TimeoutError, httpx.TimeoutException) as error:
            status = "timeout"
            raise JobFailedError(
                ErrorCode.EMBEDDING_TIMEOUT,
                f"the embedding API did not answer within {self._settings.timeout_seconds:g} s",
            ) from error
        except JobFailedError:
            status = "200"
            raise
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            failure = classify(error)
            raise JobFailedError(ErrorCode.EMBEDDING_UNREACHABLE, failure.message) from error
        except asyncio.CancelledError:
            status = "abandoned"
            raise
        finally:
            if status != "abandoned":
                self._count(status, seconds=time.monotonic() - started, tokens=tokens)
        if answer.status_code != httpx.codes.OK:
            raise failure_of(answer.status_code, answer.headers)
        if len(body) <= PARSE_INLINE_BYTES:
            return parse_vectors(body, expected=len(texts))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: parse_vectors(body, expected=len(texts)))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _count(self, status: str, *, seconds: float, tokens: int) -> None:
        self._stats.observe("embedding_api_latency_ms", seconds * 1000, borders=EMBEDDING_LATENCY_BUCKETS_MS)
        self._stats.add({f"embedding_requests:{status}": 1})
        if status == "200":
            self._stats.add({"embedding_tokens": tokens})
        elif status == "429":
            self._stats.add({"rate_limited": 1})

    async def _post(self, texts: Sequence[str]) -> tuple[httpx.Response, bytes]:
        ids = current_context()
        headers = {header: ids[name] for name, header in _ID_HEADERS.items() if ids.get(name)}
        question = {"model": self._settings.model, "input": list(texts)}
        limit = ANSWER_BYTES + ANSWER_BYTES_PER_INPUT * len(texts)
        async with self._http.stream("POST", self._url, json=question, headers=headers) as answer:
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > limit:
                    raise _garbage(f"expected at most {limit} bytes")
            return answer, bytes(body)


def failure_of(status: int, headers: Mapping[str, str]) -> JobFailedError:
    """The failure that an HTTP status other than 200 stands for."""
    wait = retry_after_seconds(headers)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        code = ErrorCode.RATE_LIMITED
    elif status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        code = ErrorCode.EMBEDDING_AUTH_FAILED
    elif status == httpx.codes.SERVICE_UNAVAILABLE and wait is not None:
        code = ErrorCode.EMBEDDING_OVERLOADED
    elif status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT:
        code = ErrorCode.EMBEDDING_SERVER_ERROR
    else:
        code = ErrorCode.EMBEDDING_REJECTED
    return JobFailedError(code, f"the embedding API answered {status}", retry_after_seconds=wait)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What Retry-After says, in seconds from now: a number or a date (RFC 9110, 10.2.3); None when absent or wrong.

    A date is read against the answer's own Date header where there is one: clocks of two machines differ.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        then, now = _http_date(text), _http_date(headers.get("date", "")) or datetime.now(UTC)
        return None if then is None else max(0.0, (then - now).total_seconds())
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def parse_vectors(body: bytes, *, expected: int) -> list[Vector]:
    """The vectors of an answer, in the order of the inputs. EMBEDDING_BAD_RESPONSE when it is not one."""
    try:
        items = json.loads(body)["data"]
        by_index = {int(item.get("index", place)): item["embedding"] for place, item in enumerate(items)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _garbage("expected a JSON object with data[].embedding") from None
    if len(items) != expected or set(by_index) != set(range(expected)):
        raise _garbage(f"expected {expected} embeddings, got: {len(items)}")
    vectors = [_vector(by_index[index]) for index in range(expected)]
    if len({vector.dimensions for vector in vectors}) > 1:
        raise _garbage("expected vectors of one length")
    return vectors


def _vector(numbers: Any) -> Vector:
    if not isinstance(numbers, list) or not numbers:
        raise _garbage("expected a list of numbers as embedding")
    if not all(type(number) in (float, int) for number in numbers):
        raise _garbage("expected numbers in an embedding")
    try:
        packed = array("f", numbers)
    except OverflowError:
        raise _garbage("expected numbers of float32 size") from None
    # JSON parsers let NaN and Infinity through, and a large double becomes infinite as a float32.
    if not all(map(math.isfinite, packed)):
        raise _garbage("expected finite numbers in an embedding")
    if sys.byteorder == "big":
        packed.byteswap()
    return Vector(dimensions=len(packed), data=packed.tobytes())


def _garbage(expected: str) -> JobFailedError:
    return JobFailedError(
        ErrorCode.EMBEDDING_BAD_RESPONSE, f"the embedding API answered something else: {expected}"
    )


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
