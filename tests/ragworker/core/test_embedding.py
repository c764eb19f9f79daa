"""What the embedding API answers is checked before it is believed, and every failure has its code."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from core_parts import EmbeddingServer, wait_until

from ragworker.embedding import EmbeddingClient, parse_vectors, retry_after_seconds
from ragworker.errors import ErrorCode, JobFailedError
from ragworker.settings import EmbeddingSettings
from ragworker.stats import Stats

pytestmark = pytest.mark.anyio


class Unlimited:
    """A limiter that lets everything leave at once and keeps what it was told; `turns` may hold other moments."""

    def __init__(self) -> None:
        self.turns: list[float] = []
        self.acquired: list[int] = []
        self.refusals: list[float | None] = []

    async def acquire(self, tokens: int) -> float:
        self.acquired.append(tokens)
        return self.turns.pop(0) if self.turns else math.inf

    async def slow_down(self, *, sent: float, retry_after_seconds: float | None) -> None:
        assert sent <= time.monotonic()
        self.refusals.append(retry_after_seconds)


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    """An embedding API."""
    made = EmbeddingServer()
    yield made
    made.close()


@pytest.fixture
def limiter() -> Unlimited:
    """The client's limiter."""
    return Unlimited()


@pytest.fixture
def stats() -> Stats:
    """What the client counts."""
    return Stats()


@pytest.fixture
async def embedder(
    server: EmbeddingServer, limiter: Unlimited, stats: Stats
) -> AsyncIterator[EmbeddingClient]:
    """A client of it, with a short deadline."""
    with ThreadPoolExecutor(1) as threads:
        settings = EmbeddingSettings(
            url=server.url, api_key="k", timeout_seconds=0.5, price_per_million_tokens=2.0
        )
        made = EmbeddingClient(settings, stats=stats, threads=threads, limiter=limiter)
        yield made
        await made.close()


async def test_vectors_come_in_the_order_of_the_inputs(
    server: EmbeddingServer, embedder: EmbeddingClient
) -> None:
    """The answer's own index decides, not its order."""
    server.answer = lambda inputs: (
        200,
        {},
        {"data": [{"index": i, "embedding": [float(i), 0.5]} for i in reversed(range(len(inputs)))]},
    )
    vectors = await embedder.embed(["a", "b", "c"], tokens=3)
    assert [struct.unpack("<2f", vector.data) for vector in vectors] == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert {vector.dimensions for vector in vectors} == {2}


@pytest.mark.parametrize(
    ("status", "wait", "code"),
    [
        (429, "7", ErrorCode.RATE_LIMITED),
        (429, None, ErrorCode.RATE_LIMITED),
        (401, None, ErrorCode.EMBEDDING_AUTH_FAILED),
        (400, None, ErrorCode.EMBEDDING_REJECTED),
        (302, None, ErrorCode.EMBEDDING_REJECTED),
        (500, None, ErrorCode.EMBEDDING_SERVER_ERROR),
        (503, None, ErrorCode.EMBEDDING_SERVER_ERROR),
        (503, "2", ErrorCode.EMBEDDING_OVERLOADED),
    ],
)
async def test_refusals_have_their_code(
    server: EmbeddingServer, embedder: EmbeddingClient, status: int, wait: str | None, code: ErrorCode
) -> None:
    """Each HTTP status is one code, with the wait that it asks for; the answer's body is not quoted."""
    headers = {"Location": "http://127.0.0.1:1/", **({"Retry-After": wait} if wait else {})}
    server.answer = lambda _: (status, headers, {"error": "quoted input"})
    with pytest.raises(JobFailedError) as caught:
        await embedder.embed(["a"], tokens=1)
    assert caught.value.code is code
    assert caught.value.retry_after_seconds == (float(wait) if wait else None)
    assert "quoted" not in caught.value.message


async def test_slow_answer_is_a_timeout_and_no_server_is_unreachable(
    server: EmbeddingServer, embedder: EmbeddingClient
) -> None:
    """Both are told apart, and counted."""
    server.delay_seconds = 1.0
    with pytest.raises(JobFailedError) as caught:
        await embedder.embed(["a"], tokens=1)
    assert caught.value.code is ErrorCode.EMBEDDING_TIMEOUT
    stats = Stats()
    with ThreadPoolExecutor(1) as threads:
        settings = EmbeddingSettings(url="http://127.0.0.1:1/v1")
        nowhere = EmbeddingClient(settings, stats=stats, threads=threads, limiter=Unlimited())
        with pytest.raises(JobFailedError) as caught:
            await nowhere.embed(["a"], tokens=1)
        await nowhere.close()
    assert caught.value.code is ErrorCode.EMBEDDING_UNREACHABLE
    assert stats.take()["embedding_requests:unreachable"] == 1


async def test_request_whose_turn_is_over_does_not_leave(
    server: EmbeddingServer, embedder: EmbeddingClient, limiter: Unlimited, stats: Stats
) -> None:
    """Whoever was held up, on a new connection or an old one, waits for another turn; nothing of it is counted."""
    for _ in range(2):
        limiter.turns = [time.monotonic() - 0.001, time.monotonic() - 0.001, math.inf]
        await embedder.embed(["a"], tokens=7)
    assert limiter.acquired == [7] * 6
    assert len(server.requests) == 2
    assert stats.take()["hist:embedding_api_latency_ms:count"] == 2


@pytest.mark.parametrize(
    ("status", "wait", "told"),
    [
        (429, None, [None]),
        (429, "7", [7.0]),
        (503, "7", [7.0]),
        (503, None, []),
        (500, "7", []),
        (400, None, []),
    ],
)
async def test_only_too_fast_slows_down(
    server: EmbeddingServer,
    embedder: EmbeddingClient,
    limiter: Unlimited,
    status: int,
    wait: str | None,
    told: list[float | None],
) -> None:
    """429, and 503 that says when to come back, are told to the limiter, with the wait."""
    server.answer = lambda _: (status, {"Retry-After": wait} if wait else {}, {})
    with pytest.raises(JobFailedError):
        await embedder.embed(["a"], tokens=1)
    assert limiter.refusals == told


async def test_ledger_has_each_request_once(
    server: EmbeddingServer, embedder: EmbeddingClient, stats: Stats
) -> None:
    """Tokens and cost of what was answered by 200, good or garbage; refusals and silence cost nothing (spec B4)."""
    good = server.answer
    answers = [
        (429, {}, {}),
        (500, {}, b"x" * 10_000_000),
        (200, {}, b"garbage"),
        (200, {}, b" " * 1_000_000),
    ]
    for answer in answers:
        server.answer = lambda _, answer=answer: answer
        with pytest.raises(JobFailedError):
            await embedder.embed(["a"], tokens=100)
    server.answer = good
    await embedder.embed(["a"], tokens=100)
    server.delay_seconds = 0.8
    with pytest.raises(JobFailedError):
        await embedder.embed(["a"], tokens=100)
    counted = stats.take()
    assert len(server.requests) == 6
    assert {name: value for name, value in counted.items() if not name.startswith("hist:")} == {
        "embedding_requests:429": 1,
        "embedding_requests:500": 1,
        "embedding_requests:200": 3,
        "embedding_requests:timeout": 1,
        "rate_limited": 1,
        "embedding_tokens": 300,
        "embedding_cost_usd": pytest.approx(0.0006),
    }
    assert counted["hist:embedding_api_latency_ms:count"] == 6


async def test_abandoned_request_is_not_counted(
    server: EmbeddingServer, embedder: EmbeddingClient, stats: Stats
) -> None:
    """A cancelled job's request has no answer; what it cost is not known."""
    server.delay_seconds = 0.3
    asking = asyncio.create_task(embedder.embed(["a"], tokens=1))

    async def arrived() -> bool:
        return server.in_flight > 0

    await wait_until(arrived, what="the request to arrive")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert stats.take() == {}


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"[]",
        b'{"data": 3}',
        b'{"data": []}',
        b'{"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]}',
        b'{"data": [{"index": 1, "embedding": [1.0]}]}',
        b'{"data": [{"embedding": []}]}',
        b'{"data": [{"embedding": ["1"]}]}',
        b'{"data": [{"embedding": [true]}]}',
        b'{"data": [{"embedding": [NaN]}]}',
        b'{"data": [{"embedding": [1e300]}]}',
        b'{"data": [{"embedding": [1%s]}]}' % (b"0" * 400),
        b"[" * 100_000,
    ],
)
def test_garbage_is_refused(body: bytes) -> None:
    """Wrong shape, count, order, type or size is EMBEDDING_BAD_RESPONSE."""
    with pytest.raises(JobFailedError) as caught:
        parse_vectors(body, expected=1)
    assert caught.value.code is ErrorCode.EMBEDDING_BAD_RESPONSE


def test_retry_after_is_a_number_or_a_date() -> None:
    """Dates are read against the answer's own clock; nonsense is nothing."""
    date = {"date": "Mon, 23 Nov 2026 10:00:00 GMT"}
    assert retry_after_seconds({"retry-after": "3.5"}) == 3.5
    assert retry_after_seconds({"retry-after": "Mon, 23 Nov 2026 10:01:30 GMT", **date}) == 90.0
    assert retry_after_seconds({"retry-after": "Mon, 23 Nov 2026 09:00:00 GMT", **date}) == 0.0
    for nonsense in ("", "soon", "-3", "nan", "inf"):
        assert retry_after_seconds({"retry-after": nonsense}) is None


def test_stats_count_each_observation_in_one_bucket() -> None:
    """Buckets are not cumulative; a value on a border belongs below it; beyond all is +Inf."""
    stats = Stats()
    for value in (1, 5, 6, 99, math.nextafter(10, 11)):
        stats.observe("x", value, borders=(5, 10))
    figures = stats.take()
    assert {name: figures[f"hist:x:{name}"] for name in ("5", "10", "+Inf", "count")} == {
        "5": 2,
        "10": 1,
        "+Inf": 2,
        "count": 5,
    }
    assert stats.take() == {}
