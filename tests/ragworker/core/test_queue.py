"""What the Lua scripts promise, on every Redis that this machine has."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio
from core_parts import kept_document, new_job, outcome, places, wait_until

from ragworker.intake import INLINE_BYTES, Intake
from ragworker.job import (
    Event,
    EventKind,
    JobError,
    JobState,
    OutcomeKind,
    Priority,
)
from ragworker.queue import Queue

pytestmark = pytest.mark.anyio

#: Events that a job's history keeps (job.lua).
HISTORY_LIMIT = 50


async def test_accepted_job_is_stored_whole(queue: Queue, client: redis.asyncio.Redis) -> None:
    """A submitted job has its record, its document, one place in line and is counted."""
    answer = await queue.submit(new_job(payload=b"some words"))
    view = await queue.get(answer.job_id)
    assert (answer.state, answer.duplicate) == (JobState.QUEUED, False)
    assert view is not None
    assert (view.state, view.name, view.bytes, view.attempt, view.deliveries) == (
        "queued",
        "note.txt",
        10,
        1,
        0,
    )
    assert (view.request_id, view.user_id, view.duration_ms) == ("req-0123456789abcdef", "user-1", None)
    assert await kept_document(queue, client, answer.job_id) == b"some words"
    assert await places(queue, client, answer.job_id) == ["ready:normal"]
    gauges = await queue.gauges()
    assert (gauges.queue_length, gauges.stats["submitted"]) == (1, 1)


async def test_same_key_is_the_same_job(queue: Queue) -> None:
    """Fifty submits of one key at once make one job; another user's same key makes another."""
    new = new_job("one-key")
    answers = await asyncio.gather(*(queue.submit(new) for _ in range(50)))
    assert len({answer.job_id for answer in answers}) == 1
    assert sum(not answer.duplicate for answer in answers) == 1
    assert (await queue.gauges()).queue_length == 1


async def test_high_priority_is_served_first_and_each_list_in_order(queue: Queue) -> None:
    """Claims come high before normal, first in first out within each."""
    ids = {}
    for name, priority in (("a", "normal"), ("b", "high"), ("c", "normal"), ("d", "high")):
        ids[(await queue.submit(new_job(name, priority=Priority(priority)))).job_id] = name
    jobs = await queue.claim("w1", limit=3) + await queue.claim("w1", limit=3)
    assert [ids[job.job_id] for job in jobs] == ["b", "d", "a", "c"]


async def test_claim_gives_rising_fences_and_the_ids_of_the_request(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """Each delivery has a higher fence than all before, and carries what the API knew."""
    for number in range(5):
        await queue.submit(new_job(str(number)))
    jobs = await queue.claim("w1", limit=5)
    fences = [job.fence for job in jobs]
    assert fences == sorted(set(fences))
    assert jobs[0].trace_id == "trace-" + "0" * 32
    assert (jobs[0].attempt, jobs[0].delivery, jobs[0].bytes) == (1, 1, 13)
    # A Redis that lost its counter (a restart without its last second) must not repeat a fence.
    await client.delete(f"{queue.prefix}fence")
    await asyncio.sleep(0.01)
    await queue.submit(new_job("later"))
    assert (await queue.claim("w2", limit=1))[0].fence > max(fences)


async def test_parallel_claims_never_share_a_job(queue: Queue) -> None:
    """Twenty workers that claim at once get each job exactly once."""
    for number in range(40):
        await queue.submit(new_job(str(number)))
    batches = await asyncio.gather(*(queue.claim(f"w{n}", limit=3) for n in range(20)))
    ids = [job.job_id for batch in batches for job in batch]
    assert len(ids) == len(set(ids)) == 40


async def test_done_job_keeps_its_record_and_loses_its_document(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """Settling `done` stores figures, deletes the document, counts once, ends the event stream."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    assert await queue.settle("w1", [outcome(job, OutcomeKind.DONE)]) == [True]
    view = await queue.get(job_id)
    assert view is not None
    assert (view.state, view.figures.chunks, view.figures.cost_usd) == ("done", 1, 8e-8)
    assert view.duration_ms is not None
    assert await kept_document(queue, client, job_id) is None
    events = await queue.events(job_id)
    assert [event.kind for event in events][-2:] == [EventKind.STATE, EventKind.END]
    assert events[-1].state is JobState.DONE
    assert await queue.events(job_id, after=events[-2].event_id) == events[-1:]
    stats = (await queue.gauges()).stats
    assert (stats["committed"], stats["finished:done"], stats["hist:rag_job_duration_ms:count"]) == (1, 1, 1)


async def test_repeated_settle_is_recognised_and_counts_once(queue: Queue) -> None:
    """A worker whose answer was lost sends the same outcome again: it is told yes, and nothing changes."""
    await queue.submit(new_job())
    (job,) = await queue.claim("w1", limit=1)
    for _ in range(3):
        assert await queue.settle("w1", [outcome(job, OutcomeKind.DONE)]) == [True]
    assert (await queue.gauges()).stats["committed"] == 1


@pytest.mark.parametrize("kind", list(OutcomeKind))
async def test_outcome_that_is_in_a_batch_twice_counts_once(
    queue: Queue, client: redis.asyncio.Redis, kind: OutcomeKind
) -> None:
    """The same report twice in one call is taken once, and both are told yes."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    report = outcome(job, kind, delay_ms=60_000, code="EMBEDDING_TIMEOUT")
    assert await queue.settle("w1", [report, report]) == [True, True]
    view = await queue.get(job_id)
    assert view is not None
    assert len(view.history) == 3
    assert len(await places(queue, client, job_id)) == (0 if kind in ("done", "cancelled") else 1)


@pytest.mark.parametrize("harm", ["gone", "shorter", "longer"])
async def test_upload_that_is_not_whole_is_no_job(
    queue: Queue, client: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """Redis lost a large document, or a piece of it, before its job came: nothing is accepted; again, all is well."""
    upload = Intake._upload

    async def harmed(self: Intake, payload: bytes) -> str:
        key = await upload(self, payload)
        if harm == "longer":
            await client.append(key, b"once more")
        else:
            await client.delete(key)
            await client.set(key, b"" if harm == "gone" else payload[1:])
        return key

    jobs = [new_job("small"), new_job("large", payload=bytes(INLINE_BYTES + 1)), new_job("last")]
    with monkeypatch.context() as broken:
        broken.setattr(Intake, "_upload", harmed)
        with pytest.raises(redis.asyncio.RedisError, match="not whole"):
            await queue.submit_many(jobs)
    assert (await queue.gauges()).queue_length == 0
    answers = await queue.submit_many(jobs)
    assert [answer.duplicate for answer in answers] == [False] * 3
    claimed = await queue.claim("w1", limit=5)
    assert [job.job_id for job in claimed] == [answer.job_id for answer in answers]
    assert b"".join([piece async for piece in queue.document(claimed[1])]) == jobs[1].payload


async def test_retry_waits_for_its_delay_and_raises_the_attempt(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """A retried job is delayed exactly as told, counted, and comes back as the next attempt."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    failed = outcome(job, OutcomeKind.RETRY, delay_ms=150, code="EMBEDDING_TIMEOUT")
    assert await queue.settle("w1", [failed]) == [True]
    assert await places(queue, client, job_id) == ["delayed"]
    assert await queue.claim("w1", limit=1) == []
    view = await queue.get(job_id)
    assert view is not None
    assert (view.state, view.attempt, view.deliveries) == ("retrying", 2, 1)
    assert view.error == JobError("EMBEDDING_TIMEOUT", "what went wrong")
    scheduled = view.history[-1]
    assert (scheduled.event, scheduled.code, scheduled.delay_ms) == (
        "retry_scheduled",
        "EMBEDDING_TIMEOUT",
        150,
    )
    await wait_until(lambda: queue.claim("w1", limit=1), seconds=2, what="the delay to end")
    view = await queue.get(job_id)
    assert view is not None
    claimed_again = view.history[-1]
    assert (view.state, claimed_again.attempt) == ("running", 2)
    assert claimed_again.at_ms - scheduled.at_ms >= 150


async def test_waiting_worker_wakes_when_a_delay_ends(queue: Queue) -> None:
    """An idle worker sleeps no longer than the next delay, though nobody pushes a token."""
    await queue.submit(new_job())
    (job,) = await queue.claim("w1", limit=1)
    await queue.settle("w1", [outcome(job, OutcomeKind.RETRY, delay_ms=100, code="EMBEDDING_TIMEOUT")])
    assert await queue.claim("w1", limit=1) == []
    started = asyncio.get_running_loop().time()
    assert await queue.wait_for_work("w1", 2.0) == []
    assert asyncio.get_running_loop().time() - started < 1.0


async def test_dead_job_is_kept_whole_and_can_be_requeued_or_purged(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """A dead job keeps document, error and history; requeue gives it fresh attempts; purge forgets it."""
    job_id = (await queue.submit(new_job("k", payload=b"keep me"))).job_id
    (job,) = await queue.claim("w1", limit=1)
    await queue.settle("w1", [outcome(job, OutcomeKind.DEAD, code="VALIDATION_ERROR")])
    assert await places(queue, client, job_id) == ["dlq"]
    (letter,) = await queue.dead_letters()
    assert letter.error == JobError("VALIDATION_ERROR", "what went wrong")
    assert [entry.event for entry in letter.history] == ["submitted", "claimed", "dead"]
    assert await kept_document(queue, client, job_id) == b"keep me"
    assert await client.ttl(f"{queue.prefix}job:{job_id}") == -1
    assert (await queue.submit(new_job("k", payload=b"keep me"))).state is JobState.DEAD

    assert await queue.requeue(job_id) is True
    assert await queue.requeue(job_id) is False
    assert await places(queue, client, job_id) == ["ready:normal"]
    (job,) = await queue.claim("w1", limit=1)
    assert (job.attempt, job.delivery) == (1, 1)
    assert await queue.purge(job_id) is False
    await queue.settle("w1", [outcome(job, OutcomeKind.DEAD, code="VALIDATION_ERROR")])
    assert await queue.purge(job_id) is True
    assert await queue.get(job_id) is None
    assert await queue.dead_letters() == []
    assert (await queue.submit(new_job("k", payload=b"keep me"))).duplicate is False
    assert (await queue.gauges()).stats["dead"] == 2


async def test_history_is_bounded(queue: Queue) -> None:
    """A job that goes round for ever keeps its newest events only."""
    job_id = (await queue.submit(new_job())).job_id
    for _ in range(HISTORY_LIMIT):
        (job,) = await queue.claim("w1", limit=1)
        await queue.settle("w1", [outcome(job, OutcomeKind.RELEASED)])
        view = await queue.get(job_id)
        assert view is not None
        # It is cut when it has grown long, not at each event: a third more may be seen.
        assert len(view.history) < HISTORY_LIMIT * 4 / 3
        assert view.history[-1].event == "released"
    assert len(view.history) >= HISTORY_LIMIT
    assert view.history[0].event != "submitted"
    assert [event.kind for event in await queue.events(job_id)] == [EventKind.STATE] * len(view.history)


async def test_subscriber_is_told_of_each_change(queue: Queue, client: redis.asyncio.Redis) -> None:
    """Whoever asks for news whenever the channel names the job has heard every event once, and the end last."""
    listener = queue.subscribe()
    told = asyncio.ensure_future(anext(listener))

    async def subscribed() -> bool:
        return bool((await client.pubsub_numsub(f"{queue.prefix}events"))[0][1])

    await wait_until(subscribed, what="the subscription")
    heard: list[Event] = []

    async def listen(job_id: str) -> None:
        nonlocal told
        assert await asyncio.wait_for(told, 5) == job_id
        heard.extend(await queue.events(job_id, after=heard[-1].event_id if heard else "0"))
        told = asyncio.ensure_future(anext(listener))

    job_id = (await queue.submit(new_job())).job_id
    await listen(job_id)
    (job,) = await queue.claim("w1", limit=1)
    await listen(job_id)
    for done in (1, 2):
        await queue.progress(job_id, "embed", done, 2)
        await listen(job_id)
    await queue.settle("w1", [outcome(job, OutcomeKind.DONE)])
    await listen(job_id)
    await queue.progress(job_id, "embed", 3, 2)
    assert [(event.kind, event.state, event.done) for event in heard] == [
        (EventKind.STATE, JobState.QUEUED, None),
        (EventKind.STATE, JobState.RUNNING, None),
        (EventKind.PROGRESS, JobState.RUNNING, 1),
        (EventKind.PROGRESS, JobState.RUNNING, 2),
        (EventKind.STATE, JobState.DONE, None),
        (EventKind.END, JobState.DONE, None),
    ]
    assert await queue.events(job_id) == [*heard[:2], *heard[3:]]
    assert await queue.events(job_id, after=heard[-1].event_id) == []
    told.cancel()
    await asyncio.wait({told})
    await listener.aclose()


async def test_progress_does_not_fall_within_a_stage(queue: Queue) -> None:
    """A smaller figure that arrives late is not shown; another stage begins where it begins."""
    job_id = (await queue.submit(new_job())).job_id
    await queue.claim("w1", limit=1)
    shown = []
    for stage, done in (("extract", 1), ("embed", 2), ("embed", 1), ("embed", 3), ("commit", 1)):
        await queue.progress(job_id, stage, done, 9)
        (last,) = [event for event in await queue.events(job_id) if event.kind is EventKind.PROGRESS]
        shown.append((last.stage, last.done))
    assert shown == [("extract", 1), ("embed", 2), ("embed", 2), ("embed", 3), ("commit", 1)]


async def test_blocked_worker_is_handed_the_next_job(queue: Queue) -> None:
    """An idle worker returns from its wait as soon as a job is there, with the job, which is its own by then."""
    assert await queue.claim("w1", limit=2) == []
    waiting = asyncio.ensure_future(queue.wait_for_work("w1", 2.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await asyncio.wait_for(waiting, 1)
    assert job.job_id == job_id
    assert await queue.holds("w1", job)
    assert await queue.settle("w1", [outcome(job, OutcomeKind.DONE)]) == [True]


async def test_idle_workers_are_handed_no_more_than_they_have_room_for(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """Jobs go to idle workers up to their free slots, most room first; the rest waits for whoever asks."""
    for worker, room in (("w1", 1), ("w2", 3)):
        assert await queue.claim(worker, limit=room) == []
    await queue.submit_many(new_job(str(number)) for number in range(6))
    assert len(await queue.renew("w1", {})) == 1
    assert len(await queue.renew("w2", {})) == 3
    assert (await queue.gauges()).queue_length == 2
    assert [len(await queue.claim(worker, limit=3)) for worker in ("w1", "w2", "w3")] == [3, 3, 0]
    assert await client.keys(f"{queue.prefix}inbox:*") == []


async def test_dead_idle_worker_is_handed_nothing_once_its_lease_is_out(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """Whoever waited and died is passed over; what it had been handed before is taken over like any claim."""
    assert await queue.claim("w1", limit=1) == []
    first = (await queue.submit(new_job())).job_id
    assert await queue.claim("w2", limit=1) == []
    await queue.leave("w2")
    await wait_until(lambda: queue.take_over(limit=10), what="the lease to run out")
    assert await places(queue, client, first) == ["ready:normal"]
    second = (await queue.submit(new_job())).job_id
    assert await places(queue, client, second) == ["ready:normal"]
