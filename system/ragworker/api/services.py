"""Everything that the routes share for the life of one API process, and where a job is looked for.

A job is in one of three places: this process' background queue, the queue in Redis, or, when its record
there has expired, the documents in SQL. They are asked in this order. Every wait for Redis or SQL here has
a bound.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from ragworker.api.auth import Authenticator
from ragworker.api.context import durable_selected
from ragworker.api.events import EventHub
from ragworker.api.problems import Problem, UnavailableError
from ragworker.api.uploads import UploadReader
from ragworker.api.user_limit import UserLimit
from ragworker.background import Background
from ragworker.connection import connect
from ragworker.job import Figures, JobState, JobView, NewJob, Priority, Submitted, job_id_for
from ragworker.logs import get_logger
from ragworker.queue import Queue
from ragworker.settings import FlagSource, Settings
from ragworker.store import RollbackResult, Store
from ragworker.telemetry import ProcessFigures

logger = get_logger(__name__)
T = TypeVar("T")

#: How long a request waits for Redis or SQL before it goes on without (spec A2, H6).
PART_SECONDS: Final = 1.0

#: A large document takes longer to delete than to find.
ROLLBACK_SECONDS: Final = 10.0

#: What a job's id looks like; anything else is unknown without asking anybody.
JOB_ID: Final = r"^[A-Za-z0-9._-]{1,80}$"

#: What Redis being away looks like from here.
REDIS_AWAY: Final = (RedisError, OSError, TimeoutError)


class RedisAwayError(UnavailableError):
    """Redis did not answer in time."""


class Services:
    """The parts of one API process, most of them opened at first use; `close` at the end."""

    def __init__(self, settings: Settings, *, flag: FlagSource | None = None) -> None:
        self.settings = settings
        self.figures = ProcessFigures()
        self.authenticator = Authenticator.of(settings)
        self.uploads = UploadReader(max_bytes=settings.max_upload_bytes)
        self._flag = flag
        self._flag_warning: str | None = None
        self._redis = connect(settings.redis_url)
        durable = Queue(self._redis, name=settings.queue_name, settings=settings.queue)
        self.background = Background(settings)
        #: The queues by the mode of the jobs in them, and what wakes the listeners of each.
        self.queues = {queue.mode: queue for queue in (durable, self.background.queue)}
        self.hubs = {mode: EventHub(queue) for mode, queue in self.queues.items()}
        self.store = Store(settings.database_url)
        limit = settings.user_rate_limit
        self.user_limit = UserLimit(self._redis, prefix=durable.prefix, requests=limit) if limit else None
        #: Whether Redis ever answered: only then can a job be there that we cannot see now.
        self._redis_seen = False
        self._background_used = False
        self.streams = 0

    def end_streams(self) -> None:
        """Let the open event streams end in order; the server is going down."""
        for hub in self.hubs.values():
            hub.end_streams()

    async def close(self) -> None:
        """Stop what runs, close what is open."""
        for hub in self.hubs.values():
            await hub.close()
        await self.background.close()
        await self._redis.aclose()
        await asyncio.to_thread(self.store.close)

    def count_stream(self, change: int) -> None:
        """Note that an event stream opened (+1) or ended (-1)."""
        self.streams += change
        self.figures.change("sse_connections_open", change)

    def read_flag(self) -> bool:
        """USE_DURABLE_WORKER as it stands now (spec A1); an unreadable text is false, and said once."""
        if self._flag is None:
            return self.settings.use_durable_worker
        reading = self._flag.read()
        if reading.warning and reading.warning != self._flag_warning:
            logger.warning("settings.flag_not_understood", extra={"fields": {"reason": reading.warning}})
        self._flag_warning = reading.warning
        return reading.durable

    async def ask(self, answer: Awaitable[T], what: str) -> T:
        """The answer of one queue call within the bound. RedisAwayError when there is none."""
        try:
            async with asyncio.timeout(PART_SECONDS):
                return await answer
        except REDIS_AWAY as error:
            reason = {"asked": what, "reason": type(error).__name__}
            logger.warning("redis.unreachable", extra={"fields": reason})
            raise RedisAwayError(f"Redis did not answer ({what}); the job is safe, ask again") from error

    async def ask_durable(self, answer: Awaitable[T], what: str, *, unused: T) -> T:
        """As `ask` of the queue in Redis; `unused` when Redis is away but was never in use here.

        Then what this process does not know does not exist.
        """
        try:
            found = await self.ask(answer, what)
        except RedisAwayError:
            if durable_selected() or self._redis_seen:
                raise
            return unused
        self._redis_seen = True
        return found

    async def submit(self, new: NewJob) -> tuple[Submitted, str]:
        """Accept a job where the flag says, or here when Redis is away (spec A2); and which place took it.

        BackgroundFullError when this process has no room.
        """
        job_id = job_id_for(queue=self.settings.queue_name, user_id=new.user_id, key=new.key)
        if durable_selected():
            earlier = await self._find_here(job_id)
            if earlier is not None and not earlier.state.terminal:
                # Taken here while Redis was away, and still at work here.
                return Submitted(job_id, earlier.state, duplicate=True), "background"
            try:
                submitted = await self.ask(self.queues["durable"].submit(new), "submit")
            except RedisAwayError:
                logger.warning("job.fell_back", extra={"fields": {"job_id": job_id, "mode": "background"}})
            else:
                self._redis_seen = True
                return submitted, "durable"
        self._background_used = True
        return await self.background.submit(new), "background"

    async def find(self, job_id: str, *, user_id: str) -> JobView:
        """The job of this user. Problem 404: there is none, or it is another's; RedisAwayError."""
        view = None
        if re.fullmatch(JOB_ID, job_id):
            view = await self._find_queued(job_id) or await self._find_committed(job_id)
        if view is None or view.user_id != user_id:
            # The same for a job that never was, has been forgotten, or is another user's.
            raise Problem("job-not-found", f"no job {job_id[:80]!r} of this user is known; check the id")
        return view

    async def roll_back(self, job_id: str, *, by: str) -> RollbackResult:
        """Undo the effect of an ended job in SQL. UnavailableError: it may be undone all the same."""

        def undo() -> RollbackResult:
            self.store.create_schema()
            return self.store.rollback(job_id, by=by, window_seconds=self.settings.rollback_seconds)

        return await self._ask_store(undo, seconds=ROLLBACK_SECONDS)

    async def _ask_store(self, work: Callable[[], T], *, seconds: float = PART_SECONDS) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.to_thread(work)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            logger.warning("store.unreachable", extra={"fields": {"reason": type(error).__name__}})
            raise UnavailableError("SQL did not answer; ask again, a repeat is safe") from error

    async def _find_here(self, job_id: str) -> JobView | None:
        # Asking costs as much as the rest of a request; most processes never have a job of their own.
        return await self.background.queue.get(job_id) if self._background_used else None

    async def _find_queued(self, job_id: str) -> JobView | None:
        here = await self._find_here(job_id)
        if here is not None and (not here.state.terminal or here.state is JobState.DONE):
            return here
        # A run here that failed may have been followed by a durable one of the same work.
        try:
            return await self.ask_durable(self.queues["durable"].get(job_id), "get", unused=None) or here
        except RedisAwayError:
            if here is None:
                raise
            return here

    async def _find_committed(self, job_id: str) -> JobView | None:
        """What SQL still tells about a job whose record has expired; its times are not known any more."""
        try:
            row = await self._ask_store(lambda: self.store.committed(job_id))
        except UnavailableError:
            return None
        if row is None:
            return None
        cost_usd = row.token_count * self.settings.embedding.price_per_million_tokens / 1_000_000
        kept: dict[str, Any] = {name: getattr(row, name) for name in JobView.__slots__ if hasattr(row, name)}
        return JobView(
            **kept,
            state=JobState.DONE,
            priority=Priority.NORMAL,
            attempt=0,
            deliveries=0,
            created_ms=0,
            finished_ms=None,
            figures=Figures(row.words, row.chunk_count, row.token_count, cost_usd),
            error=None,
            history=(),
            request_id="",
            trace_id="",
            correlation_id="",
        )
