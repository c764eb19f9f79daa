"""What the Lua scripts promise about leases, take-overs, cancellation and figures, on every Redis here."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio
from core_parts import kept_document, live_workers, new_job, outcome, places, wait_until

from ragworker.job import JobState, OutcomeKind
from ragworker.queue import Queue, UnknownJobError

pytestmark = pytest.mark.anyio


async def test_expired_lease_moves_all_jobs_to_the_front(queue: Queue, client: redis.asyncio.Redis) -> None:
    """Jobs of a worker whose lease ran out go first, as one more delivery of the same attempt."""
    lost = [(await queue.submit(new_job(str(n)))).job_id for n in range(3)]
    jobs = await queue.claim("w1", limit=3)
    waiting = (await queue.submit(new_job("later"))).job_id
    assert await queue.take_over(limit=10) == []
    await wait_until(lambda: queue.take_over(limit=2), what="the lease to run out")
    await queue.take_over(limit=2)
    assert "w1" not in await live_workers(queue, client)
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


async def test_job_that_outlives_its_deliveries_is_dead(queue: Queue, client: redis.asyncio.Redis) -> None:
    """After three lost workers (max_deliveries=3) the job is a dead letter with WORKER_CRASHED."""
    job_id = (await queue.submit(new_job())).job_id
    for worker in ("w1", "w2", "w3"):
        (job,) = await queue.claim(worker, limit=1)
        await wait_until(lambda: queue.take_over(limit=10), what="the lease to run out")
    assert await queue.claim("w4", limit=1) == []
    # The last of them was only slow: its word comes too late, and it is told so.
    assert await queue.settle("w3", [outcome(job, OutcomeKind.DONE)]) == [False]
    view = await queue.get(job_id)
    assert view is not None
    assert view.error is not None
    assert (view.state, view.error.code, view.deliveries) == ("dead", "WORKER_CRASHED", 3)
    assert await kept_document(queue, client, job_id) == b"one two three"


async def test_renewed_lease_is_not_taken_over(queue: Queue) -> None:
    """A worker that renews keeps its jobs; its answer lists them, so a claim whose answer was lost is seen."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    for _ in range(8):
        assert await queue.renew("w1", {"active": "1"}) == {job.fence: job_id}
        assert await queue.take_over(limit=10) == []
        await asyncio.sleep(0.1)


async def test_released_job_goes_to_the_front_unblamed(queue: Queue, client: redis.asyncio.Redis) -> None:
    """A job handed back by a stopping worker is next in line with its attempt and delivery as they were."""
    for key in ("a", "b"):
        await queue.submit(new_job(key))
    (job,) = await queue.claim("w1", limit=1)
    await queue.settle("w1", [outcome(job, OutcomeKind.RELEASED)])
    await queue.leave("w1")
    assert await live_workers(queue, client) == set()
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
    assert await kept_document(queue, client, job_id) is None
    assert await queue.claim("w1", limit=1) == []
    assert await client.hget(f"job:cancel:{job_id}", "reason") == b"changed my mind"
    assert 0 < await client.ttl(f"job:cancel:{job_id}") <= 86_400
    assert (await queue.request_cancel(job_id, reason="again", by="user-1")).terminal
    with pytest.raises(UnknownJobError):
        await queue.request_cancel("job-none", reason="", by="user-1")


async def test_cancelled_while_running_is_seen_by_the_worker(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """A running job stays with its worker, which finds the request, for this delivery only."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    assert await queue.cancelled_among([job]) == {}
    assert await queue.request_cancel(job_id, reason="too slow", by="user-1") is JobState.RUNNING
    assert await queue.cancelled_among([job]) == {job.fence: "too slow"}
    await queue.settle("w1", [outcome(job, OutcomeKind.CANCELLED)])
    view = await queue.get(job_id)
    assert view is not None
    assert view.state is JobState.CANCELLED
    assert await kept_document(queue, client, job_id) is None


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
    assert again.cancel == "no"


async def test_cancelled_while_its_attempt_fails_does_not_wait_for_the_retry(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """A request that meets the end of a failing attempt is not put off by the delay: the job is looked at at once."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    assert await queue.request_cancel(job_id, reason="now", by="user-1") is JobState.RUNNING
    await queue.settle("w1", [outcome(job, OutcomeKind.RETRY, delay_ms=125_000, code="EMBEDDING_TIMEOUT")])
    assert await places(queue, client, job_id) == ["ready:high"]
    (again,) = await queue.claim("w1", limit=1)
    assert again.cancel == "now"


async def test_a_request_of_an_earlier_delivery_hurries_no_later_one(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """The mark of a request belongs to the delivery that it met: a requeued job waits for its retries as ever."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    await queue.request_cancel(job_id, reason="too late", by="user-1")
    await queue.settle("w1", [outcome(job, OutcomeKind.DEAD, code="VALIDATION_ERROR")])
    assert await queue.requeue(job_id)
    (again,) = await queue.claim("w1", limit=1)
    await queue.settle("w1", [outcome(again, OutcomeKind.RETRY, delay_ms=125_000, code="EMBEDDING_TIMEOUT")])
    assert await places(queue, client, job_id) == ["delayed"]


async def test_old_cancel_request_does_not_touch_a_requeued_job(queue: Queue) -> None:
    """A request meant for the job's former life is void after a requeue."""
    job_id = (await queue.submit(new_job())).job_id
    (job,) = await queue.claim("w1", limit=1)
    await queue.request_cancel(job_id, reason="old", by="user-1")
    await queue.settle("w1", [outcome(job, OutcomeKind.DEAD, code="VALIDATION_ERROR")])
    await queue.requeue(job_id)
    (again,) = await queue.claim("w1", limit=1)
    assert again.cancel is None
    assert await queue.cancelled_among([again]) == {}


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
    assert await queue.cancelled_among([job._replace(queued_ms=job.queued_ms + 1)]) == {}
    assert await client.ttl(f"job:cancel:{job_id}") > 0


async def test_a_key_that_is_no_hash_harms_no_neighbour(queue: Queue, client: redis.asyncio.Redis) -> None:
    """Somebody's string under job:cancel:<id> is no request, hides nobody else's, and gives way to a real one."""
    jobs = [await queue.submit(new_job(str(number))) for number in range(2)]
    claimed = await queue.claim("w1", limit=2)
    bad, good = claimed
    assert [job.job_id for job in claimed] == [job.job_id for job in jobs]
    await client.set(f"job:cancel:{bad.job_id}", "1")
    await client.hset(f"job:cancel:{good.job_id}", mapping={"reason": "enough"})
    assert await queue.cancelled_among(claimed) == {good.fence: "enough"}
    assert await queue.request_cancel(bad.job_id, reason="now", by="user-1") is JobState.RUNNING
    assert await queue.cancelled_among(claimed) == {bad.fence: "now", good.fence: "enough"}


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
