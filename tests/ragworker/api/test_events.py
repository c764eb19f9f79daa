"""Event streams: a snapshot, resumption at the exact place, always the end, and a true count of open streams."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from api_process import Api, wait_until

from ragworker.api import events as module
from ragworker.api.events import RESYNC_SECONDS, EventHub, messages, resumable_id
from ragworker.job import Event, EventKind, Figures, JobState, JobView, OutcomeKind, Priority

Sent = tuple[str, str, dict[str, object]]


def sent_by(lines: Iterator[str]) -> Iterator[Sent]:
    """(event, id, data) of each event in a stream, comments left out."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and fields:
            yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
            fields = {}
        elif name:
            fields[name] = value


@contextmanager
def opened(api: Api, job_id: str, *, after: str | None = None) -> Iterator[Iterator[Sent]]:
    headers = {} if after is None else {"Last-Event-ID": after}
    with api.client.stream("GET", f"/rag/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield sent_by(answer.iter_lines())


def test_stream_shows_snapshot_progress_and_end(api: Api) -> None:
    """A listener gets the present state first, then each event once, and the stream closes after `end`."""
    job_id = api.submit("a text to watch", priority="high").json()["job_id"]
    with opened(api, job_id) as stream:
        kind, _, data = next(stream)
        assert (kind, data["job_id"], data["state"]) == ("state", job_id, "queued")
        job = api.claim()
        api.on_queue(lambda queue: queue.progress(job_id, "embed", 1, 3))
        api.settle(job, OutcomeKind.DONE)
        rest = list(stream)
    assert [(kind, data["state"]) for kind, _, data in rest] == [
        ("state", "running"),
        ("progress", "running"),
        ("state", "done"),
        ("end", "done"),
    ]
    assert (rest[1][2]["stage"], rest[1][2]["done"], rest[1][2]["total"]) == ("embed", 1, 3)
    assert len({event_id for _, event_id, _ in rest}) == 4


def test_stream_resumes_exactly_after_the_last_event(api: Api) -> None:
    """With Last-Event-ID only later events come, each once, of progress the newest; the reconnection is counted."""
    job_id = api.submit("a text to watch twice", priority="high").json()["job_id"]
    job = api.claim()
    api.on_queue(lambda queue: queue.progress(job_id, "embed", 1, 2))
    with opened(api, job_id, after="0-1") as stream:
        seen = [next(stream) for _ in range(3)]
    api.on_queue(lambda queue: queue.progress(job_id, "embed", 2, 2))
    api.settle(job, OutcomeKind.DONE)
    before = api.metric("sse_reconnect_count")
    with opened(api, job_id, after=seen[1][1]) as stream:
        rest = list(stream)
    assert [(kind, data["state"], data.get("done")) for kind, _, data in seen] == [
        ("state", "queued", None),
        ("state", "running", None),
        ("progress", "running", 1),
    ]
    assert [(kind, data["state"], data.get("done")) for kind, _, data in rest] == [
        ("progress", "running", 2),
        ("state", "done", None),
        ("end", "done", None),
    ]
    assert api.metric("sse_reconnect_count") == before + 1
    started = time.monotonic()
    with opened(api, job_id, after=rest[-1][1]) as stream:
        assert [kind for kind, _, _ in stream] == ["end"]
    assert time.monotonic() - started < RESYNC_SECONDS / 2, "who has seen the end is told so at once"


def test_ended_job_answers_snapshot_and_end(api: Api) -> None:
    """A job that has ended gives its state and `end`, and closes."""
    job_id = api.submit("a text that ended", priority="high").json()["job_id"]
    api.settle(api.claim(), OutcomeKind.DONE)
    with opened(api, job_id) as stream:
        assert [(kind, data["state"]) for kind, _, data in stream] == [("state", "done"), ("end", "done")]


def test_many_listeners_all_see_the_end(api: Api) -> None:
    """Several listeners of one job, served by one reader, each get the end."""
    job_id = api.submit("a text with an audience", priority="high").json()["job_id"]
    with opened(api, job_id) as one, opened(api, job_id) as two, opened(api, job_id) as three:
        for stream in (one, two, three):
            next(stream)
        assert api.metric("sse_connections_open") == 3
        assert api.client.post(f"/rag/jobs/{job_id}/cancel", json={"reason": "enough"}).status_code == 202
        assert [list(stream)[-1][2]["state"] for stream in (one, two, three)] == ["cancelled"] * 3
    wait_until(lambda: api.metric("sse_connections_open") == 0, seconds=5, what="no stream is open")


def test_vanished_client_is_not_counted_as_open(api: Api) -> None:
    """A client that hangs up without a word is noticed, and the gauge goes back to 0."""
    job_id = api.submit("a text nobody waits for").json()["job_id"]
    address = urlsplit(str(api.client.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        raw.sendall(f"GET /rag/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: api.metric("sse_connections_open") == 1, seconds=5, what="the stream is open")
    wait_until(lambda: api.metric("sse_connections_open") == 0, seconds=5, what="the stream is closed")


def test_malformed_last_event_id_is_a_fresh_start(api: Api) -> None:
    """A Last-Event-ID that cannot be ours starts with the snapshot, and is no error."""
    assert resumable_id("17-0") == "17-0"
    assert [resumable_id(text) for text in (None, "", "x", "1-", "+", "1-0\n", "9" * 40 + "-0")] == [None] * 7
    job_id = api.submit("a text with a strange listener").json()["job_id"]
    with opened(api, job_id, after="garbage") as stream:
        assert next(stream)[2]["state"] == "queued"


# Below: the logic of a stream alone, against a source that misbehaves on purpose.

VIEW = JobView(
    job_id="job-1", state=JobState.QUEUED, name="n", media_type="text/plain", bytes=1, sha256="",
    priority=Priority.NORMAL, attempt=1, deliveries=1, created_ms=5, finished_ms=None, figures=Figures(), error=None,
    history=(), request_id="", trace_id="", correlation_id="", user_id="anonymous",
)  # fmt: skip


class Source:
    """Kept events, and a subscription that says only what the test publishes; `away` makes every read fail."""

    def __init__(self) -> None:
        self.kept: list[Event] = []
        self.view: JobView | None = VIEW
        self.away = False
        self.published: asyncio.Queue[str] = asyncio.Queue()

    def happen(self, kind: EventKind, state: JobState, *, publish: bool) -> None:
        event = Event("job-1", f"{len(self.kept) + 1}-0", kind, state, at_ms=len(self.kept))
        self.kept.append(event)
        self.view = replace(VIEW, state=state)
        if publish:
            self.published.put_nowait(event.job_id)

    async def get(self, job_id: str) -> JobView | None:
        self._check()
        return self.view

    async def events(self, job_id: str, *, after: str = "0") -> list[Event]:
        self._check()
        seen = int(after.partition("-")[0])
        return [event for event in self.kept if int(event.event_id.partition("-")[0]) > seen]

    async def subscribe(self) -> AsyncIterator[str]:
        self._check()
        while True:
            yield await self.published.get()

    def _check(self) -> None:
        if self.away:
            raise ConnectionError("away")


@pytest.fixture(autouse=True)
def _quick_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESYNC_SECONDS", 0.1)
    monkeypatch.setattr(module, "RESUBSCRIBE_SECONDS", 0.02)


async def all_messages(source: Source, *, meanwhile: AsyncIterator[None] | None = None) -> list[Event]:
    hub = EventHub(source)
    found = []
    try:
        async with asyncio.timeout(5), aclosing(messages(hub, VIEW, after=None)) as stream:
            async for message in stream:
                found.append(message)
                if meanwhile is not None:
                    await anext(meanwhile, None)
    finally:
        await hub.close()
    return found


def shown(found: list[Event]) -> list[tuple[str, object]]:
    return [(message.kind.value, message.state.value) for message in found]


def test_end_arrives_although_no_wake_up_did() -> None:
    """When pub/sub says nothing at all, a listener still gets every event, the end included."""
    source = Source()

    async def acts() -> AsyncIterator[None]:
        source.happen(EventKind.STATE, JobState.RUNNING, publish=False)
        source.happen(EventKind.END, JobState.DONE, publish=False)
        yield

    found = asyncio.run(all_messages(source, meanwhile=acts()))
    assert shown(found) == [
        ("state", "queued"),
        ("state", "running"),
        ("end", "done"),
    ]


def test_end_arrives_after_redis_was_away() -> None:
    """Redis going away in the middle of a stream costs time, not events."""
    source = Source()

    async def acts() -> AsyncIterator[None]:
        source.away = True
        source.happen(EventKind.END, JobState.DONE, publish=False)
        asyncio.get_running_loop().call_later(0.2, setattr, source, "away", False)
        yield

    found = asyncio.run(all_messages(source, meanwhile=acts()))
    assert shown(found) == [("state", "queued"), ("end", "done")]


def test_end_is_told_when_its_event_has_expired() -> None:
    """A job whose events are gone but that has ended closes its listeners with its state."""
    source = Source()
    source.view = replace(VIEW, state=JobState.DEAD, finished_ms=9)
    found = asyncio.run(all_messages(source))
    assert [(m.kind.value, m.state.value, m.event_id) for m in found] == [
        ("state", "dead", ""),
        ("end", "dead", ""),
    ]


def test_end_is_told_when_a_job_vanishes_while_it_is_watched() -> None:
    """A job that ends or is purged without an event that can still be read closes its listeners all the same."""

    async def acts(source: Source, view: JobView | None) -> AsyncIterator[None]:
        # Later than the first look at the source, so that only a later look can find it.
        asyncio.get_running_loop().call_later(0.05, setattr, source, "view", view)
        yield

    ended, purged = Source(), Source()
    found = asyncio.run(all_messages(ended, meanwhile=acts(ended, replace(VIEW, state=JobState.DONE))))
    assert shown(found) == [("state", "queued"), ("end", "done")]
    found = asyncio.run(all_messages(purged, meanwhile=acts(purged, None)))
    assert [message.kind.value for message in found] == ["state", "end"]
