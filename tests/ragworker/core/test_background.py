"""Jobs in the API process: the same effect without Redis, and one effect beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from core_parts import (
    EmbeddingServer,
    Lane,
    ended,
    make_lane,
    new_job,
    text_of,
    wait_until,
)

from ragworker.background import Background, BackgroundFullError
from ragworker.job import EventKind, JobState
from ragworker.queue import Queue
from ragworker.worker import Worker

pytestmark = pytest.mark.anyio


async def test_background_jobs_need_no_redis(tmp_path: Path, embedding: EmbeddingServer) -> None:
    """The same document, the same effect, events and figures, with nothing but this process and SQL."""
    lane = make_lane(tmp_path, "redis://127.0.0.1:1/0", embedding)
    answers = [(500, {}, {})]
    embedding.answer = lambda inputs: answers.pop() if answers else embedding.vectors(inputs)
    runner = Background(lane.settings)
    job_id = (await runner.submit(new_job("one", payload=text_of(400)))).job_id
    assert (await runner.submit(new_job("one", payload=text_of(400)))).duplicate

    async def is_ended() -> bool:
        view = await runner.queue.get(job_id)
        return view is not None and view.state.terminal

    await wait_until(is_ended, seconds=10, what="the background job")
    view = await runner.queue.get(job_id)
    assert view is not None
    assert (view.state, view.mode, view.attempt, view.figures.chunks) == (JobState.DONE, "background", 2, 3)
    assert [entry.event for entry in view.history] == [
        "submitted",
        "claimed",
        "retry_scheduled",
        "claimed",
        "done",
    ]
    events = await runner.queue.events(job_id)
    assert events[-1].kind is EventKind.END
    assert await runner.queue.events(job_id, after=events[-2].event_id) == events[-1:]
    stats = (await runner.queue.gauges()).stats
    assert (stats["committed"], stats["retried"], stats["failed:EMBEDDING_SERVER_ERROR"]) == (1, 1, 1)
    assert len(lane.rows("select worker from commit_log")) == 1
    await runner.close()


async def test_background_and_durable_twins_have_one_effect(
    lane: Lane, lane_queue: Queue, start: list[Worker]
) -> None:
    """A submit whose answer was lost runs in Redis and in the background: one effect, both say done."""
    lane.embedding.delay_seconds = 0.1
    runner = Background(lane.settings)
    twins = [await lane_queue.submit(new_job("twin")), await runner.submit(new_job("twin"))]
    assert twins[0].job_id == twins[1].job_id
    job_id = twins[0].job_id
    assert (await ended(lane_queue, [job_id]))[job_id].state is JobState.DONE

    async def is_done() -> bool:
        view = await runner.queue.get(job_id)
        return view is not None and view.state is JobState.DONE

    await wait_until(is_done, seconds=10, what="the background twin")
    assert len(lane.rows("select * from commit_log")) == 1
    await runner.close()


async def test_background_cancels_and_refuses_what_it_cannot_hold(
    tmp_path: Path, embedding: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running and waiting jobs can be cancelled; above its bound the runner says that it is full."""
    monkeypatch.setattr("ragworker.background.MOST_WAITING", 1)
    embedding.delay_seconds = 3.0
    lane = make_lane(tmp_path, "redis://127.0.0.1:1/0", embedding, RAG_WORKER_CONCURRENCY="1")
    runner = Background(lane.settings)
    running = (await runner.submit(new_job("a"))).job_id

    async def asked() -> bool:
        return bool(embedding.requests)

    await wait_until(asked, seconds=10, what="the first job to run")
    waiting = (await runner.submit(new_job("b"))).job_id
    with pytest.raises(BackgroundFullError):
        await runner.submit(new_job("c"))
    assert await runner.queue.request_cancel(waiting, reason="no", by="u") is JobState.CANCELLED
    assert await runner.queue.request_cancel(running, reason="no", by="u") is JobState.RUNNING

    async def is_cancelled() -> bool:
        view = await runner.queue.get(running)
        return view is not None and view.state is JobState.CANCELLED

    await wait_until(is_cancelled, seconds=2, what="the running job to stop")
    assert lane.rows("select count(*) from documents") == [(0,)]
    await runner.close()
