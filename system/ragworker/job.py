"""The values that describe a job, and the states it may go through. Pure: no clock, no Redis, no SQL.

    queued -> running -> done                              its effect is committed
      ^         |-----> retrying -> running                failed, waits for its delay
      |         |-----> dead                               failed for good, kept whole as a dead letter
      |         |-----> cancelled                          a person ended it
      |---------'                                          handed back, or its worker's lease ran out
      '---- dead                                           an operator requeued it

A job that waits (queued, retrying) can be cancelled too. `attempt` counts failures (retries + 1),
`deliveries` counts workers that held the job in this attempt series (lost leases + 1): a crash raises only
the second, so a job that kills its workers cannot go round for ever, and a job that was merely unlucky with
its workers keeps its retries. Storing all this is left to `queue.py` and `lua/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

#: `bytes` where a class has a property of that name.
Payload = bytes

#: Upper borders in ms; 60 000 is the objective of the P95 (H1), 300 000 that of recovery (H7).
JOB_DURATION_BUCKETS_MS: Final = (
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 45_000, 60_000, 120_000, 300_000,
)  # fmt: skip
#: Upper borders in ms; the last one is the default deadline of a request.
EMBEDDING_LATENCY_BUCKETS_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000)


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether no worker will touch the job any more."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset({JobState.DONE, JobState.DEAD, JobState.CANCELLED})

#: The legal transitions; the Lua scripts make no other.
TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {JobState.DONE, JobState.RETRYING, JobState.DEAD, JobState.CANCELLED, JobState.QUEUED}
    ),
    JobState.RETRYING: frozenset({JobState.RUNNING}),  # cancelled by the worker that claims it next
    JobState.DONE: frozenset({JobState.CANCELLED}),  # rolled back within its window (spec D3)
    JobState.DEAD: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset(),
}


class Priority(StrEnum):
    """Which ready list a job waits in; every high job is served before any normal one."""

    NORMAL = "normal"
    HIGH = "high"


class OutcomeKind(StrEnum):
    """What a worker says about a job that it held."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"
    CANCELLED = "cancelled"
    RELEASED = "released"  # handed back untouched, when a worker stops


@dataclass(frozen=True, slots=True)
class NewJob:
    """A document on its way in. `key` names the work: the same user and key is the same job (spec A4)."""

    key: str
    name: str
    media_type: str
    payload: bytes = field(repr=False)
    priority: Priority = Priority.NORMAL
    user_id: str = "anonymous"
    request_id: str = ""
    trace_id: str = ""
    correlation_id: str = ""
    span_id: str = ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submit. `duplicate` says that the job was there already, in the given state."""

    job_id: str
    state: JobState
    duplicate: bool


class ClaimedJob(NamedTuple):
    """One delivery of a job to one worker. `fence` is higher than that of every earlier delivery.

    `payload` is the document when it is small enough to come with the claim; else `Queue.document` reads it.
    `cancel` is the reason of a cancellation that was asked for before the claim. `about` is what was written down
    at the submit, as JSON; it is read when somebody asks for one of its facts, and many jobs end before that.
    """

    job_id: str
    fence: int
    attempt: int
    delivery: int
    about: Payload
    created_ms: int = 0
    #: When the job last entered the queue from outside (submit or requeue); older cancel requests are void.
    queued_ms: int = 0
    payload: Payload | None = None
    cancel: str | None = None

    @property
    def name(self) -> str:
        """What the submitter calls the document."""
        return str(_facts(self.about)["name"])

    @property
    def media_type(self) -> str:
        """What kind of document it is."""
        return str(_facts(self.about)["media_type"])

    @property
    def bytes(self) -> int:
        """The document's length."""
        return int(_facts(self.about)["bytes"])

    @property
    def sha256(self) -> str:
        """The document's digest, in hex."""
        return str(_facts(self.about)["sha256"])

    @property
    def user_id(self) -> str:
        """Whose it is."""
        return str(_facts(self.about)["user_id"])

    @property
    def request_id(self) -> str:
        """The request that submitted it."""
        return str(_facts(self.about)["request_id"])

    @property
    def correlation_id(self) -> str:
        """What its submitter's lines about it have in common."""
        return str(_facts(self.about)["correlation_id"])

    @property
    def trace_id(self) -> str:
        """The trace of the request that submitted it."""
        return str(_facts(self.about)["trace_id"])

    @property
    def span_id(self) -> str:
        """The span under which it was submitted: parent of its deliveries' spans (tracing.py)."""
        return str(_facts(self.about)["span_id"])

    def ids(self) -> Mapping[str, str]:
        """What its log lines carry (spec G2): the ids that the API gave it, and its own."""
        facts = _facts(self.about)
        return {"job_id": self.job_id, **{name: facts[name] for name in _LOGGED if facts[name]}}

    def __repr__(self) -> str:
        """Which delivery it is; the rest may hold a document."""
        return f"ClaimedJob({self.job_id!r}, fence={self.fence}, attempt={self.attempt})"


#: The ids of a submit that log lines carry.
_LOGGED: Final = ("request_id", "trace_id", "correlation_id", "user_id")


@lru_cache(1024)
def _facts(about: bytes) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = json.loads(about)
    return facts


@dataclass(frozen=True, slots=True)
class JobError:
    """Why an attempt failed: one of the 19 codes of `errors.py` and one line without document text."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What a job did: words and chunks of its document, tokens embedded, expected cost in US dollars."""

    words: int = 0
    chunks: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


class Outcome(NamedTuple):
    """A worker's report on one delivery; refused when `fence` is not the job's newest."""

    job_id: str
    fence: int
    kind: OutcomeKind
    delay_ms: int = 0
    error: JobError | None = None
    figures: Figures = Figures()


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One past event of a job, in Redis time."""

    at_ms: int
    event: str
    attempt: int
    code: str | None = None
    delay_ms: int | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """All that can be told about a job, without its payload."""

    job_id: str
    state: JobState
    name: str
    media_type: str
    bytes: int
    sha256: str
    priority: Priority
    attempt: int
    deliveries: int
    created_ms: int
    finished_ms: int | None
    figures: Figures
    error: JobError | None
    history: tuple[HistoryEntry, ...]
    request_id: str
    trace_id: str
    correlation_id: str
    user_id: str
    mode: str = "durable"

    @property
    def duration_ms(self) -> int | None:
        """From creation to the end; None while the job has not ended."""
        return None if self.finished_ms is None else max(0, self.finished_ms - self.created_ms)


class EventKind(StrEnum):
    """`end` is the last event of a job; nothing follows it unless an operator requeues the job."""

    STATE = "state"
    PROGRESS = "progress"
    END = "end"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job. `event_id` is `<ms>-<n>`, n rising within the job: a Last-Event-ID."""

    job_id: str
    event_id: str
    kind: EventKind
    state: JobState
    at_ms: int
    stage: str | None = None
    done: int | None = None
    total: int | None = None


def job_id_for(*, queue: str, user_id: str, key: str) -> str:
    """The id of the work named `key`, made from its names alone.

    Because the id does not depend on when or where the job was accepted, a submit whose answer was lost and
    that was then run in the background, or came again after its record had expired, meets its own effect in
    SQL (the job id is the primary key there) instead of repeating it.
    """
    return "job-" + hashlib.sha256("\0".join((queue, user_id, key)).encode()).hexdigest()[:32]
