"""RAG_USER_RATE_LIMIT: exact over all processes, told in headers, and kept in each process while Redis is away."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
from api_process import SECRET, Api, RedisServer, redis_binary, running_api
from test_access import bearer

from ragworker.api import user_limit as module
from ragworker.api.problems import Problem
from ragworker.api.user_limit import UserLimit
from ragworker.connection import connect

GUARDED = {"RAG_JWT_SECRET": SECRET, "RAG_JWT_AUDIENCE": "rag", "RAG_JWT_ISSUER": "tests"}


def left(api: Api, user_id: str) -> int:
    """What the answer to one request says of the quota; -1 when it was refused."""
    answer = api.client.get("/rag/dlq", headers=bearer(user_id))
    policy, quota = answer.headers["ratelimit-policy"], answer.headers["ratelimit"]
    assert re.fullmatch(r'"user";q=\d+;w=60', policy)
    found = re.fullmatch(r'"user";r=(\d+);t=(\d+)', quota)
    assert found
    assert 0 < int(found[2]) <= 60
    if answer.status_code == 429:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:ragworker:problem:rate-limited"
        assert (answer.headers["retry-after"], found[1]) == (found[2], "0")
        return -1
    assert answer.status_code == 200
    return int(found[1])


def test_two_processes_share_one_window_per_user(redis_server: RedisServer, tmp_path: Path) -> None:
    """Six requests over two API processes and five are let in; another user and the open routes are not held."""
    environ = {**GUARDED, "RAG_USER_RATE_LIMIT": "5", "RAG_QUEUE": f"limit-{time.monotonic_ns()}"}
    with (
        running_api(tmp_path / "1", redis_url=redis_server.url, **environ) as one,
        running_api(tmp_path / "2", redis_url=redis_server.url, **environ) as two,
    ):
        assert [left(api, "alice") for api in (one, two, one, two, one)] == [4, 3, 2, 1, 0]
        assert [left(one, "alice"), left(two, "alice")] == [-1, -1]
        assert left(two, "bob") == 4
        refused = one.client.post("/rag/jobs", content=b"x" * 200_000, headers=bearer("alice"))
        assert refused.status_code == 429, "refused before the body is looked at"
        assert one.client.get("/rag/dlq").status_code == 401, "who is unknown is refused as such"
        assert all(
            one.client.get(path).status_code == 200 for path in ("/healthz", "/metrics") for _ in range(9)
        )
        assert "ratelimit" not in one.client.get("/healthz").headers


def test_without_a_limit_no_header_speaks_of_one(guarded_api: Api) -> None:
    """Off is off: no RateLimit fields, no request to Redis."""
    answer = guarded_api.client.get("/rag/dlq", headers=bearer("alice"))
    assert not [name for name in answer.headers if name.startswith("ratelimit")]


def test_no_window_ever_holds_more(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pressure from two clients no sliding window holds more than the limit, and each is used."""
    monkeypatch.setattr(module, "WINDOW_SECONDS", 1)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0)
    limit, admitted = 10, []

    async def press(limiter: UserLimit, until: float) -> None:
        while time.monotonic() < until:
            before = time.monotonic()
            with suppress(Problem):
                await limiter.admit("alice")
                admitted.append((before, time.monotonic()))
            await asyncio.sleep(0.01)

    async def story() -> None:
        clients = [connect(redis_server.url) for _ in range(2)]
        prefix, until = f"{{rag:{time.monotonic_ns()}}}:", time.monotonic() + 2.5
        limiters = [UserLimit(client, prefix=prefix, requests=limit) for client in clients]
        await asyncio.gather(*(press(limiter, until) for limiter in limiters for _ in range(3)))
        for client in clients:
            await client.aclose()

    asyncio.run(story())
    admitted.sort()
    # The script ran between the two moments: more than `limit` began and ended within less than a window is a breach.
    for first, eleventh in zip(admitted, admitted[limit:], strict=False):
        assert eleventh[1] - first[0] > 0.995, "11 requests within one window"
    assert len(admitted) >= 2 * limit


def test_a_refused_request_is_not_counted(redis_server: RedisServer) -> None:
    """Who keeps asking is not locked out for longer: refusals leave no trace in the window."""

    async def story() -> int:
        client = connect(redis_server.url)
        prefix = f"{{rag:{time.monotonic_ns()}}}:"
        limiter = UserLimit(client, prefix=prefix, requests=2)
        for _ in range(5):
            with suppress(Problem):
                await limiter.admit("alice")
        (key,) = await client.keys(f"{prefix}limit:user:*")
        counted = int(await client.zcard(key))
        await client.aclose()
        return counted

    assert asyncio.run(story()) == 2


def test_each_process_counts_by_itself_while_redis_is_away(tmp_path: Path) -> None:
    """A frozen Redis costs one bounded wait; the limit then holds in the process, and the log says so once."""
    redis = RedisServer(redis_binary(), tmp_path / "redis")
    redis.folder.mkdir()
    redis.start()
    environ = {**GUARDED, "RAG_USER_RATE_LIMIT": "4"}
    try:
        with running_api(tmp_path / "api", redis_url=redis.url, flag="false", **environ) as api:
            assert [left(api, "alice") for _ in range(2)] == [3, 2]
            redis.freeze()
            started = time.monotonic()
            answers = [api.submit(f"text {number}", headers=bearer("alice")) for number in range(6)]
            waited = time.monotonic() - started
            redis.thaw()
            assert [answer.status_code for answer in answers] == [202, 202, 202, 202, 429, 429]
            assert waited < 2, "only the first waits for Redis"
            (line,) = api.lines(message="limit.apart")
            assert line["level"] == "WARNING"
    finally:
        redis.stop()
