"""The queue in Redis. Of the core only this module and the limiter in `limits.py` talk to it.

Every change of a job's state is one Lua script (`lua/`), so a crash of anybody at any moment leaves a job
either before or after the step, never between. What holds at all times:

    a job that is not terminal is in exactly one place: a ready list, `delayed`, or one worker's `claimed`
    a fence is never given twice, and each is higher than all before
    stats and the duration histogram rise in the same step as the state that they count

Any call may raise redis.RedisError or OSError when Redis is away, and each is safe to call again. A reply
that was lost is the hard case, met call by call: `submit` and `settle` recognise their own earlier effect; a
lost `claim` shows in the answer of `renew` as a claim that the worker does not know; the rest is repeatable
by nature.

A round trip costs more than what it asks for, so submits that come while another is on its way travel together, and
claims and outcomes travel in batches. Keys start with `{rag:<queue>}:`, so one queue is in one slot of a cluster.
`job:cancel:<id>` is the one key outside (spec D1 gives its name); it is written and read by plain commands only.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

import redis.asyncio

from ragworker import rows
from ragworker.errors import ErrorCode
from ragworker.intake import PIECE_BYTES, Intake
from ragworker.job import (
    JOB_DURATION_BUCKETS_MS,
    ClaimedJob,
    Event,
    JobState,
    JobView,
    NewJob,
    Outcome,
    Submitted,
)
from ragworker.settings import QueueSettings

#: A blocking pop must end well before the socket's own deadline.
LONGEST_WAIT_SECONDS: Final = 2.0

#: A cancel request lives as long as anybody may look for it; jobs notice it within a second.
CANCEL_SECONDS: Final = 86_400

_BORDERS: Final = ",".join(map(str, JOB_DURATION_BUCKETS_MS))
_POISON: Final = "its workers died or lost their lease too often (RAG_MAX_DELIVERIES); see the history"


class UnknownJobError(KeyError):
    """There is no job of this id (any more)."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A job taken from `worker`, whose lease had run out; `dead` when it was one delivery too many."""

    job_id: str
    dead: bool
    worker: str


@dataclass(frozen=True, slots=True)
class QueueGauges:
    """The queue at one moment, read in one atomic step. `unfinished`: waiting, or claimed by anybody, dead or alive.

    `stats` holds counters since the queue's birth: submitted, committed, dead, cancelled, retried,
    taken_over, finished:<done|dead|cancelled>, failed:<error code>, rate_limited (answers 429),
    embedding_requests:<http status|timeout|unreachable>, embedding_tokens, embedding_cost_usd; histograms such as
    `hist:rag_job_duration_ms:*` (jobs done and dead, since their entry into the queue), each as `<border>` and
    `+Inf` (observations in that bucket alone, NOT cumulative; the borders are in `job.py`), `sum` and `count`.
    """

    queue_length: int = 0
    active_jobs: int = 0
    unfinished: int = 0
    dlq_entries: int = 0
    workers: int = 0
    paused: bool = False
    token_used_pct: float = 0.0
    stats: Mapping[str, float] = field(default_factory=dict)


@cache
def script_text(name: str) -> str:
    """The source of one script: the shared opening `job.lua`, then its own file."""
    folder = files("ragworker") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("job", name))


class Queue:
    """One named queue. Cheap to make; holds the client, the loaded scripts, and when the next delay ends."""

    def __init__(
        self, client: redis.asyncio.Redis, *, name: str, settings: QueueSettings, mode: str = "durable"
    ) -> None:
        self._redis = client
        self.name = name
        self.mode = mode
        self.prefix = f"{{rag:{name}}}:"
        self._settings = settings
        self._scripts: dict[str, Any] = {}
        self._next_due_seconds = math.inf
        self._intake = Intake(client, self._run, queue=name, prefix=self.prefix, settings=settings)

    # Producers

    async def submit(self, new: NewJob) -> Submitted:
        """Accept a job, or find the one that does the same work. Accepted: it survives anybody's death."""
        return await self._intake.submit(new)

    async def submit_many(self, jobs: Iterable[NewJob]) -> list[Submitted]:
        """Accept many jobs in few round trips; the answers in their order. Each job is accepted by itself."""
        return await self._intake.submit_many(jobs)

    async def request_cancel(self, job_id: str, *, reason: str, by: str) -> JobState:
        """Ask for the end of a job (spec D1); its state afterwards. UnknownJobError when there is none.

        `cancelled`: it was waiting and has ended. `running`, or a waiting state when a former owner might
        still be alive: a worker will end it within a second. `done`, `dead`: too late, nothing was written.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(self._job(job_id), "state")
            pipe.time()
            state, (seconds, micros) = await pipe.execute()
        if state is None:
            raise UnknownJobError(job_id)
        if JobState(rows.text(state)).terminal:
            return JobState(rows.text(state))
        reason = " ".join(reason[: rows.TEXT_LIMIT].split()) or "no reason given"
        request: Any = {"reason": reason, "at_ms": seconds * 1000 + micros // 1000, "by": by}
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(rows.cancel_key(job_id))
            pipe.hset(rows.cancel_key(job_id), mapping=request)
            pipe.expire(rows.cancel_key(job_id), CANCEL_SECONDS)
            await pipe.execute()
        after = rows.text(await self._run("cancel", job_id, reason, *self._records))
        if not after:
            raise UnknownJobError(job_id)
        return JobState(after)

    async def rolled_back(self, job_id: str, *, by: str) -> bool:
        """Note that the effect of a job was undone in SQL (spec D3). False when the job is not done."""
        return bool(await self._run("rolled_back", job_id, by.replace("\n", " ")))

    # Workers

    async def claim(self, worker_id: str, *, limit: int) -> list[ClaimedJob]:
        """Take up to `limit` jobs: those whose delay ended join first, then high before normal."""
        next_due_ms, claims = await self._run("claim", worker_id, limit, self._lease_ms)
        self._next_due_seconds = next_due_ms / 1000 if next_due_ms >= 0 else math.inf
        return [rows.claimed_job(row) for row in claims]

    async def document(self, job: ClaimedJob, *, start: int = 0) -> AsyncIterator[bytes]:
        """The document from `start` on in pieces of at most 1 MiB; ends early, or has none, when its bytes are gone."""
        if job.payload is not None:
            yield job.payload[start:]
            return
        for place in range(start, job.bytes, PIECE_BYTES):
            key = f"{self.prefix}payload:{job.job_id}"
            piece: Any = await self._redis.getrange(key, place, place + PIECE_BYTES - 1)
            if not piece:
                return
            yield piece

    async def cancelled_among(self, jobs: Sequence[ClaimedJob]) -> dict[int, str]:
        """Fence -> reason of those deliveries whose cancellation is requested; one round trip for all."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hgetall(rows.cancel_key(job.job_id))
            requests = await pipe.execute(raise_on_error=False)
        for place, request in enumerate(requests):
            if isinstance(request, Exception):
                if "WRONGTYPE" not in str(request):
                    raise request
                requests[
                    place
                ] = {}  # somebody's own key of that name: no request, and no reason to miss the others
        reasons = (rows.cancel_reason(job, request) for job, request in zip(jobs, requests, strict=True))
        return {job.fence: reason for job, reason in zip(jobs, reasons, strict=True) if reason is not None}

    async def close_requests(self, jobs: Sequence[ClaimedJob]) -> None:
        """Make the cancel requests of ended jobs belong to the life that ended, and expire.

        Requests from `request_cancel` do already; one written by hand would cancel the same work for ever.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hsetnx(rows.cancel_key(job.job_id), "at_ms", str(job.queued_ms))
                pipe.expire(rows.cancel_key(job.job_id), CANCEL_SECONDS)
            await pipe.execute()

    async def holds(self, worker_id: str, job: ClaimedJob) -> bool:
        """Whether this delivery is still the worker's own."""
        fence = await self._redis.hget(f"{self.prefix}claimed:{worker_id}", job.job_id)
        return fence is not None and int(fence) == job.fence

    async def renew(
        self,
        worker_id: str,
        facts: Mapping[str, str],
        *,
        stats: Mapping[str, float] | None = None,
        flush: int = 0,
    ) -> dict[int, str]:
        """Prolong the lease, leave heartbeat facts, add `stats`; what the worker holds: fence -> job id.

        `flush` numbers the batches of stats of one worker, from 1 up: the same number is added only once.
        """
        told = [part for pair in facts.items() for part in pair]
        added = [part for name, amount in (stats or {}).items() for part in (name, repr(amount))]
        held = await self._run("renew", worker_id, self._lease_ms, flush, len(facts), *told, *added)
        return {int(fence): rows.text(job_id) for job_id, fence in zip(held[::2], held[1::2], strict=True)}

    async def take_over(self, *, limit: int) -> list[TakenOver]:
        """Requeue (or dead-letter) up to `limit` jobs of workers whose lease ran out."""
        bounds = (limit, self._settings.max_deliveries, *self._records, _BORDERS)
        moved = await self._run("take_over", *bounds, ErrorCode.WORKER_CRASHED.value, _POISON)
        triples = zip(moved[::3], moved[1::3], moved[2::3], strict=True)
        return [
            TakenOver(rows.text(job_id), bool(dead), rows.text(worker)) for job_id, dead, worker in triples
        ]

    async def settle(self, worker_id: str, outcomes: Sequence[Outcome]) -> list[bool]:
        """Report outcomes in one step. False: the delivery is not the job's newest, nothing was changed."""
        if not outcomes:
            return []
        flat = [part for outcome in outcomes for part in rows.outcome_row(outcome)]
        answer = await self._run("settle", worker_id, *self._records, _BORDERS, *flat)
        return [bool(taken) for taken in answer]

    async def rest(self, worker_id: str) -> None:
        """Be handed no more jobs: what a worker that stops says first."""
        await self._redis.zrem(f"{self.prefix}idle", worker_id)

    async def leave(self, worker_id: str) -> None:
        """Say goodbye: the lease ends now, jobs still held are taken over at once."""
        await self._run("leave", worker_id)

    async def progress(self, job_id: str, stage: str, done: int, total: int) -> None:
        """Tell listeners how far a running job is."""
        await self._run("progress", job_id, stage, done, total)

    async def wait_for_work(self, worker_id: str, seconds: float) -> list[ClaimedJob]:
        """After a claim that gave nothing: the first job that becomes ready, claimed for this worker meanwhile.

        Empty when a delay has run out or `seconds` have passed (at most 2): claim again. More may be in the inbox.
        """
        wait = min(seconds, self._next_due_seconds, LONGEST_WAIT_SECONDS)
        # Redis takes 0 for "for ever".
        found: Any = await self._redis.blpop([f"{self.prefix}inbox:{worker_id}"], timeout=max(0.001, wait))
        return [rows.claimed_job(found[1])] if found else []

    # Readers and operators

    async def get(self, job_id: str) -> JobView | None:
        """The job, or None when there is none (any more)."""
        fields = await self._fields(job_id)
        return rows.job_view(job_id, fields, mode=self.mode) if fields else None

    async def events(self, job_id: str, *, after: str = "0") -> list[Event]:
        """What happened to a job after the event id `after`, oldest first; of its progress the newest only."""
        fields = await self._fields(job_id)
        return rows.events(job_id, fields, after=after) if fields else []

    async def subscribe(self) -> AsyncIterator[str]:
        """Ids of jobs that have news, as they come. Ends with redis.RedisError when Redis goes away."""
        async with aclosing(self._redis.pubsub(ignore_subscribe_messages=True)) as channel:
            await channel.subscribe(f"{self.prefix}events")
            while True:
                message = await channel.get_message(timeout=1.0)
                for job_id in rows.text(message["data"]).split("\n") if message else ():
                    yield job_id

    async def dead_letters(self, *, offset: int = 0, limit: int = 50) -> list[JobView]:
        """Dead jobs, newest first."""
        ids: Any = await self._redis.zrevrange(f"{self.prefix}dlq", offset, offset + limit - 1)
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(self._job(rows.text(job_id)), rows.FIELDS)
            found = zip(map(rows.text, ids), map(rows.fields_of, await pipe.execute()), strict=True)
        return [rows.job_view(job_id, fields, mode=self.mode) for job_id, fields in found if fields]

    async def requeue(self, job_id: str) -> bool:
        """Give a dead job a fresh series of attempts. False when it is not dead."""
        state: Any = await self._redis.hget(self._job(job_id), "state")
        if state is None or rows.text(state) != JobState.DEAD:
            return False
        await self._redis.delete(rows.cancel_key(job_id))
        return bool(await self._run("requeue", job_id))

    async def purge(self, job_id: str) -> bool:
        """Forget a dead job and its document for good. False when it is not dead."""
        return bool(await self._run("purge", job_id))

    async def pause(self) -> None:
        """Give out no more claims; submits are accepted, and jobs that run go on."""
        await self._redis.set(f"{self.prefix}paused", "1")

    async def resume(self) -> None:
        """Give out claims again: within a second, as idle workers ask that often."""
        await self._redis.delete(f"{self.prefix}paused")

    async def gauges(self) -> QueueGauges:
        """Everything that is measured about the queue, as of one moment."""
        waiting, active, unfinished, dead, workers, paused, highest, flat = await self._run("gauges")
        pairs = zip(flat[::2], flat[1::2], strict=True)
        stats = {rows.text(name): float(value) for name, value in pairs}
        known = (waiting, active, unfinished, dead, workers)
        return QueueGauges(*known, bool(paused), float(highest), stats)

    async def ping(self) -> None:
        """Return when Redis answers."""
        await self._redis.echo("readiness")

    # What they stand on

    @property
    def _lease_ms(self) -> int:
        return round(self._settings.lease_seconds * 1000)

    @property
    def _records(self) -> tuple[int, int]:
        return self._settings.history_seconds, self._settings.history_count

    def _job(self, job_id: str) -> str:
        return f"{self.prefix}job:{job_id}"

    async def _fields(self, job_id: str) -> dict[str, str]:
        values: Any = await self._redis.hmget(self._job(job_id), rows.FIELDS)
        return rows.fields_of(values)

    async def _run(self, name: str, *args: str | int | float | bytes, client: Any = None) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._redis.register_script(script_text(name))
        return await script(keys=[self.prefix], args=args, client=client)
