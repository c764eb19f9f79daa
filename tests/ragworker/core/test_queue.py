"""What the Lua scripts promise, on every Redis that this machine has."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from importlib.resources import files

import pytest
import redis.asyncio
from core_parts import new_job, wait_until

from ragworker.job import (
    HISTORY_LIMIT,
    TRANSITIONS,
    ClaimedJob,
    EventKind,
    Figures,
    JobError,
    JobState,
    Outcome,
    OutcomeKind,
    Priority,
)
from ragworker.queue import Queue, UnknownJobError

pytestmark = pytest.mark.anyio


def outcome(job: ClaimedJob, kind: OutcomeKind, *, delay_ms: int = 0, code: str = "") -> Outcome:
    error = JobError(code, "what went wrong") if code else None
    figures = Figures(words=3, chunks=1, tokens=4, cost_usd=0.00000008)
    return Outcome(job.job_id, job.fence, kind, delay_ms=delay_ms, error=error, figures=figures)


async def places(queue: Queue, client: redis.asyncio.Redis, job_id: str) -> list[str]:
    """Where the job's id is kept: the invariant says exactly one place while it is not terminal."""
    found = []
    for name in ("high", "normal"):
        ids = await client.lrange(f"{queue.prefix}ready:{name}", 0, -1)
        found += [f"ready:{name}"] * ids.count(job_id.encode())
    for name in ("delayed", "dlq"):
        if await client.zscore(f"{queue.prefix}{name}", job_id) is not None:
            found.append(name)
    async for key in client.scan_iter(match=f"{queue.prefix}claimed:*"):
        if await client.hexists(key, job_id):
            found.append(key.decode().removeprefix(queue.prefix))
    return found


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


async def test_expired_lease_moves_all_jobs_to_the_front(queue: Queue, client: redis.asyncio.Redis) -> None:
    """Jobs of a worker whose lease ran out go first, as one more delivery of the same attempt."""
    lost = [(await queue.submit(new_job(str(n)))).job_id for n in range(3)]
    jobs = await queue.claim("w1", limit=3)
    waiting = (await queue.submit(new_job("later"))).job_id
    assert await queue.take_over(limit=10) == []
    await wait_until(lambda: queue.take_over(limit=2), what="the lease to run out")
    await queue.take_over(limit=2)
    assert "w1" not in await queue.live_workers()
    again = await queue.claim("w2", limit=4)
    assert {job.job_id for job in again[:3]} == set(lost)
    assert again[3].job_id == waiting
    assert {(job.attempt, job.delivery) for job in again[:3]} == {(1, 2)}
    # The old owner comes back from its pause: whatever it says about them is refused.
    assert await queue.settle("w1", [outcome(job, OutcomeKind.DONE) for job in jobs]) == [False] * 3
    assert await queue.renew("w1", {}) == {}
    assert await queue.holds("w1", jobs[0]) is False
    assert await queue.holds("w2", again[0]) is True
    assert (await queue.gauges()).stats["taken_over"] == 3


async def test_own_former_delivery_is_refused(queue: Queue) -> None:
    """The same worker gets its taken-over job back under a new fence: the old one no longer counts."""
    await queue.submit(new_job())
    (old,) = await queue.claim("w1", limit=1)
    await wait_until(lambda: queue.take_over(limit=10), what="the lease to run out")
    (new,) = await queue.claim("w1", limit=1)
    assert await queue.settle("w1", [outcome(old, OutcomeKind.DONE)]) == [False]
    assert await queue.settle("w1", [outcome(new, OutcomeKind.DONE)]) == [True]


async def test_job_that_outlives_its_deliveries_is_dead(queue: Queue) -> None:
    """After three lost workers (max_deliveries=3) the job is a dead letter with WORKER_CRASHED."""
    job_id = (await queue.submit(new_job())).job_id
    for worker in ("w1", "w2", "w3"):
        assert len(await queue.claim(worker, limit=1)) == 1
        await wait_until(lambda: queue.take_over(limit=10), what="the lease to run out")
    assert await queue.claim("w4", limit=1) == []
    view = await queue.get(job_id)
    assert view is not None
    assert view.error is not None
    assert (view.state, view.error.code, view.deliveries) == ("dead", "WORKER_CRASHED", 3)
    assert await queue.payload(job_id) is not None


async def test_renewed_lease_is_not_taken_over(queue: Queue) -> None:
    """A worker that renews keeps its jobs; its answer lists them, so a claim whose answer was lost is seen."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    for _ in range(8):
        assert await queue.renew("w1", {"active": "1"}) == {job.fence: job_id}
        assert await queue.take_over(limit=10) == []
        await asyncio.sleep(0.1)


async def test_released_job_goes_to_the_front_unblamed(queue: Queue) -> None:
    """A job handed back by a stopping worker is next in line with its attempt and delivery as they were."""
    for key in ("a", "b"):
        await queue.submit(new_job(key))
    (job,) = await queue.claim("w1", limit=1)
    await queue.settle("w1", [outcome(job, OutcomeKind.RELEASED)])
    await queue.leave("w1")
    assert await queue.live_workers() == set()
    (again,) = await queue.claim("w2", limit=1)
    assert (again.job_id, again.attempt, again.delivery) == (job.job_id, 1, 1)


async def test_leaving_with_jobs_hands_them_over_at_once(queue: Queue) -> None:
    """A worker that leaves while it holds a job gives up its lease now, not after it has run out."""
    await queue.submit(new_job())
    (job,) = await queue.claim("w1", limit=1)
    await queue.leave("w1")
    assert [taken.job_id for taken in await queue.take_over(limit=10)] == [job.job_id]


async def test_cancelled_before_any_claim_ends_at_once(queue: Queue, client: redis.asyncio.Redis) -> None:
    """A waiting job that no worker ever saw is cancelled on the spot and leaves nothing behind."""
    job_id = (await queue.submit(new_job())).job_id
    assert await queue.request_cancel(job_id, reason="changed my mind", by="user-1") is JobState.CANCELLED
    assert await places(queue, client, job_id) == []
    assert await queue.payload(job_id) is None
    assert await queue.claim("w1", limit=1) == []
    assert await queue.cancel_requested(job_id) == "changed my mind"
    assert 0 < await client.ttl(f"job:cancel:{job_id}") <= 86_400
    assert (await queue.request_cancel(job_id, reason="again", by="user-1")).terminal
    with pytest.raises(UnknownJobError):
        await queue.request_cancel("job-none", reason="", by="user-1")


async def test_cancelled_while_running_is_seen_by_the_worker(queue: Queue) -> None:
    """A running job stays with its worker, which finds the request, for this delivery only."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    assert await queue.cancelled_among([job]) == {}
    assert await queue.request_cancel(job_id, reason="too slow", by="user-1") is JobState.RUNNING
    assert await queue.cancelled_among([job]) == {job.fence: "too slow"}
    assert (await queue.fetch(job))[1] == "too slow"
    await queue.settle("w1", [outcome(job, OutcomeKind.CANCELLED)])
    view = await queue.get(job_id)
    assert view is not None
    assert view.state is JobState.CANCELLED
    assert await queue.payload(job_id) is None


async def test_cancelled_with_a_former_owner_goes_through_a_worker(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """A delayed job that was claimed before is brought forward, so that a worker shuts the old owner out first."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    await queue.settle("w1", [outcome(job, OutcomeKind.RETRY, delay_ms=60_000, code="EMBEDDING_TIMEOUT")])
    assert await queue.request_cancel(job_id, reason="no", by="user-1") is JobState.RETRYING
    assert await places(queue, client, job_id) == ["ready:high"]
    (again,) = await queue.claim("w1", limit=1)
    assert (await queue.fetch(again))[1] == "no"


async def test_old_cancel_request_does_not_touch_a_requeued_job(queue: Queue) -> None:
    """A request meant for the job's former life is void after a requeue."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    await queue.request_cancel(job_id, reason="old", by="user-1")
    await queue.settle("w1", [outcome(job, OutcomeKind.DEAD, code="VALIDATION_ERROR")])
    await queue.requeue(job_id)
    (again,) = await queue.claim("w1", limit=1)
    assert (await queue.fetch(again))[1] is None


async def test_request_written_by_hand_counts_for_one_life_only(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """A hash job:cancel:<id> with a reason alone cancels the job (spec D1), but not the same work submitted later."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    await client.hset(f"job:cancel:{job_id}", mapping={"reason": "by hand"})
    assert await queue.cancelled_among([job]) == {job.fence: "by hand"}
    await queue.close_requests([job])
    assert await queue.cancelled_among([job]) == {job.fence: "by hand"}
    assert await queue.cancelled_among([replace(job, queued_ms=job.queued_ms + 1)]) == {}
    assert await client.ttl(f"job:cancel:{job_id}") > 0


async def test_stats_of_a_worker_are_added_once(queue: Queue) -> None:
    """A heartbeat that is repeated because its answer was lost adds its counters once."""
    for _ in range(3):
        await queue.renew("w1", {"token_used_pct": "12.5"}, stats={"rate_limited": 2.0}, flush=1)
    await queue.renew("w1", {}, stats={"rate_limited": 1.0}, flush=2)
    gauges = await queue.gauges()
    assert (gauges.stats["rate_limited"], gauges.workers, gauges.token_used_pct) == (3.0, 1, 12.5)


async def test_gauges_count_only_jobs_under_a_live_lease(queue: Queue) -> None:
    """Jobs of a dead worker are not active, and its facts leave the gauges with its lease."""
    await queue.submit(new_job())
    await queue.claim("w1", limit=1)
    await queue.renew("w1", {"token_used_pct": "50"})
    gauges = await queue.gauges()
    assert (gauges.active_jobs, gauges.workers, gauges.token_used_pct) == (1, 1, 50.0)

    async def lease_is_gone() -> bool:
        return (await queue.gauges()).workers == 0

    await wait_until(lease_is_gone, what="the lease to run out")
    assert (await queue.gauges()).active_jobs == 0


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
