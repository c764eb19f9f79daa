"""Show a job's progress as server-sent events: a snapshot, then what follows, until the job ends.

Three facts shape this file.
- Redis pub/sub delivers at most once, so it is only a wake-up: what a client gets is read from the job's own
  events in Redis, after the last one that this client has. Nothing published is lost to a client, least of all
  the end; a lost wake-up costs `RESYNC_SECONDS`.
- One process has one pub/sub reader for all its clients (`EventHub`). It sets a flag per client and waits for
  none, so a slow client cannot hold up the others or make a queue grow.
- Event ids are places among the job's events, so that `Last-Event-ID` resumes exactly there
  (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Final

from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse, ServerSentEvent

from ragworker.job import Event, EventKind, JobView
from ragworker.logs import get_logger
from ragworker.queue import Queue

logger = get_logger(__name__)

#: A client whose wake-up was lost is served after this time at the latest.
RESYNC_SECONDS: Final = 5.0

#: Proxies cut connections that are silent for 30 to 60 s.
HEARTBEAT_SECONDS: Final = 15

#: A client that takes no byte for this long has vanished; its connection is given up.
SEND_SECONDS: Final = 30.0

#: The reader of Redis waits this long before it subscribes again.
RESUBSCRIBE_SECONDS: Final = 0.5

_EVENT_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")

_AWAY: Final = (RedisError, OSError, TimeoutError)


class EventHub:
    """Wakes the listeners of a job when the one reader of this process hears of it."""

    def __init__(self, source: Queue) -> None:
        self.source = source
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._reader: asyncio.Task[None] | None = None
        #: Set when the server goes down: streams end in order, and clients come back with Last-Event-ID.
        self.stopping = False

    @contextmanager
    def listen(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever there may be news of the job."""
        if self._reader is None or self._reader.done():
            # Started by the first listener, so that an API without listeners needs no Redis.
            self._reader = asyncio.create_task(self._read(), name="event-hub")
        news = asyncio.Event()
        listeners = self._listeners.setdefault(job_id, set())
        listeners.add(news)
        try:
            yield news
        finally:
            listeners.discard(news)
            if not listeners:
                self._listeners.pop(job_id, None)

    def end_streams(self) -> None:
        """Let every stream end after what it has sent."""
        self.stopping = True
        self._wake(*self._listeners)

    async def close(self) -> None:
        """Stop the reader."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    async def _read(self) -> None:
        while True:
            try:
                async for job_id in self.source.subscribe():
                    self._wake(job_id)
            except _AWAY as error:
                logger.warning("events.reader_lost", extra={"fields": {"reason": type(error).__name__}})
            # What was published in the gap woke nobody: everybody looks for himself.
            self._wake(*self._listeners)
            await asyncio.sleep(RESUBSCRIBE_SECONDS)

    def _wake(self, *job_ids: str) -> None:
        for job_id in job_ids:
            for news in self._listeners.get(job_id, ()):
                news.set()


def resumable_id(header: str | None) -> str | None:
    """The Last-Event-ID of a request when it can be one of ours, else None."""
    return header if header and _EVENT_ID.fullmatch(header) else None


def event_stream(
    hub: EventHub, view: JobView, *, after: str | None, count: Callable[[int], None]
) -> EventSourceResponse:
    """The answer that streams a job's events; `count` is told +1 when it opens and -1 when the client is gone."""

    async def counted() -> AsyncIterator[ServerSentEvent]:
        count(+1)
        try:
            async with aclosing(messages(hub, view, after=after)) as found:
                async for event in found:
                    yield _sent(event)
        finally:
            count(-1)

    return EventSourceResponse(
        counted(),
        ping=HEARTBEAT_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
        send_timeout=SEND_SECONDS,
        sep="\n",
    )


async def messages(hub: EventHub, view: JobView, *, after: str | None) -> AsyncGenerator[Event, None]:
    """What a client gets: a snapshot unless it resumes, then every kept event once, `end` last."""
    position, heard = after, False
    with hub.listen(view.job_id) as news:
        # Listening begins before the first read, so nothing falls between the two.
        while not hub.stopping:
            news.clear()
            now, kept, away = await _looked(hub.source, view, position or "0", news_only=heard)
            if position is None:
                first = kept[-1] if kept else _end(now or view, "")
                yield replace(first, kind=EventKind.STATE)
                if first.state.terminal:
                    yield replace(first, kind=EventKind.END)
                    return
                position, kept = first.event_id or "0", []
            elif not (kept or away or heard) and (now is None or now.state.terminal):
                # Its last event is not to be had: seen already, expired or purged.
                yield _end(now or view, position if position != "0" and now else "")
                return
            for event in kept:
                position = event.event_id
                yield event
                if event.kind is EventKind.END:
                    return
            heard = await _heard(news) and not away


async def _looked(
    source: Queue, view: JobView, after: str, *, news_only: bool
) -> tuple[JobView | None, list[Event], bool]:
    """The job as it is (as it was, for news alone), the events after `after`, and whether Redis is away.

    The job first: what had ended by then has its end among the events read after it. While Redis is away the
    client keeps its stream and its heartbeats, and misses nothing.
    """
    try:
        now = view if news_only else await source.get(view.job_id)
        return now, await source.events(view.job_id, after=after), False
    except _AWAY:
        return view, [], True


async def _heard(news: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(RESYNC_SECONDS):
            return await news.wait()
    except TimeoutError:
        return False


def _end(view: JobView, event_id: str) -> Event:
    at_ms = view.finished_ms if view.finished_ms is not None else view.created_ms
    return Event(view.job_id, event_id, EventKind.END, view.state, at_ms)


def _sent(event: Event) -> ServerSentEvent:
    """The event as it goes out; without an id where there is no place to resume from."""
    fields = {name: getattr(event, name) for name in ("job_id", "state", "at_ms", "stage", "done", "total")}
    data = json.dumps({name: value for name, value in fields.items() if value is not None})
    return ServerSentEvent(data, event=event.kind.value, id=event.event_id or None, sep="\n")
