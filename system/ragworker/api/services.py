"""Everything that the routes share for the life of one API process, and where a job is looked for.

A job is in one of three places: this process' background registry, the queue in Redis, or, when its record
there has expired, the documents in SQL. They are asked in this order. Every wait for Redis or SQL here has
a bound.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from ragworker.api.auth import Authenticator
from ragworker.api.context import durable_selected
from ragworker.api.events import EventHub
from ragworker.api.problems import Problem
from ragworker.api.uploads import UploadReader
from ragworker.background import BackgroundRunner
from ragworker.job import Figures, JobState, JobView, NewJob, Priority, Submitted, job_id_for
from ragworker.logs import get_logger
from ragworker.queue import Queue, UnknownJobError, connect
from ragworker.settings import FlagSource, Settings
from ragworker.store import DocumentRow, Store
from ragworker.telemetry import ProcessFigures

logger = get_logger(__name__)
T = TypeVar("T")

#: How long a request waits for Redis or SQL before it goes on without (spec A2, H6).
PART_SECONDS: Final = 1.0

#: Event streams open in one process: each holds a connection, and descriptors are finite.
MAX_STREAMS: Final = 2_000

#: What a job's id looks like; anything else is unknown without asking anybody.
_JOB_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,80}")

#: What a caller is told to wait when a part is away.
RETRY_AFTER: Final = {"Retry-After": "2"}

#: What Redis being away looks like from here.
REDIS_AWAY: Final = (RedisError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission and the place that took it: `durable` or `background`."""

    submitted: Submitted
    mode: str


class RedisAwayError(Exception):
    """Redis did not answer in time; the message says what was asked."""


class Services:
    """The parts of one API process. `start` inside its event loop, `close` at the end."""

    def __init__(self, settings: Settings, *, flag: FlagSource | None = None) -> None:
        self.settings = settings
        self.figures = ProcessFigures()
        self.authenticator = Authenticator(
            secret=settings.jwt_secret, audience=settings.jwt_audience, issuer=settings.jwt_issuer
        )
        self.uploads = UploadReader(max_bytes=settings.max_upload_bytes)
        self._flag = flag
        self._flag_warning: str | None = None
        self._redis = connect(settings.redis_url)
        self.queue = Queue(self._redis, name=settings.queue_name, settings=settings.queue)
        self.background = BackgroundRunner(settings)
        self.store = Store(settings.database_url)
        self.queue_events = EventHub(self.queue)
        self.background_events = EventHub(self.background)
        #: Whether Redis ever answered: only then can a job be there that we cannot see now.
        self.redis_seen = False
        self._streams = 0

    async def start(self) -> None:
        """Start the background runner; Redis and SQL are opened at first use."""
        await self.background.start()

    def end_streams(self) -> None:
        """Let the open event streams end in order; the server is going down."""
        self.queue_events.end_streams()
        self.background_events.end_streams()

    async def close(self) -> None:
        """Stop what runs, close what is open."""
        await self.queue_events.close()
        await self.background_events.close()
        await self.background.close()
        await self._redis.aclose()
        await asyncio.to_thread(self.store.close)

    def check_room_for_stream(self) -> None:
        """Problem 503 when this process has as many event streams open as it may."""
        if self._streams >= MAX_STREAMS:
            detail = f"{MAX_STREAMS} event streams are open in this process; try again, or ask GET /rag/jobs/{{id}}"
            raise Problem("unavailable", detail, headers=RETRY_AFTER)

    def count_stream(self, change: int) -> None:
        """Note that an event stream opened (+1) or ended (-1)."""
        self._streams += change
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

    async def ask_redis(self, question: Callable[[], Awaitable[T]], *, what: str) -> T:
        """The answer of one queue call within the bound. RedisAwayError when there is none."""
        try:
            async with asyncio.timeout(PART_SECONDS):
                answer = await question()
        except REDIS_AWAY as error:
            reason = {"asked": what, "reason": type(error).__name__}
            logger.warning("redis.unreachable", extra={"fields": reason})
            raise RedisAwayError(what) from error
        self.redis_seen = True
        return answer

    async def submit(self, new: NewJob) -> Accepted:
        """Hand a job to the place that the flag selects; to the background when Redis is away (spec A2)."""
        if durable_selected():
            job_id = job_id_for(queue=self.settings.queue_name, user_id=new.user_id, key=new.key)
            earlier = await self.background.get(job_id)
            if earlier is not None and not earlier.state.terminal:
                # Taken while Redis was away, and still at work here.
                return Accepted(Submitted(job_id, earlier.state, duplicate=True), "background")
            try:
                return Accepted(
                    await self.ask_redis(lambda: self.queue.submit(new), what="submit"), "durable"
                )
            except RedisAwayError:
                logger.warning("job.fell_back", extra={"fields": {"job_id": job_id, "mode": "background"}})
        return Accepted(await self.background.submit(new), "background")

    async def find(self, job_id: str, *, user_id: str) -> JobView:
        """The job of this user. Problem: 404 for none or another's, 503 when it cannot be known."""
        here = await self.background.get(job_id)
        # A run here that failed may have been followed by a durable one of the same work.
        settled = here is not None and (not here.state.terminal or here.state is JobState.DONE)
        view = here if settled else await self._find_durable(job_id, else_known=here is not None) or here
        if view is None:
            view = await self._find_committed(job_id)
        if view is None or view.user_id != user_id:
            raise job_not_found(job_id)
        return view

    async def request_cancel(self, view: JobView, *, reason: str, by: str) -> JobState:
        """Ask for the end of a job where it lives; its state afterwards. Problem: 404, 503."""
        try:
            if view.mode == "background":
                return await self.background.cancel(view.job_id, reason=reason, by=by)
            return await self.ask_redis(
                lambda: self.queue.request_cancel(view.job_id, reason=reason, by=by), what="cancel"
            )
        except UnknownJobError:
            raise job_not_found(view.job_id) from None
        except RedisAwayError as error:
            raise redis_away(str(error)) from None

    async def _find_durable(self, job_id: str, *, else_known: bool) -> JobView | None:
        try:
            return await self.ask_redis(lambda: self.queue.get(job_id), what="get")
        except RedisAwayError as error:
            if not else_known and (durable_selected() or self.redis_seen):
                raise redis_away(str(error)) from None
            # The durable worker was never in use here: what this process does not know, does not exist.
            return None

    async def _find_committed(self, job_id: str) -> JobView | None:
        """What SQL still tells about a job whose record has expired; its times are not known any more."""
        try:
            async with asyncio.timeout(PART_SECONDS):
                row = await asyncio.to_thread(self.store.committed, job_id)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            logger.warning("store.unreachable", extra={"fields": {"reason": type(error).__name__}})
            return None
        return None if row is None else self._committed_view(row)

    def _committed_view(self, row: DocumentRow) -> JobView:
        cost_usd = row.token_count * self.settings.embedding.price_per_million_tokens / 1_000_000
        return JobView(
            job_id=row.job_id,
            state=JobState.DONE,
            name=row.name,
            media_type=row.media_type,
            bytes=row.bytes,
            sha256=row.sha256,
            priority=Priority.NORMAL,
            attempt=0,
            deliveries=0,
            created_ms=0,
            finished_ms=None,
            figures=Figures(
                words=row.words, chunks=row.chunk_count, tokens=row.token_count, cost_usd=cost_usd
            ),
            error=None,
            history=(),
            request_id="",
            trace_id="",
            correlation_id="",
            user_id=row.user_id,
        )


def check_job_id(job_id: str) -> None:
    """Problem 404 when no job can have this id: it goes no further, into no log line and no database."""
    if not _JOB_ID.fullmatch(job_id):
        raise job_not_found(job_id)


def job_not_found(job_id: str) -> Problem:
    """404, the same for a job that never was, has been forgotten, or is another user's."""
    return Problem(
        "job-not-found", f"no job {job_id[:80]!r} is known to this queue for this user; check the id"
    )


def redis_away(what: str) -> Problem:
    """503 with the time after which to try again."""
    return Problem(
        "unavailable",
        f"Redis did not answer ({what}); the job itself is safe, ask again",
        headers=RETRY_AFTER,
    )
