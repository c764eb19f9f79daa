"""Run jobs inside the API process, without Redis: when USE_DURABLE_WORKER is off, or Redis is away (spec A2).

The same pipeline and retry table as the worker's (`ingest.py`, `retry.py`), on an in-memory registry. What it
does not promise: jobs die with the process; a job that fails for good stays in the registry as `dead` with its
error and history, but there is no dead-letter queue to requeue it from; and the rate limit is this process' own
(the shared one lives in Redis), so the limit of spec B2 holds per process here.

What it does promise: effects happen once, even beside a durable worker. Job ids are made from the work's name, so a
submit that reached Redis, lost its answer and fell back to here meets its twin in SQL: whoever commits second is
told so. Fences of background deliveries come from SQL, because no queue numbers them.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

from ragworker.delivery import job_ids, log_end, log_failure
from ragworker.embedding import EmbeddingClient
from ragworker.errors import WorkerCancellationError
from ragworker.ingest import Cancellation, Ingestor, failure_outcome
from ragworker.job import (
    HISTORY_LIMIT,
    JOB_DURATION_BUCKETS_MS,
    ClaimedJob,
    Event,
    EventKind,
    Figures,
    HistoryEntry,
    JobState,
    JobView,
    NewJob,
    Outcome,
    OutcomeKind,
    Priority,
    Submitted,
    job_id_for,
)
from ragworker.limits import BatchGate, LocalLimiter
from ragworker.logs import get_logger
from ragworker.queue import UnknownJobError
from ragworker.settings import Settings
from ragworker.stats import Stats
from ragworker.store import Store
from ragworker.tempfiles import PrivateFiles

logger = get_logger(__name__)

#: Waiting jobs, and bytes of their documents: memory is all they have.
MOST_WAITING: Final = 1000
MOST_WAITING_BYTES: Final = 256 * 1024 * 1024

#: Finished jobs that can still be asked about.
MOST_FINISHED: Final = 1000

EVENTS_KEPT: Final = 64

#: Events that a slow subscriber may lag behind before it loses the oldest.
SUBSCRIBER_LAG: Final = 1000

#: Running jobs may end for this long when the process stops.
CLOSE_SECONDS: Final = 5.0

WORKER: Final = "background"


class BackgroundFullError(Exception):
    """Too many jobs wait already; the caller should answer 503."""


@dataclass(eq=False)
class _Entry:
    """One job of the registry, and, as `ingest.Delivery`, its running delivery."""

    runner: BackgroundRunner
    view: JobView
    payload: bytes | None
    job: ClaimedJob
    cancellation: Cancellation = field(default_factory=Cancellation)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    accepted: float = field(default_factory=time.monotonic)

    async def progressed(self, stage: str, done: int, total: int) -> None:
        """Tell listeners."""
        self.runner.emit(self, EventKind.PROGRESS, stage=stage, done=done, total=total)

    async def confirm(self) -> None:
        """Nobody can take a job away from this process."""


class BackgroundRunner:
    """Same verbs as `Queue` for what the API needs; call `start` once inside the running loop, `close` at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._waiting: dict[Priority, deque[_Entry]] = {Priority.HIGH: deque(), Priority.NORMAL: deque()}
        self._running: set[_Entry] = set()
        self._subscribers: set[asyncio.Queue[Event]] = set()
        self._stats = Stats()
        self._gate = BatchGate(
            concurrency=settings.embedding.concurrency, token_budget=settings.memory_token_budget
        )
        self._event_numbers = count(1)
        self._closing = False
        self._engine: _Engine | None = None

    async def start(self) -> None:
        """Nothing yet: database and embedding client are opened by the first job."""

    async def close(self) -> None:
        """Finish running jobs within a bound, then stop; waiting ones are lost, as promised above."""
        self._closing = True
        tasks = {entry.task for entry in self._running if entry.task}
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        lost = [entry for entry in self._entries.values() if not entry.view.state.terminal]
        for entry in lost:
            if entry.timer:
                entry.timer.cancel()
        if lost:
            logger.warning("background.jobs_lost", extra={"fields": {"count": len(lost)}})
        if self._engine is not None:
            await self._engine.close()

    async def submit(self, new: NewJob) -> Submitted:
        """Accept a job or find the one that does the same work. BackgroundFullError when there is no room."""
        job_id = job_id_for(queue=self._settings.queue_name, user_id=new.user_id, key=new.key)
        known = self._entries.get(job_id)
        if known is not None:
            return Submitted(job_id, known.view.state, duplicate=True)
        held = sum(entry.view.bytes for entry in self._entries.values() if not entry.view.state.terminal)
        if self._closing or self.queue_length >= MOST_WAITING or held + len(new.payload) > MOST_WAITING_BYTES:
            raise BackgroundFullError(f"{self.queue_length} jobs with {held} bytes are waiting already")
        entry = self._entry(job_id, new)
        self._entries[job_id] = entry
        self._forget_oldest()
        self._stats.add({"submitted": 1})
        self._make_ready(entry)
        return Submitted(job_id, JobState.QUEUED, duplicate=False)

    async def get(self, job_id: str) -> JobView | None:
        """The job (mode `background`), or None."""
        entry = self._entries.get(job_id)
        return entry.view if entry else None

    async def cancel(self, job_id: str, *, reason: str, by: str) -> JobState:
        """End a job; as `Queue.request_cancel`. UnknownJobError when there is none."""
        entry = self._entries.get(job_id)
        if entry is None:
            raise UnknownJobError(job_id)
        if entry.view.state is JobState.RUNNING:
            entry.cancellation.request(reason)
        elif not entry.view.state.terminal:
            if entry.timer:
                entry.timer.cancel()
            with suppress(ValueError):
                self._waiting[entry.view.priority].remove(entry)
            self._settle(entry, Outcome(job_id, entry.job.fence, OutcomeKind.CANCELLED))
        return entry.view.state

    async def events(self, job_id: str, *, after: str = "0") -> list[Event]:
        """The kept events that follow `after`."""
        entry = self._entries.get(job_id)
        return [event for event in entry.events if _order(event.event_id) > _order(after)] if entry else []

    async def subscribe(self) -> AsyncIterator[Event]:
        """Events of all jobs as they happen; a subscriber that lags far behind loses the oldest."""
        mine: asyncio.Queue[Event] = asyncio.Queue(SUBSCRIBER_LAG)
        self._subscribers.add(mine)
        try:
            while True:
                yield await mine.get()
        finally:
            self._subscribers.discard(mine)

    def stats(self) -> Mapping[str, float]:
        """Counters and histograms by the names of `QueueGauges.stats`, of this process since its start."""
        return self._stats.peek()

    @property
    def queue_length(self) -> int:
        """Jobs waiting, or delayed until a retry."""
        delayed = sum(entry.view.state is JobState.RETRYING for entry in self._entries.values())
        return delayed + sum(
            entry.view.state is JobState.QUEUED for line in self._waiting.values() for entry in line
        )

    @property
    def active_jobs(self) -> int:
        """Jobs running."""
        return len(self._running)

    @property
    def token_used_pct(self) -> float:
        """The most tokens that in-flight batches held since the last look, in percent of the budget."""
        return self._gate.take_peak_pct()

    def emit(
        self,
        entry: _Entry,
        kind: EventKind,
        *,
        stage: str | None = None,
        done: int | None = None,
        total: int | None = None,
    ) -> None:
        """Keep an event and pass it on."""
        at_ms, state = _now_ms(), entry.view.state
        event_id = f"{at_ms}-{next(self._event_numbers)}"
        event = Event(entry.view.job_id, event_id, kind, state, at_ms, stage, done, total)
        entry.events.append(event)
        for subscriber in self._subscribers:
            if subscriber.full():
                subscriber.get_nowait()
            subscriber.put_nowait(event)

    # One job's way

    def _make_ready(self, entry: _Entry) -> None:
        entry.timer = None
        if entry.view.state is not JobState.RETRYING:
            self._record(entry, "submitted", JobState.QUEUED, 1)
        self._waiting[entry.view.priority].append(entry)
        self._fill_slots()

    def _fill_slots(self) -> None:
        while not self._closing and len(self._running) < self._settings.worker_concurrency:
            line = self._waiting[Priority.HIGH] or self._waiting[Priority.NORMAL]
            if not line:
                return
            entry = line.popleft()
            self._running.add(entry)
            self._record(entry, "claimed", JobState.RUNNING, entry.view.attempt)
            entry.task = asyncio.create_task(self._deliver(entry))

    async def _deliver(self, entry: _Entry) -> None:
        with job_ids(entry.job):
            try:
                outcome = await self._outcome(entry)
                self._settle(entry, outcome)
            finally:
                self._running.discard(entry)
                self._fill_slots()

    async def _outcome(self, entry: _Entry) -> Outcome:
        try:
            if self._engine is None:
                self._engine = _Engine(self._settings, stats=self._stats, gate=self._gate)
            fence = await self._engine.next_fence(entry.job.job_id)
            entry.job = replace(entry.job, attempt=entry.view.attempt, fence=fence)
            logger.info("job.claimed", extra={"fields": {"attempt": entry.job.attempt, "worker": WORKER}})
            result = await self._engine.ingestor.run(entry, entry.payload)
        except WorkerCancellationError:
            return Outcome(entry.job.job_id, entry.job.fence, OutcomeKind.CANCELLED)
        except Exception as error:
            log_failure(entry.job, error)
            return failure_outcome(entry.job, error, self._settings)
        fields = {"chunks": result.figures.chunks, "tokens": result.figures.tokens, "fence": entry.job.fence}
        logger.info(f"job.{result.commit.value}", extra={"fields": fields})
        return Outcome(entry.job.job_id, entry.job.fence, OutcomeKind.DONE, figures=result.figures)

    def _settle(self, entry: _Entry, outcome: Outcome) -> None:
        attempt = entry.view.attempt
        code = outcome.error.code if outcome.error else None
        if outcome.kind is OutcomeKind.RETRY:
            entry.view = replace(entry.view, attempt=attempt + 1, error=outcome.error)
            delay_ms = outcome.delay_ms
            self._record(entry, "retry_scheduled", JobState.RETRYING, attempt, code=code, delay_ms=delay_ms)
            loop = asyncio.get_running_loop()
            entry.timer = loop.call_later(outcome.delay_ms / 1000, self._make_ready, entry)
            self._stats.add({"retried": 1, f"failed:{code}": 1})
        else:
            entry.view = replace(
                entry.view, figures=outcome.figures, error=outcome.error, finished_ms=_now_ms()
            )
            entry.payload = None
            self._record(entry, outcome.kind.value, JobState(outcome.kind.value), attempt, code=code)
            self.emit(entry, EventKind.END)
            self._count_end(entry, outcome, code)
        log_end(entry.job, outcome, accepted=True)

    def _count_end(self, entry: _Entry, outcome: Outcome, code: str | None) -> None:
        kind = outcome.kind
        figures = {f"finished:{kind.value}": 1.0, {OutcomeKind.DONE: "committed"}.get(kind, kind.value): 1.0}
        if code:
            figures[f"failed:{code}"] = 1.0
        if kind is not OutcomeKind.CANCELLED:
            duration_ms = (time.monotonic() - entry.accepted) * 1000
            self._stats.observe("rag_job_duration_ms", duration_ms, borders=JOB_DURATION_BUCKETS_MS)
        self._stats.add(figures)

    def _record(
        self,
        entry: _Entry,
        event: str,
        state: JobState,
        attempt: int,
        *,
        code: str | None = None,
        delay_ms: int | None = None,
    ) -> None:
        line = HistoryEntry(_now_ms(), event, attempt, code, delay_ms, WORKER)
        history = (*entry.view.history, line)[-HISTORY_LIMIT:]
        entry.view = replace(entry.view, state=state, history=history)
        self.emit(entry, EventKind.STATE)

    def _entry(self, job_id: str, new: NewJob) -> _Entry:
        job = ClaimedJob(
            job_id=job_id,
            fence=0,
            attempt=1,
            delivery=1,
            name=new.name,
            media_type=new.media_type,
            bytes=len(new.payload),
            sha256=hashlib.sha256(new.payload).hexdigest(),
            user_id=new.user_id,
            request_id=new.request_id,
            trace_id=new.trace_id,
            correlation_id=new.correlation_id,
            created_ms=_now_ms(),
        )
        view = JobView(
            **{name: getattr(job, name) for name in ClaimedJob.__slots__ if name in JobView.__slots__},
            state=JobState.QUEUED,
            priority=Priority(new.priority),
            deliveries=1,
            finished_ms=None,
            figures=Figures(),
            error=None,
            history=(),
            mode="background",
        )
        return _Entry(self, view, new.payload, job)

    def _forget_oldest(self) -> None:
        finished = [job_id for job_id, entry in self._entries.items() if entry.view.state.terminal]
        for job_id in finished[: max(0, len(finished) - MOST_FINISHED)]:
            del self._entries[job_id]


class _Engine:
    """What jobs run on, opened by the first one."""

    def __init__(self, settings: Settings, *, stats: Stats, gate: BatchGate) -> None:
        self._threads = ThreadPoolExecutor(2 * settings.worker_concurrency + 2, "ragworker-background")
        self._store = Store(settings.database_url, pool_size=settings.worker_concurrency)
        self._embedder = EmbeddingClient(settings.embedding, stats=stats, threads=self._threads)
        self._has_schema = False
        self.ingestor = Ingestor(
            settings,
            store=self._store,
            embedder=self._embedder,
            limiter=LocalLimiter(settings.embedding),
            gate=gate,
            files=PrivateFiles(settings.temp_dir, owner=WORKER),
            threads=self._threads,
            worker=WORKER,
        )

    async def next_fence(self, job_id: str) -> int:
        """A fence of the job's own; makes the tables first."""
        loop = asyncio.get_running_loop()
        if not self._has_schema:
            await loop.run_in_executor(self._threads, self._store.create_schema)
            self._has_schema = True
        return await loop.run_in_executor(self._threads, self._store.next_fence, job_id)

    async def close(self) -> None:
        await self._embedder.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _order(event_id: str) -> tuple[int, int]:
    at_ms, _, number = event_id.partition("-")
    return (int(at_ms) if at_ms.isdigit() else 0, int(number) if number.isdigit() else 0)
