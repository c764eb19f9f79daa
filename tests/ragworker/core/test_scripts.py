"""The Lua scripts: their form, their commands, the moves that they make."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files

import fakeredis
import pytest
import redis.asyncio
from core_parts import new_job, outcome

from ragworker.job import TRANSITIONS, ClaimedJob, JobState, OutcomeKind
from ragworker.queue import Queue
from ragworker.settings import QueueSettings

pytestmark = pytest.mark.anyio


def test_scripts_open_with_their_call_form() -> None:
    """Each script's first line is its call form: name, prefix, arguments, answer."""
    scripts = [file for file in (files("ragworker") / "lua").iterdir() if file.name.endswith(".lua")]
    assert len(scripts) >= 12
    for file in scripts:
        first, stem = file.read_text("utf-8").splitlines()[0], file.name.removesuffix(".lua")
        assert stem == "job" or re.match(rf"-- {stem} [PK][^|]*\|", first), file.name


#: Commands of Redis 6.2 (2021), and so of every later Redis and Valkey, that the product sends or its scripts call.
COMMANDS = (
    "APPEND", "BLPOP", "DEL", "ECHO", "EVALSHA", "EXISTS", "EXPIRE", "GET", "GETRANGE", "HDEL", "HGET", "HGETALL",
    "HINCRBY", "HINCRBYFLOAT", "HLEN", "HMGET", "HSET", "HSETNX", "INFO", "LLEN", "LPOP", "LPUSH", "LRANGE", "LREM",
    "PERSIST", "PEXPIRE", "PUBLISH", "RENAME", "RPUSH", "SET", "STRLEN", "TIME", "UNLINK", "WAIT", "ZADD", "ZCARD",
    "ZCOUNT", "ZPOPMAX", "ZRANGE", "ZRANGEBYSCORE", "ZREM", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE", "ZREVRANGE",
    "ZSCORE",
)  # fmt: skip


def test_scripts_call_only_commands_of_redis_six() -> None:
    """Redis 6.2 and Valkey have every command that a script calls, and no script calls one by a made-up name."""
    called: set[str] = set()
    for file in (files("ragworker") / "lua").iterdir():
        if file.name.endswith(".lua"):
            text = file.read_text("utf-8")
            named = re.findall(r"redis\.call\((?:at_front and '(\w+)' or )?'(\w+)'|in_slices\('(\w+)'", text)
            called |= {word for words in named for word in words if word}
            others = [call for call in re.findall(r"redis\.p?call\(([^'\n]{0,40})", text) if call]
            assert all(call.startswith(("at_front and", "command, key")) for call in others), (
                file.name,
                others,
            )
    assert called <= set(COMMANDS), called - set(COMMANDS)


async def test_six_two_has_every_command(client: redis.asyncio.Redis) -> None:
    """The list above is true on the servers at hand; fakeredis does not tell what it has."""
    if isinstance(client, fakeredis.FakeAsyncRedis):
        pytest.skip("fakeredis has no COMMAND INFO")
    known = await client.execute_command("COMMAND", "INFO", *COMMANDS)
    missing = (
        [name for name, facts in zip(COMMANDS, known, strict=True) if not facts]
        if isinstance(known, list)
        else []
    )
    assert missing == []


async def reach(queue: Queue, state: JobState) -> tuple[str, ClaimedJob | None]:
    """A new job in this state, and its claim if it was ever claimed."""
    job_id = (await queue.submit(new_job())).job_id
    job = None
    if state is JobState.CANCELLED:
        await queue.request_cancel(job_id, reason="no", by="u")
    elif state is not JobState.QUEUED:
        (job,) = await queue.claim("w1", limit=1)
        settled = {JobState.DONE: OutcomeKind.DONE, JobState.DEAD: OutcomeKind.DEAD}
        kind = settled.get(state, OutcomeKind.RETRY)
        if state is not JobState.RUNNING:
            await queue.settle("w1", [outcome(job, kind, delay_ms=60_000, code="EMBEDDING_TIMEOUT")])
    return job_id, job


async def settle_as(queue: Queue, job: ClaimedJob | None, kind: OutcomeKind) -> None:
    if job is not None:
        await queue.settle("w1", [outcome(job, kind, code="EMBEDDING_TIMEOUT")])


async def lose_the_worker(queue: Queue) -> None:
    await queue.leave("w1")
    await queue.take_over(limit=10)


async def claim_when_due(queue: Queue, client: redis.asyncio.Redis, job_id: str) -> None:
    await client.zadd(f"{queue.prefix}delayed", {job_id: 1}, xx=True)
    await queue.claim("w1", limit=10)


#: Whatever can be done to a job.
VERBS: dict[str, Callable[[Queue, redis.asyncio.Redis, str, ClaimedJob | None], Awaitable[object]]] = {
    **{
        f"settle {kind}": lambda queue, _, __, job, kind=kind: settle_as(queue, job, kind)
        for kind in OutcomeKind
    },
    "submit again": lambda queue, _, __, ___: queue.submit(new_job()),
    "claim": lambda queue, client, job_id, _: claim_when_due(queue, client, job_id),
    "lose the worker": lambda queue, _, __, ___: lose_the_worker(queue),
    "cancel": lambda queue, _, job_id, __: queue.request_cancel(job_id, reason="no", by="u"),
    "requeue": lambda queue, _, job_id, __: queue.requeue(job_id),
    "rolled back": lambda queue, _, job_id, __: queue.rolled_back(job_id, by="u"),
    "progress": lambda queue, _, job_id, __: queue.progress(job_id, "embed", 1, 2),
}


async def test_every_transition_of_the_table_happens_and_no_other(
    client: redis.asyncio.Redis,
) -> None:
    """Each verb done to a job in each state: the moves that are seen are exactly those of the table in job.py."""
    seen: dict[JobState, set[JobState]] = {state: set() for state in JobState}
    for before in JobState:
        for verb in VERBS.values():
            queue = Queue(client, name=f"test-{secrets.token_hex(6)}", settings=QueueSettings())
            job_id, job = await reach(queue, before)
            await verb(queue, client, job_id, job)
            view = await queue.get(job_id)
            assert view is not None
            if view.state is not before:
                seen[before].add(view.state)
    assert seen == TRANSITIONS
