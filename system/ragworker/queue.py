"""The queue in Redis: the only module of the core that talks to it (the limiter in `limits.py` aside).

Every change of a job's state is one Lua script, so a crash of anybody at any moment leaves a job either
before or after the step, never between. What holds at all times:

    a job that is not terminal is in exactly one place: a ready list, `delayed`, or one worker's `claimed`
    a fence is never given twice, and each is higher than all before
    stats and the duration histogram rise in the same step as the state that they count

Any call may raise redis.RedisError or OSError when Redis is away; each is safe to call again. A reply that was
lost is the hard case, and is met call by call: `submit` and `settle` recognise their own earlier effect, a lost
`claim` shows as a claim that the worker does not know in the answer of `renew`, the rest is repeatable by nature.

Keys start with `{rag:<queue>}:`, so all of one queue are in one slot of a cluster; `job:cancel:<id>` is the one
key outside (its name is given by spec D1), written and read by plain commands only.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ragworker.job import (
    HISTORY_LIMIT,
    JOB_DURATION_BUCKETS_MS,
    ClaimedJob,
    Event,
    EventKind,
    Figures,
    HistoryEntry,
    JobError,
    JobState,
    JobView,
    NewJob,
    Outcome,
    Priority,
    Submitted,
    job_id_for,
)
from ragworker.settings import QueueSettings

#: A healthy Redis answers in under a millisecond; after this it counts as away.
ANSWER_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 2.0

#: A blocking pop must end well before the socket's own deadline.
LONGEST_WAIT_SECONDS: Final = 2.0

#: Events kept per job; a reader that reconnects finds the newest ones and always the end.
EVENTS_KEPT: Final = 64

#: A cancel request that nobody has picked up by then is void; jobs notice within a second.
CANCEL_SECONDS: Final = 86_400

#: Longest reason kept with a cancel request.
REASON_LIMIT: Final = 200


class UnknownJobError(KeyError):
    """There is no job of this id (any more)."""


@dataclass(frozen=True, slots=True)
class QueueGauges:
    """The queue at one moment, read in one atomic step.

    `stats` holds counters since the queue's birth: submitted, committed, dead, cancelled, retried, taken_over,
    finished:<done|dead|cancelled>, failed:<error code>, embedding_requests:<http status|timeout|unreachable>,
    rate_limited (answers 429), embedding_tokens; and two histograms, `hist:rag_job_duration_ms:*` (jobs done
    and dead, from their entry into the queue) and `hist:embedding_api_latency_ms:*`, each as `<border>` and
    `+Inf` (observations in that bucket alone, NOT cumulative), `sum` and `count`.
    """

    queue_length: int = 0
    active_jobs: int = 0
    dlq_entries: int = 0
    workers: int = 0
    token_used_pct: float = 0.0
    stats: Mapping[str, float] = field(default_factory=dict)


def connect(url: str) -> redis.asyncio.Redis:
    """A client with deadlines. One immediate second try, because a restarted Redis leaves dead connections."""
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
    """One named queue. Cheap to make; holds no state but the client and the loaded scripts."""

    def __init__(self, client: redis.asyncio.Redis, *, name: str, settings: QueueSettings) -> None:
        self._redis = client
        self.name = name
        self.prefix = f"{{rag:{name}}}:"
        self._settings = settings
        self._scripts: dict[str, Any] = {}
        self._next_due_seconds: float | None = None

    async def submit(self, new: NewJob) -> Submitted:
        """Accept a job, or find the one that does the same work. Accepted means: survives anybody's death."""
        raise NotImplementedError

    async def claim(self, worker_id: str, *, limit: int) -> list[ClaimedJob]:
        """Take up to `limit` jobs, those due first into the ready lists, high before normal."""
        raise NotImplementedError

    async def renew(
        self,
        worker_id: str,
        facts: Mapping[str, str],
        *,
        stats: Mapping[str, float] | None = None,
        flush: int = 0,
    ) -> dict[int, str]:
        """Prolong the lease, leave heartbeat facts and add `stats`; returns what the worker holds: fence -> id.

        `flush` numbers the stats of one worker: the same number is added only once.
        """
        raise NotImplementedError

    async def take_over(self, *, limit: int) -> list[str]:
        """Requeue (or dead-letter) up to `limit` jobs of workers whose lease ran out; their ids."""
        raise NotImplementedError

    async def settle(self, worker_id: str, outcomes: Sequence[Outcome]) -> list[bool]:
        """Report outcomes in one step. False: the delivery is not the job's newest, nothing was changed."""
        raise NotImplementedError

    async def progress(self, job_id: str, event: Mapping[str, str | int]) -> None:
        """Tell listeners how far a running job is: {"stage", "done", "total"}."""
        raise NotImplementedError

    async def request_cancel(self, job_id: str, *, reason: str, by: str) -> JobState:
        """Ask for the end of a job (spec D1); its state afterwards.

        `cancelled`: it was waiting and has ended. `running` (or a waiting state, when an earlier owner might still
        be alive): a worker will end it within a second. `done`, `dead`: too late. UnknownJobError when there is none.
        """
        raise NotImplementedError

    async def cancel_requested(self, job_id: str) -> str | None:
        """The reason of a pending cancel request, or None."""
        raise NotImplementedError

    async def get(self, job_id: str) -> JobView | None:
        """The job, or None when there is none (any more)."""
        raise NotImplementedError

    async def payload(self, job_id: str) -> bytes | None:
        """The document's bytes; None once the job is done or cancelled."""
        raise NotImplementedError

    async def events(self, job_id: str, *, after: str = "0") -> list[Event]:
        """The kept events of a job that follow the event id `after`, oldest first."""
        raise NotImplementedError

    def subscribe(self) -> AsyncIterator[Event]:
        """Events of all jobs as they happen, without those before the call. Ends by an exception when Redis goes."""
        raise NotImplementedError

    async def dead_letters(self, *, offset: int = 0, limit: int = 50) -> list[JobView]:
        """Dead jobs, newest first."""
        raise NotImplementedError

    async def requeue(self, job_id: str) -> bool:
        """Give a dead job a fresh series of attempts. False when it is not dead."""
        raise NotImplementedError

    async def purge(self, job_id: str) -> bool:
        """Forget a dead job and its document for good. False when it is not dead."""
        raise NotImplementedError

    async def gauges(self) -> QueueGauges:
        """Everything that is measured about the queue, as of one moment."""
        raise NotImplementedError

    async def wait_for_work(self, seconds: float) -> None:
        """Return when a job may be ready, a delay has run out, or `seconds` have passed."""
        raise NotImplementedError

    async def ping(self) -> None:
        """Return when Redis answers."""
        await self._redis.ping()
