"""Show a job's progress as server-sent events: a snapshot, then what follows, until the job ends.

Three facts shape this file.
- Redis pub/sub delivers at most once, so it is only a wake-up: what a client gets is read from the job's
stream in
  Redis, after the last event that this client has. Nothing published is lost to a client, least of all the
  end; a lost wake-up costs `RESYNC_SECONDS`.
- One process has one pub/sub reader for all its clients (`EventHub`). It sets a flag per client and waits
for none, so
  a slow client cannot hold up the others or make a queue grow.
- Event ids are places in the stream, so that `Last-Event-ID` resumes exactly there
  (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse, ServerSentEvent

from ragworker.job import Event, EventKind, JobState, JobView
from ragworker.logs import get_logger

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


class EventSource(Protocol):
    """Where events come from: the queue, or the background runner."""

    async def get(self, job_id: str) -> JobView | None:
        """The job as it is now."""
        ...

    async def events(self, job_id: str, *, after: str = "0") -> list[Event]:
        """The kept events that follow the event id `after`, oldest first."""
        ...

    def subscribe(self) -> AsyncIterator[Event]:
        """Events of all jobs as they happen."""
        ...


class EventHub:
    """Wakes the listeners of a job when the one reader of this process hears of it."""

    def __init__(self, source: EventSource) -> None:
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
        self._listeners.setdefault(job_id, set()).add(news)
        try:
            yield news
        finally:
            listeners = self._listeners[job_id]
            listeners.discard(news)
            if not listeners:
                del self._listeners[job_id]

    def end_streams(self) -> None:
        """Let every stream end after what it has sent."""
        self.stopping = True
        self._wake_all()

    async def close(self) -> None:
        """Stop the reader."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    async def _read(self) -> None:
        while True:
            try:
                async for event in self.source.subscribe():
                    for news in self._listeners.get(event.job_id, ()):
                        news.set()
            except _AWAY as error:
                logger.warning("events.reader_lost", extra={"fields": {"reason": type(error).__name__}})
            # What was published in the gap woke nobody: everybody looks for himself.
            self._wake_all()
            await asyncio.sleep(RESUBSCRIBE_SECONDS)

    def _wake_all(self) -> None:
        for listeners in self._listeners.values():
            for news in listeners:
                news.set()


@dataclass(frozen=True, slots=True)
class Message:
    """One event on its way to one client; without an id where there is no place in a stream to resume from."""

    kind: EventKind
    event_id: str | None
    data: dict[str, str | int]


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
                async for message in found:
                    yield ServerSentEvent(
                        json.dumps(message.data), event=message.kind.value, id=message.event_id, sep="\n"
                    )
        finally:
            count(-1)

    return EventSourceResponse(
        counted(),
        ping=HEARTBEAT_SECONDS,
        ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
        send_timeout=SEND_SECONDS,
        sep="\n",
    )


async def messages(hub: EventHub, view: JobView, *, after: str | None) -> AsyncGenerator[Message, None]:
    """What a client gets: a snapshot unless it resumes, then every kept event once, `end` last."""
    with hub.listen(view.job_id) as news:
        # Listening begins before the first read, so nothing falls between the two.
        position = after
        if position is None:
            snapshot = await _snapshot(hub.source, view)
            yield snapshot
            if JobState(str(snapshot.data["state"])).terminal:
                yield replace(snapshot, kind=EventKind.END)
                return
            position = snapshot.event_id or "0"
        async with aclosing(_following(hub, view, position, news)) as following:
            async for message in following:
                yield message


async def _following(
    hub: EventHub, view: JobView, position: str, news: asyncio.Event
) -> AsyncGenerator[Message, None]:
    source, heard = hub.source, False
    while not hub.stopping:
        news.clear()
        try:
            for event in await source.events(view.job_id, after=position):
                position = event.event_id
                yield _message(event)
                if event.kind is EventKind.END:
                    return
            ending = None if heard else await _silent_end(source, view, position)
        except _AWAY:
            # Redis is away: the client keeps its stream and its heartbeats, and misses nothing.
            ending = None
            await asyncio.sleep(RESUBSCRIBE_SECONDS)
        if ending is not None:
            yield ending
            return
        heard = await _heard(news)


async def _heard(news: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(RESYNC_SECONDS):
            await news.wait()
    except TimeoutError:
        return False
    return True


async def _snapshot(source: EventSource, view: JobView) -> Message:
    """The state now, with the place from which to go on; what was known at the start when Redis is away."""
    try:
        kept = await source.events(view.job_id)
        now = view if kept else await source.get(view.job_id) or view
    except _AWAY:
        kept, now = [], view
    if kept:
        return replace(_message(kept[-1]), kind=EventKind.STATE)
    return _state_message(now, EventKind.STATE, None)


async def _silent_end(source: EventSource, view: JobView, position: str) -> Message | None:
    """The end of a job whose last event is not to be had: seen already, expired or purged."""
    now = await source.get(view.job_id)
    if now is None:
        return _state_message(view, EventKind.END, None)
    if not now.state.terminal or await source.events(view.job_id, after=position):
        return None
    return _state_message(now, EventKind.END, position if position != "0" else None)


def _message(event: Event) -> Message:
    data: dict[str, str | int] = {"job_id": event.job_id, "state": event.state.value, "at_ms": event.at_ms}
    for name, value in (("stage", event.stage), ("done", event.done), ("total", event.total)):
        if value is not None:
            data[name] = value
    return Message(event.kind, event.event_id, data)


def _state_message(view: JobView, kind: EventKind, event_id: str | None) -> Message:
    at_ms = view.finished_ms if view.finished_ms is not None else view.created_ms
    return Message(kind, event_id, {"job_id": view.job_id, "state": view.state.value, "at_ms": at_ms})
