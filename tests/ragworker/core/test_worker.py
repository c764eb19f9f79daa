"""A whole worker and its jobs: what is committed, retried, cancelled, given up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from core_parts import (
    EmbeddingServer,
    Lane,
    RedisServer,
    ended,
    make_lane,
    new_job,
    submit,
    text_of,
    wait_until,
)

from ragworker.connection import connect
from ragworker.handler import RagHandler
from ragworker.job import EventKind, JobState
from ragworker.queue import Queue
from ragworker.worker import Worker

pytestmark = pytest.mark.anyio


async def test_documents_are_committed_as_the_rule_says(
    lane: Lane, lane_queue: Queue, start: list[Worker]
) -> None:
    """Chunks, vectors, tokens, events, figures and logs of a document are those of the public rule."""
    job_id = (await lane_queue.submit(new_job(payload=text_of(6000)))).job_id
    view = (await ended(lane_queue, [job_id]))[job_id]
    assert view.state is JobState.DONE
    assert (view.figures.words, view.figures.chunks, view.figures.tokens) == (6000, 40, 39 * 234 + 195)
    assert view.figures.cost_usd == pytest.approx(view.figures.tokens * 0.02e-6)
    rows = lane.rows("select ordinal, text, token_count from chunks order by ordinal")
    assert [row[0] for row in rows] == list(range(40))
    assert rows[1][1] == " ".join(f"w{number}" for number in range(150, 330))
    assert lane.rows("select count(*), min(dimensions), sum(length(embedding)) from vectors") == [
        (40, 3, 480)
    ]
    assert lane.rows("select job_id, worker from commit_log") == [(job_id, start[0].id)]
    assert sorted(len(inputs) for _, inputs in lane.embedding.requests) == [8, 32]
    events = await lane_queue.events(job_id)
    assert [(e.stage, e.done, e.total) for e in events if e.kind is EventKind.PROGRESS] == [("embed", 2, 2)]
    assert [e.kind for e in events].index(EventKind.END) == len(events) - 1
    assert list(lane.settings.temp_dir.iterdir()) == []


async def test_concurrency_and_rate_hold_over_jobs(
    tmp_path: Path, redis_server: RedisServer, embedding: EmbeddingServer
) -> None:
    """Two worker processes: never more than 3 requests of each in flight, never more than 20 in any second."""
    limits = {"RAG_EMBEDDING_RATE_LIMIT": "20", "RAG_EMBEDDING_RATE_WINDOW_SECONDS": "1"}
    lane = make_lane(tmp_path, redis_server.url, embedding, **limits, RAG_EMBEDDING_BATCH_SIZE="1")
    embedding.delay_seconds = 0.02
    client = connect(redis_server.url)
    queue = Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)
    try:
        ids = await submit(queue, 10, words=600)
        for _ in range(2):
            lane.start_worker()
        views = await ended(queue, ids)
        assert {view.state for view in views.values()} == {JobState.DONE}
    finally:
        lane.stop()
        await client.aclose()
    moments = sorted(at for at, _ in embedding.requests)
    assert len(moments) == 40
    assert embedding.most_in_flight <= 6
    assert all(later - first > 1.0 for first, later in zip(moments, moments[20:], strict=False))


async def test_cancelled_job_stops_and_leaves_nothing(
    lane: Lane, lane_queue: Queue, start: list[Worker]
) -> None:
    """A job cancelled in the middle of a request ends within seconds; nothing of it is in SQL; the slot is free."""
    lane.embedding.delay_seconds = 8.0
    (job_id,) = await submit(lane_queue, 1)

    async def asked() -> bool:
        return bool(lane.embedding.requests)

    await wait_until(asked, what="the job to wait for its vectors")
    assert await lane_queue.request_cancel(job_id, reason="no longer wanted", by="user-1") is JobState.RUNNING
    view = (await ended(lane_queue, [job_id], seconds=4))[job_id]
    assert view.state is JobState.CANCELLED
    assert lane.rows("select count(*) from documents") == [(0,)]
    lane.embedding.delay_seconds = 0.0
    (other,) = [(await lane_queue.submit(new_job("other"))).job_id]
    assert (await ended(lane_queue, [other]))[other].state is JobState.DONE


async def test_failing_api_is_retried_by_the_table_then_given_up(
    lane: Lane, lane_queue: Queue, start: list[Worker]
) -> None:
    """5xx: four retries after 10, 50, 250, 1250 ms (base 0.01 s), then a dead letter; requeued it succeeds."""
    lane.embedding.answer = lambda _: (500, {}, {})
    (job_id,) = await submit(lane_queue, 1)
    view = (await ended(lane_queue, [job_id]))[job_id]
    assert (view.state, view.attempt) == (JobState.DEAD, 5)
    assert view.error is not None
    assert view.error.code == "EMBEDDING_SERVER_ERROR"
    waits = [entry.delay_ms for entry in view.history if entry.event == "retry_scheduled"]
    assert waits == [10, 50, 250, 1250]
    claims = [entry.at_ms for entry in view.history if entry.event == "claimed"]
    scheduled = [entry.at_ms for entry in view.history if entry.event == "retry_scheduled"]
    lateness = [
        claim - at - wait
        for claim, at, wait in zip(claims[1:], scheduled, waits, strict=True)
        if wait is not None
    ]
    assert all(0 <= late < 1000 for late in lateness), lateness
    stats = (await lane_queue.gauges()).stats
    assert (stats["retried"], stats["dead"], stats["failed:EMBEDDING_SERVER_ERROR"]) == (4, 1, 5)
    lane.embedding.answer = lane.embedding.vectors
    assert await lane_queue.requeue(job_id)
    assert (await ended(lane_queue, [job_id]))[job_id].state is JobState.DONE


async def test_rate_limited_answer_is_retried_when_it_says(
    lane: Lane, lane_queue: Queue, start: list[Worker]
) -> None:
    """429 with Retry-After 0.2: the next attempt comes then, not after the table's delay."""
    answers = [(429, {"Retry-After": "0.2"}, {})]
    lane.embedding.answer = lambda inputs: answers.pop() if answers else lane.embedding.vectors(inputs)
    (job_id,) = await submit(lane_queue, 1)
    view = (await ended(lane_queue, [job_id]))[job_id]
    assert view.state is JobState.DONE
    assert [(e.code, e.delay_ms) for e in view.history if e.event == "retry_scheduled"] == [
        ("RATE_LIMITED", 200)
    ]

    async def counted() -> bool:
        return (await lane_queue.gauges()).stats.get("rate_limited") == 1

    await wait_until(counted, what="the heartbeat to flush")


async def test_garbage_and_unreadable_documents_have_their_ends(
    lane: Lane, lane_queue: Queue, start: list[Worker]
) -> None:
    """An empty document is dead at once; garbage from the API is retried."""
    garbage = [(200, {}, {"data": "none"})]
    lane.embedding.answer = lambda inputs: garbage.pop() if garbage else lane.embedding.vectors(inputs)
    empty = (await lane_queue.submit(new_job("empty", payload=b" "))).job_id
    (good,) = await submit(lane_queue, 1)
    views = await ended(lane_queue, [empty, good])
    assert (views[empty].state, views[empty].attempt) == (JobState.DEAD, 1)
    assert views[empty].error is not None
    assert views[empty].error.code == "VALIDATION_ERROR"
    assert (views[good].state, views[good].attempt) == (JobState.DONE, 2)


async def test_memory_is_bounded_by_the_batch(lane: Lane, lane_queue: Queue, start: list[Worker]) -> None:
    """A document of 300 chunks never has more than three batches of tokens in hand."""
    lane.embedding.delay_seconds = 0.01
    job_id = (await lane_queue.submit(new_job(payload=text_of(45_000)))).job_id
    view = (await ended(lane_queue, [job_id]))[job_id]
    assert view.figures.chunks == math.ceil((45_000 - 30) / 150)
    assert lane.embedding.most_in_flight <= 3
    handler = start[0]._handler
    assert isinstance(handler, RagHandler)
    assert 0 < handler._gate.take_peak_pct() <= 33
