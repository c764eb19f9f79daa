"""Whole workers: killed, paused, stopped, cancelled, without Redis; every job has one effect and none is lost."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from core_parts import EmbeddingServer, Lane, RedisServer, make_lane, new_job, wait_until

from ragworker import worker as worker_module
from ragworker.background import BackgroundFullError, BackgroundRunner
from ragworker.job import EventKind, JobState, JobView
from ragworker.limits import RedisLimiter
from ragworker.queue import Queue, connect
from ragworker.store import Store
from ragworker.worker import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def embedding() -> Iterator[EmbeddingServer]:
    """An embedding API."""
    made = EmbeddingServer()
    yield made
    made.close()


@pytest.fixture
def lane(tmp_path: Path, redis_server: RedisServer, embedding: EmbeddingServer) -> Iterator[Lane]:
    """A lane on a shared real Redis."""
    made = make_lane(tmp_path, redis_server.url, embedding)
    yield made
    made.stop()


@pytest.fixture
async def queue(lane: Lane) -> AsyncIterator[Queue]:
    """The lane's queue, as the API sees it."""
    client = connect(lane.settings.redis_url)
    yield Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)
    await client.aclose()


@pytest.fixture
async def start(lane: Lane, queue: Queue) -> AsyncIterator[list[Worker]]:
    """One worker inside this process, stopped at the end."""
    client = connect(lane.settings.redis_url)
    store = Store(lane.settings.database_url)
    limiter = RedisLimiter(client, queue=queue.name, settings=lane.settings.embedding)
    made = Worker(
        lane.settings,
        queue=Queue(client, name=queue.name, settings=lane.settings.queue),
        store=store,
        limiter=limiter,
    )
    running = asyncio.create_task(made.run())
    yield [made]
    made.stop()
    await asyncio.wait_for(running, 20)
    await client.aclose()
    store.close()


async def ended(queue: Queue, ids: list[str], *, seconds: float = 20) -> dict[str, JobView]:
    """The jobs once all have ended."""
    views: dict[str, JobView] = {}

    async def all_ended() -> bool:
        for job_id in ids:
            if job_id not in views:
                view = await queue.get(job_id)
                assert view is not None, f"{job_id} is lost"
                if not view.state.terminal:
                    return False
                views[job_id] = view
        return True

    await wait_until(all_ended, seconds=seconds, what="all jobs to end")
    return views


def text_of(words: int) -> bytes:
    return " ".join(f"w{number}" for number in range(words)).encode()


async def submit(queue: Queue, count: int, *, words: int = 400, name: str = "job") -> list[str]:
    jobs = [new_job(f"{name} {number}", payload=text_of(words)) for number in range(count)]
    return [(await queue.submit(job)).job_id for job in jobs]


async def owners(queue: Queue, ids: Iterable[str]) -> set[str]:
    """The workers that run any of these jobs now."""
    views = [view for job_id in ids if (view := await queue.get(job_id)) and view.state is JobState.RUNNING]
    return {str(view.history[-1].worker) for view in views}


async def test_documents_are_committed_as_the_rule_says(
    lane: Lane, queue: Queue, start: list[Worker]
) -> None:
    """Chunks, vectors, tokens, events, figures and logs of a document are those of the public rule."""
    job_id = (await queue.submit(new_job(payload=text_of(6000)))).job_id
    view = (await ended(queue, [job_id]))[job_id]
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
    stages = [(e.stage, e.done, e.total) for e in await queue.events(job_id) if e.kind is EventKind.PROGRESS]
    assert stages == [("extract", 1, 1), ("embed", 1, 2), ("embed", 2, 2)]
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


async def test_killed_workers_lose_and_repeat_nothing(lane: Lane, queue: Queue) -> None:
    """Workers killed with SIGKILL in the middle of jobs: every job is done, every effect is there once."""
    lane.embedding.delay_seconds = 0.2
    alive = {process.pid: process for process in [lane.start_worker() for _ in range(4)]}
    ids: list[str] = []
    for round_number in range(3):
        ids += await submit(queue, 12, name=f"round {round_number}")
        busy: list[int] = []

        async def somebody_is_busy(found: list[int] = busy, ids: tuple[str, ...] = tuple(ids)) -> bool:
            pids = {
                line["worker"]: line["pid"] for line in lane.log_lines() if line["message"] == "worker.ready"
            }
            found[:] = [pid for owner in await owners(queue, ids) if (pid := pids.get(owner)) in alive]
            return bool(found)

        await wait_until(somebody_is_busy, seconds=20, what="a worker to hold jobs")
        victim = alive.pop(busy[0])
        victim.kill()
        victim.wait(10)
    views = await ended(queue, ids)
    assert [process.poll() for process in alive.values()] == [None]
    assert {view.state for view in views.values()} == {JobState.DONE}
    effects = Counter(row[0] for row in lane.rows("select job_id from commit_log"))
    assert effects == Counter(ids)
    assert max(view.deliveries for view in views.values()) >= 2
    assert {view.attempt for view in views.values()} == {1}
    assert (await queue.gauges()).stats["committed"] == len(ids)


async def test_paused_worker_cannot_repeat_an_effect(lane: Lane, queue: Queue) -> None:
    """A worker paused past its lease wakes up: its job was done by another, its own outcome counts for nothing."""
    lane.embedding.delay_seconds = 0.5
    paused = lane.start_worker()
    ids = await submit(queue, 3)

    async def asked() -> bool:
        return len(lane.embedding.requests) >= 3

    await wait_until(asked, seconds=10, what="the first worker to be in the middle of its jobs")
    os.kill(paused.pid, signal.SIGSTOP)
    other = lane.start_worker()
    views = await ended(queue, ids)
    os.kill(paused.pid, signal.SIGCONT)
    assert {view.deliveries for view in views.values()} == {2}
    more = await submit(queue, 5, words=100)
    await ended(queue, more)
    assert Counter(row[0] for row in lane.rows("select job_id from commit_log")) == Counter({*ids, *more})
    assert paused.poll() is other.poll() is None

    async def noticed() -> bool:
        return any(line["message"] in ("lease.lost", "job.outcome_refused") for line in lane.log_lines()) or (
            sum(line["message"] == "job.finished" for line in lane.log_lines()) == len({*ids, *more})
        )

    await wait_until(noticed, what="the paused worker to see what it lost")


async def test_temp_file_of_a_killed_worker_is_swept(lane: Lane, queue: Queue) -> None:
    """A worker killed while it reads a document leaves a file; the next worker wipes it and finishes the job."""
    text = b"*a* [b](c) | d\n\n" * 40_000
    await queue.submit(replace(new_job("big", payload=text), name="big.md", media_type="text/markdown"))
    victim = lane.start_worker()

    async def holds_a_file() -> bool:
        return lane.settings.temp_dir.is_dir() and any(lane.settings.temp_dir.iterdir())

    await wait_until(holds_a_file, seconds=10, what="the worker to hold a file")
    victim.kill()
    victim.wait(10)
    left = {path.name for path in lane.settings.temp_dir.iterdir()}
    assert left
    lane.start_worker()

    async def swept() -> bool:
        return not left & {path.name for path in lane.settings.temp_dir.iterdir()}

    await wait_until(swept, seconds=10, what="the file to be swept")


async def test_cancelled_job_stops_and_leaves_nothing(lane: Lane, queue: Queue, start: list[Worker]) -> None:
    """A job cancelled in the middle of a request ends within seconds; nothing of it is in SQL; the slot is free."""
    lane.embedding.delay_seconds = 8.0
    (job_id,) = await submit(queue, 1)

    async def asked() -> bool:
        return bool(lane.embedding.requests)

    await wait_until(asked, what="the job to wait for its vectors")
    assert await queue.request_cancel(job_id, reason="no longer wanted", by="user-1") is JobState.RUNNING
    view = (await ended(queue, [job_id], seconds=4))[job_id]
    assert view.state is JobState.CANCELLED
    assert lane.rows("select count(*) from documents") == [(0,)]
    lane.embedding.delay_seconds = 0.0
    (other,) = [(await queue.submit(new_job("other"))).job_id]
    assert (await ended(queue, [other]))[other].state is JobState.DONE


async def test_failing_api_is_retried_by_the_table_then_given_up(
    lane: Lane, queue: Queue, start: list[Worker]
) -> None:
    """5xx: four retries after 10, 50, 250, 1250 ms (base 0.01 s), then a dead letter; requeued it succeeds."""
    lane.embedding.answer = lambda _: (500, {}, {})
    (job_id,) = await submit(queue, 1)
    view = (await ended(queue, [job_id]))[job_id]
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
    stats = (await queue.gauges()).stats
    assert (stats["retried"], stats["dead"], stats["failed:EMBEDDING_SERVER_ERROR"]) == (4, 1, 5)
    lane.embedding.answer = lane.embedding.vectors
    assert await queue.requeue(job_id)
    assert (await ended(queue, [job_id]))[job_id].state is JobState.DONE


async def test_rate_limited_answer_is_retried_when_it_says(
    lane: Lane, queue: Queue, start: list[Worker]
) -> None:
    """429 with Retry-After 0.2: the next attempt comes then, not after the table's delay."""
    answers = [(429, {"Retry-After": "0.2"}, {})]
    lane.embedding.answer = lambda inputs: answers.pop() if answers else lane.embedding.vectors(inputs)
    (job_id,) = await submit(queue, 1)
    view = (await ended(queue, [job_id]))[job_id]
    assert view.state is JobState.DONE
    assert [(e.code, e.delay_ms) for e in view.history if e.event == "retry_scheduled"] == [
        ("RATE_LIMITED", 200)
    ]

    async def counted() -> bool:
        return (await queue.gauges()).stats.get("rate_limited") == 1

    await wait_until(counted, what="the heartbeat to flush")


async def test_garbage_and_unreadable_documents_have_their_ends(
    lane: Lane, queue: Queue, start: list[Worker]
) -> None:
    """An empty document is dead at once; garbage from the API is retried."""
    garbage = [(200, {}, {"data": "none"})]
    lane.embedding.answer = lambda inputs: garbage.pop() if garbage else lane.embedding.vectors(inputs)
    empty = (await queue.submit(new_job("empty", payload=b" "))).job_id
    (good,) = await submit(queue, 1)
    views = await ended(queue, [empty, good])
    assert (views[empty].state, views[empty].attempt) == (JobState.DEAD, 1)
    assert views[empty].error is not None
    assert views[empty].error.code == "VALIDATION_ERROR"
    assert (views[good].state, views[good].attempt) == (JobState.DONE, 2)


async def test_claim_whose_answer_was_lost_is_given_back(
    lane: Lane, queue: Queue, start: list[Worker]
) -> None:
    """A job that Redis says this worker holds, but that it never heard of, is back in line within two heartbeats."""

    async def ready() -> bool:
        return start[0].id in await queue.live_workers()

    await wait_until(ready, what="the first heartbeat")
    start[
        0
    ]._claiming = True  # as if the claim were under way, so that the worker does not take the job itself
    (job_id,) = await submit(queue, 1)
    await queue.claim(start[0].id, limit=1)
    start[0]._claiming = False
    view = (await ended(queue, [job_id]))[job_id]
    assert view.state is JobState.DONE
    assert len(lane.rows("select * from commit_log")) == 1


async def test_stopped_worker_hands_back_what_it_cannot_finish(
    lane: Lane, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace period running jobs are back at the front, unblamed, and the worker is gone from Redis."""
    monkeypatch.setattr(worker_module, "STOP_SECONDS", 0.1)
    lane.embedding.delay_seconds = 5.0
    client, store = connect(lane.settings.redis_url), Store(lane.settings.database_url)
    limiter = RedisLimiter(client, queue=queue.name, settings=lane.settings.embedding)
    made = Worker(lane.settings, queue=queue, store=store, limiter=limiter)
    running = asyncio.create_task(made.run())
    (job_id,) = await submit(queue, 1)

    async def asked() -> bool:
        return bool(lane.embedding.requests)

    await wait_until(asked, what="the job to run")
    made.stop()
    await asyncio.wait_for(running, 5)
    view = await queue.get(job_id)
    assert view is not None
    assert (view.state, view.attempt, view.deliveries) == (JobState.QUEUED, 1, 1)
    assert view.history[-1].event == "released"
    assert await queue.live_workers() == set()
    await client.aclose()
    store.close()


async def test_sigterm_finishes_running_jobs(lane: Lane, queue: Queue) -> None:
    """SIGTERM: the running job is finished and committed, the process ends with status 0."""
    lane.embedding.delay_seconds = 0.5
    process = lane.start_worker()
    (job_id,) = await submit(queue, 1)

    async def asked() -> bool:
        return bool(lane.embedding.requests)

    await wait_until(asked, seconds=10, what="the job to run")
    process.terminate()
    assert await asyncio.to_thread(process.wait, 10) == 0
    view = await queue.get(job_id)
    assert view is not None
    assert view.state is JobState.DONE
    assert all("message" in line for line in lane.log_lines())
    finished = [line for line in lane.log_lines() if line["message"] == "job.finished"]
    assert [(line["job_id"], line["trace_id"]) for line in finished] == [(job_id, "trace-" + "0" * 32)]


async def test_redis_killed_and_back_loses_nothing(
    tmp_path: Path, own_redis_server: RedisServer, embedding: EmbeddingServer
) -> None:
    """Redis is killed in the middle and comes back on its data: the same workers finish every job, once."""
    lane = make_lane(tmp_path, own_redis_server.url, embedding)
    embedding.delay_seconds = 0.05
    client = connect(own_redis_server.url)
    queue = Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)
    try:
        processes = [lane.start_worker() for _ in range(2)]
        ids = await submit(queue, 30)

        async def some_done() -> bool:
            return (await queue.gauges()).stats.get("committed", 0) >= 5

        await wait_until(some_done, seconds=20, what="the first jobs")
        await client.config_set("appendfsync", "always")
        own_redis_server.kill()
        await asyncio.sleep(0.5)
        own_redis_server.start()
        views = await ended(queue, ids)
        assert {view.state for view in views.values()} == {JobState.DONE}
        assert Counter(row[0] for row in lane.rows("select job_id from commit_log")) == Counter(ids)
        assert all(process.poll() is None for process in processes)
    finally:
        lane.stop()
        await client.aclose()


async def test_memory_is_bounded_by_the_batch(lane: Lane, queue: Queue, start: list[Worker]) -> None:
    """A document of 300 chunks never has more than three batches of tokens in hand."""
    lane.embedding.delay_seconds = 0.01
    job_id = (await queue.submit(new_job(payload=text_of(45_000)))).job_id
    view = (await ended(queue, [job_id]))[job_id]
    assert view.figures.chunks == math.ceil((45_000 - 30) / 150)
    assert lane.embedding.most_in_flight <= 3
    assert 0 < start[0]._gate.take_peak_pct() <= 33


async def test_background_jobs_need_no_redis(tmp_path: Path, embedding: EmbeddingServer) -> None:
    """The same document, the same effect, events and figures, with nothing but this process and SQL."""
    lane = make_lane(tmp_path, "redis://127.0.0.1:1/0", embedding)
    answers = [(500, {}, {})]
    embedding.answer = lambda inputs: answers.pop() if answers else embedding.vectors(inputs)
    runner = BackgroundRunner(lane.settings)
    await runner.start()
    job_id = (await runner.submit(new_job("one", payload=text_of(400)))).job_id
    assert (await runner.submit(new_job("one", payload=text_of(400)))).duplicate

    async def is_ended() -> bool:
        view = await runner.get(job_id)
        return view is not None and view.state.terminal

    await wait_until(is_ended, seconds=10, what="the background job")
    view = await runner.get(job_id)
    assert view is not None
    assert (view.state, view.mode, view.attempt, view.figures.chunks) == (JobState.DONE, "background", 2, 3)
    assert [entry.event for entry in view.history] == [
        "submitted",
        "claimed",
        "retry_scheduled",
        "claimed",
        "done",
    ]
    events = await runner.events(job_id)
    assert events[-1].kind is EventKind.END
    assert await runner.events(job_id, after=events[-2].event_id) == events[-1:]
    stats = runner.stats()
    assert (stats["committed"], stats["retried"], stats["failed:EMBEDDING_SERVER_ERROR"]) == (1, 1, 1)
    assert lane.rows("select worker from commit_log") == [("background",)]
    await runner.close()


async def test_background_and_durable_twins_have_one_effect(
    lane: Lane, queue: Queue, start: list[Worker]
) -> None:
    """A submit whose answer was lost runs in Redis and in the background: one effect, both say done."""
    lane.embedding.delay_seconds = 0.1
    runner = BackgroundRunner(lane.settings)
    twins = [await queue.submit(new_job("twin")), await runner.submit(new_job("twin"))]
    assert twins[0].job_id == twins[1].job_id
    job_id = twins[0].job_id
    assert (await ended(queue, [job_id]))[job_id].state is JobState.DONE

    async def is_done() -> bool:
        view = await runner.get(job_id)
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
    runner = BackgroundRunner(lane.settings)
    running = (await runner.submit(new_job("a"))).job_id
    waiting = (await runner.submit(new_job("b"))).job_id
    with pytest.raises(BackgroundFullError):
        await runner.submit(new_job("c"))
    assert await runner.cancel(waiting, reason="no", by="u") is JobState.CANCELLED

    async def asked() -> bool:
        return bool(embedding.requests)

    await wait_until(asked, seconds=10, what="the first job to run")
    assert await runner.cancel(running, reason="no", by="u") is JobState.RUNNING

    async def is_cancelled() -> bool:
        view = await runner.get(running)
        return view is not None and view.state is JobState.CANCELLED

    await wait_until(is_cancelled, seconds=2, what="the running job to stop")
    assert lane.rows("select count(*) from documents") == [(0,)]
    await runner.close()
