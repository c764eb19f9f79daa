"""What an operator asks of the queue from a terminal: jobs, dead letters, figures, the retry table.

Each verb takes the queue and its arguments and returns a `Result`; parsing and printing are left to `cli.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from redis.exceptions import RedisError

from ragworker.api.bodies import job_body
from ragworker.api.submissions import content_key, media_type_of
from ragworker.connection import connect
from ragworker.errors import POLICIES
from ragworker.job import JobState, JobView, NewJob, Priority
from ragworker.logs import utc_timestamp
from ragworker.queue import Queue, UnknownJobError
from ragworker.retry import retry_table
from ragworker.settings import Settings, SettingsError

#: An operator's question is answered by then, or Redis is away.
ANSWER_SECONDS: Final = 10.0

#: Records looked through by `jobs list`; the queue keeps no index of finished jobs.
MAX_SCANNED_KEYS: Final = 10_000


class RefusedError(Exception):
    """The verb cannot be done on this job; the message says why and what to do."""


class UnreachableError(Exception):
    """Redis did not answer; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a verb found: `data` for machines, `lines` for people."""

    data: Any
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a verb works with: the queue, its connection, and the arguments by name."""

    queue: Queue
    client: redis.asyncio.Redis
    given: Mapping[str, Any]

    @property
    def job_id(self) -> str:
        """The job that the verb is about."""
        return str(self.given["job_id"])


def ask(settings: Settings, verb: str, given: Mapping[str, Any]) -> Result:
    """Do one verb of `VERBS`. RefusedError, UnreachableError, or SettingsError for an unreadable file."""
    try:
        return asyncio.run(_asked(settings, VERBS[verb], given))
    except (RedisError, OSError, TimeoutError) as error:
        raise UnreachableError(
            f"REDIS_URL: expected a Redis that answers, got {type(error).__name__}. Start it, or set REDIS_URL."
        ) from None


def show_retry_table(settings: Settings) -> Result:
    """The delays before retries and the policy of each error code; asks nobody."""
    delays = retry_table(max_retries=settings.max_retries, base_seconds=settings.retry_base_seconds)
    policies = {code.value: policy.value for code, policy in POLICIES.items()}
    lines = [f"retry {number}: after {delay:g} s" for number, delay in enumerate(delays, start=1)]
    lines += ["", *_table(("code", "policy"), policies.items()), ""]
    lines.append(f"{len(delays)} retries, then the dead-letter queue; {len(policies)} codes")
    return Result({"delays_seconds": delays, "policies": policies}, lines)


async def _asked(
    settings: Settings, verb: Callable[[Desk], Awaitable[Result]], given: Mapping[str, Any]
) -> Result:
    client = connect(settings.redis_url)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            queue = Queue(client, name=settings.queue_name, settings=settings.queue)
            return await verb(Desk(queue, client, given))
    finally:
        await client.aclose()


async def _jobs_list(desk: Desk) -> Result:
    prefix = f"{desk.queue.prefix}job:"
    job_ids: list[str] = []
    async for key in desk.client.scan_iter(match=f"{prefix}*", count=1000):
        job_ids.append((key.decode() if isinstance(key, bytes) else key).removeprefix(prefix))
        if len(job_ids) >= MAX_SCANNED_KEYS:
            break
    found = [view for job_id in job_ids if (view := await desk.queue.get(job_id)) is not None]
    views = sorted(found, key=lambda view: view.created_ms, reverse=True)[: desk.given["limit"]]
    summary = f"{len(views)} of {len(found)} jobs shown, newest first"
    return Result([_brief(view) for view in views], [*_job_table(views), summary])


async def _jobs_show(desk: Desk) -> Result:
    view = await desk.queue.get(desk.job_id)
    if view is None:
        raise _unknown(desk.job_id)
    return Result(job_body(view), _job_lines(view))


async def _jobs_cancel(desk: Desk) -> Result:
    view = await desk.queue.get(desk.job_id)
    if view is None:
        raise _unknown(desk.job_id)
    if view.state.terminal:
        raise RefusedError(f"{desk.job_id}: expected a job that has not ended, it is {view.state}")
    try:
        state = await desk.queue.request_cancel(desk.job_id, reason=desk.given["reason"], by="operator")
    except UnknownJobError:
        raise _unknown(desk.job_id) from None
    return Result(
        {"job_id": desk.job_id, "state": state}, [f"{desk.job_id}: cancellation asked for, now {state}"]
    )


async def _jobs_submit(desk: Desk) -> Result:
    path: Path = desk.given["file"]
    content = await asyncio.to_thread(_document, path)
    media_type = desk.given["media_type"] or media_type_of(path.name)
    user_id = desk.given["user"]
    key = desk.given["key"] or content_key(user_id, path.name, media_type, content)
    submitted = await desk.queue.submit(
        NewJob(
            key=key,
            name=path.name,
            media_type=media_type,
            payload=content,
            priority=Priority(desk.given["priority"]),
            user_id=user_id,
        )
    )
    known = ", known already" if submitted.duplicate else ""
    return Result(
        {"job_id": submitted.job_id, "state": submitted.state, "duplicate": submitted.duplicate},
        [f"{submitted.job_id}: {submitted.state}{known}"],
    )


def _document(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"FILE: expected a readable file, got {str(path)!r} ({error.strerror})."
        ) from None


async def _dlq_list(desk: Desk) -> Result:
    views = await desk.queue.dead_letters(limit=desk.given["limit"])
    count = (await desk.queue.gauges()).dlq_entries
    summary = f"{len(views)} of {count} dead letters shown, newest first"
    return Result(
        {"entries": [_brief(view) for view in views], "count": count}, [*_job_table(views), summary]
    )


async def _dlq_show(desk: Desk) -> Result:
    view = await desk.queue.get(desk.job_id)
    if view is None or view.state is not JobState.DEAD:
        raise _not_dead(desk.job_id)
    return Result(job_body(view), _job_lines(view))


async def _dlq_requeue(desk: Desk) -> Result:
    if not await desk.queue.requeue(desk.job_id):
        raise _not_dead(desk.job_id)
    return Result({"job_id": desk.job_id, "state": "queued"}, [f"{desk.job_id}: queued again"])


async def _dlq_purge(desk: Desk) -> Result:
    if not await desk.queue.purge(desk.job_id):
        raise _not_dead(desk.job_id)
    return Result({"job_id": desk.job_id, "purged": True}, [f"{desk.job_id}: forgotten"])


async def _queue_stats(desk: Desk) -> Result:
    gauges = await desk.queue.gauges()
    figures: dict[str, float] = {
        "queue_length": gauges.queue_length,
        "active_jobs": gauges.active_jobs,
        "dlq_entries": gauges.dlq_entries,
        "workers": gauges.workers,
        "token_used_pct": gauges.token_used_pct,
    }
    stats = dict(sorted(gauges.stats.items()))
    lines = _table(
        ("figure", "value"), [(name, f"{value:g}") for name, value in {**figures, **stats}.items()]
    )
    waiting = f"{gauges.queue_length} waiting, {gauges.active_jobs} running, {gauges.dlq_entries} dead"
    return Result(
        {"queue": desk.queue.name, **figures, "stats": stats}, [*lines, f"queue {desk.queue.name}: {waiting}"]
    )


VERBS: Final[Mapping[str, Callable[[Desk], Awaitable[Result]]]] = {
    "jobs list": _jobs_list,
    "jobs show": _jobs_show,
    "jobs cancel": _jobs_cancel,
    "jobs submit": _jobs_submit,
    "dlq list": _dlq_list,
    "dlq show": _dlq_show,
    "dlq requeue": _dlq_requeue,
    "dlq purge": _dlq_purge,
    "queue stats": _queue_stats,
}


def _brief(view: JobView) -> dict[str, Any]:
    return {
        "job_id": view.job_id,
        "state": view.state.value,
        "attempt": view.attempt,
        "name": view.name,
        "created": utc_timestamp(view.created_ms / 1000),
        "error": view.error.code if view.error else None,
    }


def _job_lines(view: JobView) -> list[str]:
    body = {name: value for name, value in job_body(view).items() if name != "history"}
    rows = [(name, "" if value is None else str(value)) for name, value in body.items()]
    lines = _table(("field", "value"), rows)
    for entry in view.history:
        delay = None if entry.delay_ms is None else f"delay {entry.delay_ms} ms"
        facts = ", ".join(
            fact for fact in (f"attempt {entry.attempt}", entry.code, entry.worker, delay) if fact
        )
        lines.append(f"  {utc_timestamp(entry.at_ms / 1000)}  {entry.event}  {facts}")
    return [*lines, f"{view.job_id}: {view.state}"]


def _job_table(views: Sequence[JobView]) -> list[str]:
    rows = [["" if value is None else str(value) for value in _brief(view).values()] for view in views]
    return _table(("job", "state", "attempt", "name", "created", "error"), rows) if rows else []


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _unknown(job_id: str) -> RefusedError:
    return RefusedError(
        f"no job {job_id!r} in this queue; check the id and RAG_QUEUE, see `ragworker jobs list`"
    )


def _not_dead(job_id: str) -> RefusedError:
    return RefusedError(f"no dead letter {job_id!r} in this queue; see `ragworker dlq list`")
