"""What an operator asks of the queue from a terminal: jobs, dead letters, figures, the retry table.

Each verb takes a `Desk` and returns an `Answer`: data for machines and a last line for people. Parsing and printing are
left to `cli.py`; `tables` makes text of data.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import redis.asyncio

from ragworker.api.bodies import job_body
from ragworker.api.submissions import content_key, media_type_of
from ragworker.connection import connect
from ragworker.errors import POLICIES, ErrorCode, classify
from ragworker.extract import MEDIA_TYPES
from ragworker.job import JobState, JobView, NewJob, Priority
from ragworker.logs import utc_timestamp
from ragworker.queue import Queue
from ragworker.retry import retry_table
from ragworker.settings import Settings, SettingsError

#: What a verb found: JSON-able data, and the summary in words.
Answer = tuple[Any, str]

#: Records looked through by `jobs list`; the queue keeps no index of all its jobs.
MAX_SCANNED_KEYS: Final = 10_000

#: How often `queue drain` looks, and says so.
DRAIN_SECONDS: Final = 0.5


class RefusedError(Exception):
    """The verb cannot be done on this job or queue; the message says why and what to do."""


class UnreachableError(Exception):
    """Redis or SQL did not answer; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a verb works with: settings, the queue, its connection, and the arguments by name."""

    settings: Settings
    queue: Queue
    client: redis.asyncio.Redis
    given: Mapping[str, Any]

    @property
    def job_id(self) -> str:
        """The job that the verb is about."""
        return str(self.given["JOB"])

    async def job(self, *states: JobState) -> JobView:
        """That job, in one of these states if any are named. RefusedError when there is none."""
        view = await self.queue.get(self.job_id)
        if view is None:
            known = "check the id and RAG_QUEUE, see `ragworker jobs list`"
            raise RefusedError(f"no job {self.job_id!r} in this queue; {known}")
        if states and view.state not in states:
            raise RefusedError(
                f"{self.job_id}: expected one that is {' or '.join(states)}, it is {view.state}"
            )
        return view


def ask(settings: Settings, verb: str, given: Mapping[str, Any]) -> Answer:
    """Do one verb. RefusedError, UnreachableError, or SettingsError for an unreadable file."""
    try:
        return asyncio.run(_asked(settings, VERBS[verb], given))
    except Exception as error:
        away = {ErrorCode.QUEUE_UNAVAILABLE: "REDIS_URL", ErrorCode.STORE_UNAVAILABLE: "DATABASE_URL"}
        name = away.get(classify(error).code)
        if name is None:
            raise
        wish = f"{name}: expected a server that answers, got {type(error).__name__}"
        raise UnreachableError(f"{wish}. Start it, or set {name}.") from None


async def _asked(
    settings: Settings, verb: Callable[[Desk], Awaitable[Answer]], given: Mapping[str, Any]
) -> Answer:
    client = connect(settings.redis_url)
    try:
        queue = Queue(client, name=settings.queue_name, settings=settings.queue)
        return await verb(Desk(settings, queue, client, given))
    finally:
        await client.aclose()


async def _retry_table(desk: Desk) -> Answer:
    settings = desk.settings
    delays = retry_table(max_retries=settings.max_retries, base_seconds=settings.retry_base_seconds)
    policies = {code.value: policy.value for code, policy in POLICIES.items()}
    summary = f"{len(delays)} retries, then the dead-letter queue; {len(policies)} codes"
    return {"delays_seconds": delays, "policies": policies}, summary


async def _jobs_list(desk: Desk) -> Answer:
    prefix = f"{desk.queue.prefix}job:"
    found: list[JobView] = []
    async for key in desk.client.scan_iter(match=f"{prefix}*", count=1000):
        view = await desk.queue.get(key.decode().removeprefix(prefix))
        found += [view] if view is not None else []
        if len(found) >= MAX_SCANNED_KEYS:
            break
    views = sorted(found, key=lambda view: view.created_ms, reverse=True)[: desk.given["limit"]]
    return list(map(_brief, views)), f"{len(views)} of {len(found)} jobs shown, newest first"


async def _jobs_show(desk: Desk) -> Answer:
    view = await desk.job()
    return job_body(view), f"{view.job_id}: {view.state}"


async def _jobs_cancel(desk: Desk) -> Answer:
    await desk.job(JobState.QUEUED, JobState.RUNNING, JobState.RETRYING)
    state = await desk.queue.request_cancel(desk.job_id, reason=desk.given["reason"], by="operator")
    return {"job_id": desk.job_id, "state": state}, f"{desk.job_id}: cancellation asked for, now {state}"


async def _jobs_rollback(desk: Desk) -> Answer:
    await desk.job(JobState.DONE, JobState.DEAD, JobState.CANCELLED)
    result = await asyncio.to_thread(_undo, desk)
    if result in ("too_late", "nothing"):
        window = f"{desk.settings.rollback_seconds:g} s (RAG_ROLLBACK_SECONDS)"
        raise RefusedError(f"{desk.job_id}: expected a commit of the last {window}, got: {result}")
    await desk.queue.rolled_back(desk.job_id, by="operator")
    return {"job_id": desk.job_id, "rolled_back": True}, f"{desk.job_id}: its effect is undone"


def _undo(desk: Desk) -> str:
    # SQLAlchemy is loaded by this verb alone.
    store = import_module("ragworker.store").Store(desk.settings.database_url)
    store.create_schema()
    window = desk.settings.rollback_seconds
    return str(store.rollback(desk.job_id, by="operator", window_seconds=window))


async def _jobs_submit(desk: Desk) -> Answer:
    paths = [path for given in desk.given["FILE"] for path in _files(given)]
    if desk.given["key"] and len(paths) > 1:
        raise SettingsError(f"--key: expected one FILE, got {len(paths)}. The same key is the same job.")
    answers = await desk.queue.submit_many(_new_job(desk, path) for path in paths)
    jobs = [{**asdict(answer), "name": path.name} for path, answer in zip(paths, answers, strict=True)]
    known = sum(answer.duplicate for answer in answers)
    return jobs, f"{len(jobs) - known} queued, {known} known already"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [file for file in sorted(path.rglob("*")) if file.suffix.lower() in MEDIA_TYPES and file.is_file()]


def _new_job(desk: Desk, path: Path) -> NewJob:
    # What was submitted before a file that cannot be read is found again when the command is repeated.
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"FILE: expected a readable file, got {str(path)!r} ({error.strerror})."
        ) from None
    if len(content) > desk.settings.max_upload_bytes:
        limit = f"{desk.settings.max_upload_bytes} bytes (RAG_MAX_UPLOAD_BYTES)"
        raise SettingsError(f"FILE: expected at most {limit}, {str(path)!r} has {len(content)}.")
    user_id, media_type = desk.given["user"], desk.given["media_type"] or media_type_of(path.name)
    key = desk.given["key"] or content_key(user_id, path.name, media_type, content)
    return NewJob(key, path.name, media_type, content, Priority(desk.given["priority"]), user_id)


async def _dlq_list(desk: Desk) -> Answer:
    views = await desk.queue.dead_letters(limit=desk.given["limit"])
    count = (await desk.queue.gauges()).dlq_entries
    summary = f"{len(views)} of {count} dead letters shown, newest first"
    return {"entries": list(map(_brief, views)), "count": count}, summary


async def _dlq_show(desk: Desk) -> Answer:
    view = await desk.job(JobState.DEAD)
    return job_body(view), f"{view.job_id}: {view.state}"


async def _dlq_requeue(desk: Desk) -> Answer:
    await desk.job(JobState.DEAD)
    await desk.queue.requeue(desk.job_id)
    return {"job_id": desk.job_id, "state": "queued"}, f"{desk.job_id}: queued again"


async def _dlq_purge(desk: Desk) -> Answer:
    await desk.job(JobState.DEAD)
    await desk.queue.purge(desk.job_id)
    return {"job_id": desk.job_id, "purged": True}, f"{desk.job_id}: forgotten"


async def _queue_stats(desk: Desk) -> Answer:
    figures = asdict(await desk.queue.gauges())
    summary = "{queue_length} waiting, {active_jobs} running, {unfinished} unfinished, {dlq_entries} dead"
    state = ", paused" if figures["paused"] else ""
    return {
        "queue": desk.queue.name,
        **figures,
    }, f"queue {desk.queue.name}: {summary.format(**figures)}{state}"


async def _queue_pause(desk: Desk) -> Answer:
    await desk.queue.pause()
    return {"queue": desk.queue.name, "paused": True}, f"queue {desk.queue.name}: paused"


async def _queue_resume(desk: Desk) -> Answer:
    await desk.queue.resume()
    return {"queue": desk.queue.name, "paused": False}, f"queue {desk.queue.name}: goes on"


async def _queue_drain(desk: Desk) -> Answer:
    name, seconds, told = f"queue {desk.queue.name}", desk.given["seconds"], ""
    deadline = time.monotonic() + seconds
    while (now := await desk.queue.gauges()).unfinished:
        line = f"{name}: {now.unfinished} unfinished, {now.active_jobs} running, {now.workers} workers"
        if now.paused and not now.active_jobs:
            raise RefusedError(f"{line}, and it is paused; `ragworker queue resume` lets them go on")
        if time.monotonic() >= deadline:
            raise RefusedError(f"{line} after {seconds} s; ask again, or with more --seconds")
        if line != told:
            print(told := line, file=sys.stderr, flush=True)
        await asyncio.sleep(DRAIN_SECONDS)
    return {"queue": desk.queue.name, "unfinished": 0}, f"{name}: nothing is unfinished"


VERBS: Final[Mapping[str, Callable[[Desk], Awaitable[Answer]]]] = {
    "retry-table": _retry_table,
    "jobs list": _jobs_list,
    "jobs show": _jobs_show,
    "jobs cancel": _jobs_cancel,
    "jobs rollback": _jobs_rollback,
    "jobs submit": _jobs_submit,
    "dlq list": _dlq_list,
    "dlq show": _dlq_show,
    "dlq requeue": _dlq_requeue,
    "dlq purge": _dlq_purge,
    "queue stats": _queue_stats,
    "queue pause": _queue_pause,
    "queue resume": _queue_resume,
    "queue drain": _queue_drain,
}


def _brief(view: JobView) -> dict[str, Any]:
    error = view.error.code if view.error else None
    created = utc_timestamp(view.created_ms / 1000)
    known = {"job_id": view.job_id, "state": view.state, "attempt": view.attempt}
    return {**known, "name": view.name, "created": created, "error": error}


def tables(data: Any) -> list[str]:
    """Lines for people: a list as a table, a value as its names and values, with what is inside it below."""
    if isinstance(data, list):
        heads = list(dict.fromkeys(name for row in data for name in row))
        return _columns([heads, *([row.get(name) for name in heads] for row in data)]) if data else []
    inner = {name: value for name, value in data.items() if isinstance(value, list | dict) and value}
    lines = _columns([[name, value] for name, value in data.items() if name not in inner])
    for name, value in inner.items():
        lines += ["", f"{name}:", *(f"  {line}" for line in tables(value))]
    return lines


def _columns(rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [
        ["" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
