"""What the harness may ask of a system under test: the verbs of a target and the values that come back.

A target is one kind of system (`ragworker`, Celery, ...). A lane is one isolated instance of it: its own
queue, database file, temporary folder, API key and processes, so that two checks never see each other's jobs.
This module holds Protocols and frozen values only. How a system is started, asked and killed is left to the
adapter (`targets/ragworker.py`); which adapters exist, to the table in `targets/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import httpx

    from readiness.documents import Document

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"

TERMINAL_STATES = frozenset({"done", "dead", "cancelled"})
"""A job in one of these never changes again by itself."""


class Guarantee(StrEnum):
    """What a target promises. Only declared guarantees are checked; the others are NOT_APPLICABLE."""

    AT_LEAST_ONCE = "at_least_once"
    EFFECT_ONCE = "effect_once"
    IDEMPOTENT_SUBMIT = "idempotent_submit"
    RETRY_TABLE = "retry_table"
    DEAD_LETTERS = "dead_letters"
    LEASE = "lease"
    CANCELLATION = "cancellation"
    RUNTIME_FLAG = "runtime_flag"
    RATE_LIMIT = "rate_limit"
    VERIFIED_USER = "verified_user"
    EVENT_STREAM = "event_stream"


class TargetError(Exception):
    """The target answered in a way its adapter cannot read, or a process of it did not come up."""


class DeadlineExceeded(TargetError):
    """Jobs did not reach a terminal state in time; `unfinished` maps their ids to the state last seen."""

    def __init__(self, message: str, *, unfinished: Mapping[str, str]) -> None:
        super().__init__(message)
        self.unfinished = dict(unfinished)


@dataclass(frozen=True, slots=True)
class Submission:
    """The answer to one submitted document. `job_id` is "" when the target refused it."""

    job_id: str
    status_code: int
    duplicate: bool
    mode: str
    state: str
    request_id: str
    trace_id: str
    headers: Mapping[str, str]  # names in lower case
    body: JsonObject

    @property
    def accepted(self) -> bool:
        """True when the target took responsibility for the job: from here on losing it is a violation."""
        return self.status_code in (200, 201, 202) and bool(self.job_id)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One line of a job's history. `code` is "" and `delay_ms` None where they say nothing."""

    at_ms: int
    event: str
    attempt: int
    code: str = ""
    delay_ms: int | None = None
    worker: str = ""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as the target shows it. Times are milliseconds since the epoch; `body` is the whole answer."""

    job_id: str
    state: str
    mode: str
    attempt: int
    deliveries: int
    created_ms: int
    finished_ms: int | None
    duration_ms: int | None
    chunks: int | None
    tokens: int | None
    cost_usd: float | None
    error_code: str
    error_message: str
    history: tuple[JobEvent, ...]
    request_id: str
    trace_id: str
    correlation_id: str
    user_id: str
    body: JsonObject = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """True in a terminal state."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class Effect:
    """One committed effect, as an outside observer counts it: a job with two of these was done twice."""

    job_id: str
    fence: int
    worker: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something that the target's processes said in their logs about a delivery. Empty fields were not said.

    `kind` is ready (a worker, with its process), claimed, settled (a report that the queue took), refused (one that it
    did not take) or taken_over (from `worker`, whose lease had run out).
    """

    at_ms: int
    kind: str
    job_id: str = ""
    worker: str = ""
    fence: int = 0
    attempt: int = 1
    delivery: int = 1
    outcome: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class CommittedDocument:
    """What the target says it committed, and what its rows add up to (`*_rows`, `token_sum`)."""

    job_id: str
    name: str
    words: int
    chunk_count: int
    token_count: int
    sha256: str
    chunk_rows: int
    vector_rows: int
    token_sum: int


class StoredChunk(NamedTuple):
    """One committed chunk. `vector` is empty when the chunk has no vector row."""

    text: str
    tokens: int
    vector: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class OlderVersion:
    """An earlier version of the target: its name, how many files differ, and the settings that choose it."""

    name: str
    differing: int
    settings: Mapping[str, str]


class Worker(Protocol):
    """One worker process of a lane."""

    @property
    def name(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def alive(self) -> bool: ...
    def kill(self) -> None:
        """End it at once, as the kernel would (SIGKILL); returns when it is gone."""

    def pause(self) -> None:
        """Freeze it (SIGSTOP): alive for the kernel, silent for everybody else."""

    def resume(self) -> None:
        """Let a frozen worker go on (SIGCONT)."""

    def stop(self, *, grace_seconds: float = ...) -> None:
        """Ask it to end (SIGTERM), then insist (SIGKILL). Doing it twice is harmless."""


class Lane(Protocol):
    """One isolated instance of the target. Leaving its `with` block ends all its processes."""

    @property
    def name(self) -> str: ...
    @property
    def api_url(self) -> str:
        """Base URL without a slash at the end; TargetError while no API runs."""

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings its processes get, as the environment has them."""

    @property
    def effective_settings(self) -> Mapping[str, str]:
        """The settings that the running system says are in force; empty when it does not say, or before its start."""

    @property
    def embedding_key(self) -> str: ...
    @property
    def database_url(self) -> str: ...
    @property
    def temp_dir(self) -> Path: ...
    @property
    def queue(self) -> str: ...
    @property
    def redis_url(self) -> str: ...
    @property
    def workers(self) -> Sequence[Worker]:
        """Every worker started so far, dead ones too, in the order of their start."""

    def start_api(self, *, settings: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> None: ...
    def stop_api(self) -> None: ...
    def kill_api(self) -> None: ...
    def start_worker(
        self, *, settings: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Worker:
        """One more worker; `settings` are its own, above the lane's; `prefix` must exec the rest of the line."""

    def set_flag(self, value: str) -> None:
        """Switch the durable path on or off while everything runs."""

    def enqueue(
        self, document: Document, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Submission: ...
    def status(self, job_id: str) -> JobStatus: ...
    def wait_all(self, job_ids: Sequence[str], *, seconds: float) -> dict[str, JobStatus]:
        """Wait until every job is in a terminal state; DeadlineExceeded names those that are not."""

    def cancel(self, job_id: str, *, reason: str = ...) -> int:
        """Ask for a job's cancellation; the HTTP status of the answer."""

    def depth(self) -> int:
        """Jobs that wait (ready or delayed)."""

    def in_flight(self) -> int:
        """Jobs that workers hold now."""

    def dead_letters(self) -> list[JsonObject]: ...
    def requeue(self, job_id: str) -> int: ...
    def effects(self) -> list[Effect]: ...
    def undone(self) -> list[Effect]:
        """Effects that were taken back on request, each with the fence of its commit."""

    def sightings(self) -> list[Sighting]:
        """What the logs of all its processes say about deliveries, in order of time."""

    def leftovers(self) -> list[str]:
        """What is kept for work that is over, or is out of place: files and keys. For a lane in which nothing moves."""

    def reach_api_at(self, url: str) -> None:
        """From now on the verbs speak to the API at this address, a proxy's for example; "" is its own again."""

    def committed(self) -> dict[str, CommittedDocument]: ...
    def chunks(self, job_id: str) -> list[StoredChunk]: ...
    def metrics(self) -> str:
        """The exposition text of the lane's API."""

    def log_lines(self) -> list[JsonObject]:
        """Parsed log lines of all its processes; a line that is no JSON object is under the key `_raw`."""

    def embedding_log(self) -> list[JsonObject]:
        """What reached the embedding API under this lane's key, in order of arrival."""

    def script_embedding(
        self, rules: Sequence[Mapping[str, JsonValue]], *, latency_ms: int | None = None
    ) -> None:
        """Replace the rules by which the embedding API treats this lane; no rules means well behaved."""

    def http(self) -> httpx.Client:
        """A client whose base URL is the API of the lane. It lives as long as the lane."""

    def close(self) -> None:
        """End every process of the lane. Doing it twice is harmless."""


class Target(Protocol):
    """One kind of system under test."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def guarantees(self) -> frozenset[Guarantee]: ...
    def lane(
        self, name: str, *, settings: Mapping[str, str] | None = None, redis_url: str | None = None
    ) -> AbstractContextManager[Lane]:
        """An isolated instance, nothing started yet; `redis_url` replaces the shared Redis by another."""


@runtime_checkable
class Killable(Protocol):
    """Something that can be ended without warning."""

    def kill(self) -> None: ...


@runtime_checkable
class Pausable(Protocol):
    """Something that can be frozen and thawed."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


@runtime_checkable
class HasOlderVersion(Protocol):
    """A target whose version before the present one is at hand."""

    def older_version(self, folder: Path) -> OlderVersion:
        """Unpack it into `folder`; TargetError says why there is none."""


@runtime_checkable
class HasDeadLetters(Protocol):
    """Something that keeps what it gave up on."""

    def dead_letters(self) -> list[JsonObject]: ...
    def requeue(self, job_id: str) -> int: ...
