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

Keys start with `{rag:<queue>}:`, so one queue is in one slot of a cluster. `job:cancel:<id>` is the one key
outside (spec D1 gives its name); it is written and read by plain commands only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ragworker import rows
from ragworker.errors import ErrorCode
from ragworker.job import (
    HISTORY_LIMIT,
    JOB_DURATION_BUCKETS_MS,
    ClaimedJob,
    Event,
    JobState,
    JobView,
    NewJob,
    Outcome,
    Submitted,
    job_id_for,
)
from ragworker.settings import QueueSettings

#: A healthy Redis answers in under a millisecond; after this it counts as away.
ANSWER_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 2.0

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
    """The queue at one moment, read in one atomic step.

    `stats` holds counters since the queue's birth: submitted, committed, dead, cancelled, retried,
    taken_over, finished:<done|dead|cancelled>, failed:<error code>, rate_limited (answers 429),
    embedding_requests:<http status|timeout|unreachable>, embedding_tokens; and two histograms,
    `hist:rag_job_duration_ms:*` (jobs done and dead, since their entry into the queue) and
    `hist:embedding_api_latency_ms:*`, each as `<border>` and `+Inf` (observations in that bucket alone, NOT
    cumulative; the borders are in `job.py`), `sum` and `count`.
    """

    queue_length: int = 0
    active_jobs: int = 0
    dlq_entries: int = 0
    workers: int = 0
    token_used_pct: float = 0.0
    stats: Mapping[str, float] = field(default_factory=dict)


def connect(url: str) -> redis.asyncio.Redis:
    """A client with deadlines. One second try at once: a restarted Redis leaves dead connections."""
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        url,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )
    return client


@cache
def script_text(name: str) -> str:
    """The source of one script: the shared opening `job.lua`, then its own file."""
    folder = files("ragworker") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("job", name))


class Queue:
    """One named queue. Cheap to make; holds the client, the loaded scripts, and when the next delay ends."""

    def __init__(self, client: redis.asyncio.Redis, *, name: str, settings: QueueSettings) -> None:
        self._redis = client
        self.name = name
        self.prefix = f"{{rag:{name}}}:"
        self._settings = settings
        self._scripts: dict[str, Any] = {}
        self._next_due_seconds = math.inf

    # Producers

    async def submit(self, new: NewJob) -> Submitted:
        """Accept a job, or find the one that does the same work. Accepted: it survives anybody's death."""
        job_id = job_id_for(queue=self.name, user_id=new.user_id, key=new.key)
        described: dict[str, str | int] = {
            "name": new.name,
            "media_type": new.media_type,
            "bytes": len(new.payload),
            "sha256": hashlib.sha256(new.payload).hexdigest(),
            "user_id": new.user_id,
            "request_id": new.request_id,
            "trace_id": new.trace_id,
            "correlation_id": new.correlation_id,
        }
        flat = [part for pair in described.items() for part in pair]
        idem = hashlib.sha256(f"{new.user_id}\0{new.key}".encode()).hexdigest()
        answer = await self._run("submit", idem, job_id, new.priority, HISTORY_LIMIT, new.payload, *flat)
        return Submitted(rows.text(answer[0]), JobState(rows.text(answer[1])), bool(answer[2]))

    async def request_cancel(self, job_id: str, *, reason: str, by: str) -> JobState:
        """Ask for the end of a job (spec D1); its state afterwards. UnknownJobError when there is none.

        `cancelled`: it was waiting and has ended. `running`, or a waiting state when a former owner might
        still be alive: a worker will end it within a second. `done`, `dead`: too late, nothing was written.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(self._job(job_id), "state")
            pipe.time()
            state, clock = await pipe.execute()
        if state is None:
            raise UnknownJobError(job_id)
        if JobState(rows.text(state)).terminal:
            return JobState(rows.text(state))
        request: Any = {
            "reason": reason[: rows.TEXT_LIMIT],
            "at_ms": rows.clock_ms(clock),
            "by": by,
        }
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(rows.cancel_key(job_id), mapping=request)
            pipe.expire(rows.cancel_key(job_id), CANCEL_SECONDS)
            await pipe.execute()
        after = rows.text(await self._run("cancel", job_id, self._settings.history_seconds, HISTORY_LIMIT))
        if not after:
            raise UnknownJobError(job_id)
        return JobState(after)

    async def cancel_requested(self, job_id: str) -> str | None:
        """The reason of a pending cancel request, or None."""
        request = rows.decoded(await self._redis.hgetall(rows.cancel_key(job_id)))
        return (request.get("reason") or "no reason given") if request else None

    # Workers

    async def claim(self, worker_id: str, *, limit: int) -> list[ClaimedJob]:
        """Take up to `limit` jobs: those whose delay ended join first, then high before normal."""
        next_due_ms, claims = await self._run("claim", worker_id, limit, self._lease_ms, HISTORY_LIMIT)
        self._next_due_seconds = next_due_ms / 1000 if next_due_ms >= 0 else math.inf
        return [rows.claimed_job(row) for row in claims]

    async def fetch(self, job: ClaimedJob) -> tuple[bytes | None, str | None]:
        """What a delivery starts with, in one round trip: the document, and the reason if it was cancelled."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(f"{self.prefix}payload:{job.job_id}")
            pipe.hgetall(rows.cancel_key(job.job_id))
            payload, request = await pipe.execute()
        return payload, rows.cancel_reason(job, request)

    async def cancelled_among(self, jobs: Sequence[ClaimedJob]) -> dict[int, str]:
        """Fence -> reason of those deliveries whose cancellation is requested; one round trip for all."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hgetall(rows.cancel_key(job.job_id))
            requests = await pipe.execute()
        found = {
            job.fence: rows.cancel_reason(job, request) for job, request in zip(jobs, requests, strict=True)
        }
        return {fence: reason for fence, reason in found.items() if reason is not None}

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
        moved = await self._run(
            "take_over",
            limit,
            self._settings.max_deliveries,
            HISTORY_LIMIT,
            _BORDERS,
            ErrorCode.WORKER_CRASHED,
            _POISON,
        )
        triples = zip(moved[::3], moved[1::3], moved[2::3], strict=True)
        return [
            TakenOver(rows.text(job_id), bool(dead), rows.text(worker)) for job_id, dead, worker in triples
        ]

    async def settle(self, worker_id: str, outcomes: Sequence[Outcome]) -> list[bool]:
        """Report outcomes in one step. False: the delivery is not the job's newest, nothing was changed."""
        if not outcomes:
            return []
        flat = [part for outcome in outcomes for part in rows.outcome_row(outcome)]
        answer = await self._run(
            "settle", worker_id, self._settings.history_seconds, HISTORY_LIMIT, _BORDERS, *flat
        )
        return [bool(taken) for taken in answer]

    async def leave(self, worker_id: str) -> None:
        """Say goodbye: the lease ends now, jobs still held are taken over at once."""
        await self._run("leave", worker_id)

    async def progress(self, job_id: str, event: Mapping[str, str | int]) -> None:
        """Tell listeners how far a running job is: {"stage", "done", "total"}."""
        await self._run("progress", job_id, event["stage"], event["done"], event["total"])

    async def wait_for_work(self, seconds: float) -> None:
        """Return when a job may be ready, a delay has run out, or `seconds` have passed (at most 2)."""
        wait = min(seconds, self._next_due_seconds, LONGEST_WAIT_SECONDS)
        # Redis takes 0 for "for ever".
        await self._redis.blpop([f"{self.prefix}wake"], timeout=max(0.001, wait))

    # Readers and operators

    async def get(self, job_id: str) -> JobView | None:
        """The job, or None when there is none (any more)."""
        fields = rows.decoded(await self._redis.hgetall(self._job(job_id)))
        return rows.job_view(fields) if "state" in fields else None

    async def payload(self, job_id: str) -> bytes | None:
        """The document's bytes; None once the job is done or cancelled."""
        payload: Any = await self._redis.get(f"{self.prefix}payload:{job_id}")
        return None if payload is None else bytes(payload)

    async def events(self, job_id: str, *, after: str = "0") -> list[Event]:
        """The kept events of a job that follow the event id `after`, oldest first."""
        entries: Any = await self._redis.xrange(f"{self.prefix}events:{job_id}", min=f"({after}", max="+")
        return [rows.event(job_id, rows.text(event_id), rows.decoded(fields)) for event_id, fields in entries]

    async def subscribe(self) -> AsyncIterator[Event]:
        """Events of all jobs as they happen. Ends with redis.RedisError when Redis goes away."""
        async with aclosing(self._redis.pubsub(ignore_subscribe_messages=True)) as channel:
            await channel.subscribe(f"{self.prefix}events")
            while True:
                message = await channel.get_message(timeout=1.0)
                if message is not None:
                    yield rows.published_event(rows.text(message["data"]))

    async def dead_letters(self, *, offset: int = 0, limit: int = 50) -> list[JobView]:
        """Dead jobs, newest first."""
        ids: Any = await self._redis.zrevrange(f"{self.prefix}dlq", offset, offset + limit - 1)
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hgetall(self._job(rows.text(job_id)))
            found = [rows.decoded(fields) for fields in await pipe.execute()]
        return [rows.job_view(fields) for fields in found if "state" in fields]

    async def requeue(self, job_id: str) -> bool:
        """Give a dead job a fresh series of attempts. False when it is not dead."""
        await self._redis.delete(rows.cancel_key(job_id))
        return bool(await self._run("requeue", job_id, HISTORY_LIMIT))

    async def purge(self, job_id: str) -> bool:
        """Forget a dead job and its document for good. False when it is not dead."""
        return bool(await self._run("purge", job_id))

    async def gauges(self) -> QueueGauges:
        """Everything that is measured about the queue, as of one moment."""
        waiting, active, dead, workers, highest, flat = await self._run("gauges")
        pairs = zip(flat[::2], flat[1::2], strict=True)
        stats = {rows.text(name): float(value) for name, value in pairs}
        return QueueGauges(waiting, active, dead, workers, float(highest), stats)

    async def live_workers(self) -> set[str]:
        """Workers that have a lease, expired or not: whoever is not listed holds nothing."""
        workers: Any = await self._redis.zrange(f"{self.prefix}leases", 0, -1)
        return {rows.text(worker) for worker in workers}

    async def ping(self) -> None:
        """Return when Redis answers."""
        await self._redis.echo("readiness")

    @property
    def _lease_ms(self) -> int:
        return round(self._settings.lease_seconds * 1000)

    def _job(self, job_id: str) -> str:
        return f"{self.prefix}job:{job_id}"

    async def _run(self, name: str, *args: str | int | float | bytes) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._redis.register_script(script_text(name))
        return await script(keys=[self.prefix], args=args)
