"""What the Lua scripts promise, on every Redis that this machine has."""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files

import pytest
import redis.asyncio
from core_parts import (
    new_job,
    outcome,
    places,
    wait_until,
)

from ragworker.job import (
    HISTORY_LIMIT,
    TRANSITIONS,
    EventKind,
    JobError,
    JobState,
    OutcomeKind,
    Priority,
)
from ragworker.queue import Queue

pytestmark = pytest.mark.anyio


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
    assert await queue.payload(answer.job_id) == b"some words"
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


async def test_done_job_keeps_its_record_and_loses_its_document(queue: Queue) -> None:
    """Settling `done` stores figures, deletes the document, counts once, ends the event stream."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    assert await queue.settle("w1", [outcome(job, OutcomeKind.DONE)]) == [True]
    view = await queue.get(job_id)
    assert view is not None
    assert (view.state, view.figures.chunks, view.figures.cost_usd) == ("done", 1, 8e-8)
    assert view.duration_ms is not None
    assert await queue.payload(job_id) is None
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
    await queue.wait_for_work(2.0)
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
    assert await queue.payload(job_id) == b"keep me"
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
    assert len(view.history) == HISTORY_LIMIT
    assert view.history[-1].event == "released"


async def test_subscriber_hears_what_the_stream_keeps(queue: Queue) -> None:
    """Live events and kept events are the same, with the same ids."""
    heard = []
    job = None
    listener = queue.subscribe()
    first = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0.05)
    job_id = (await queue.submit(new_job())).job_id
    heard.append(await asyncio.wait_for(first, 5))
    (job,) = await queue.claim("w1", limit=1)
    await queue.progress(job_id, {"stage": "embed", "done": 1, "total": 2})
    await queue.settle("w1", [outcome(job, OutcomeKind.DONE)])
    await queue.progress(job_id, {"stage": "embed", "done": 2, "total": 2})
    while heard[-1].kind is not EventKind.END:
        heard.append(await asyncio.wait_for(anext(listener), 5))
    await listener.aclose()
    assert heard == await queue.events(job_id)
    assert [(event.stage, event.done, event.total) for event in heard if event.kind == "progress"] == [
        ("embed", 1, 2)
    ]


async def test_blocked_worker_wakes_on_submit(queue: Queue) -> None:
    """An idle worker returns from its wait as soon as a job is there."""
    waiting = asyncio.ensure_future(queue.wait_for_work(2.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await queue.submit(new_job())
    await asyncio.wait_for(waiting, 1)


async def test_wake_list_is_bounded_and_goes_stale_with_the_work(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """A thousand submits leave few tokens, and none once everything is claimed."""
    for number in range(200):
        await queue.submit(new_job(str(number)))
    assert await client.llen(f"{queue.prefix}wake") <= 64
    await queue.claim("w1", limit=500)
    assert await client.llen(f"{queue.prefix}wake") == 0


def test_scripts_open_with_their_call_form() -> None:
    """Each script's first line is its call form: name, prefix, arguments, answer."""
    scripts = [file for file in (files("ragworker") / "lua").iterdir() if file.name.endswith(".lua")]
    assert len(scripts) >= 12
    for file in scripts:
        first = file.read_text("utf-8").splitlines()[0]
        assert file.name == "job.lua" or first.startswith(f"-- {file.name.removesuffix('.lua')} P |"), (
            file.name
        )


def test_scripts_make_only_legal_transitions() -> None:
    """Every state that a script writes is one of the table in job.py."""
    text = "".join(file.read_text("utf-8") for file in (files("ragworker") / "lua").iterdir())
    written = set(
        re.findall(r"'HSET', job(?:_key\(id\))?, (?:'id', id, 'idem', idem, )?'state', '(\w+)'", text)
    )
    written |= set(re.findall(r"retire\(id, '(\w+)'", text))
    assert written == {state.value for state in TRANSITIONS}
