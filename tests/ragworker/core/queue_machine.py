"""Hypothesis drives the queue and its model with the same steps and compares everything that can be seen.

The clock is turned by the test, on every Redis: the one line of the scripts that reads TIME reads a key instead, and so
does `request_cancel`. All else of the scripts runs as it is. A worker's crash is that nothing is heard of it any more;
a lost answer is a call whose answer nobody looks at. A record whose time is up is removed as Redis would remove it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import hypothesis.strategies as st
from core_parts import new_job
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from queue_model import HISTOGRAM, Claim, Model, Record, Request
from steered_queue import Client, Snapshot, SteeredPipelines, SteeredQueue

from ragworker import rows
from ragworker.intake import INLINE_BYTES
from ragworker.job import (
    ClaimedJob,
    EventKind,
    Figures,
    JobError,
    JobState,
    NewJob,
    Outcome,
    OutcomeKind,
    Priority,
    job_id_for,
)
from ragworker.queue import UnknownJobError
from ragworker.settings import QueueSettings

Answer = TypeVar("Answer")


LEASE_MS = 3000
GAUGES = ("queue_length", "active_jobs", "unfinished", "dlq_entries", "workers", "paused")
LARGE = b"x" * (INLINE_BYTES + 1)
DOCUMENTS = {"small": b"a small one", "large": LARGE}

keys = st.sampled_from("abcd")
sizes = st.sampled_from(["small", "small", "small", "large"])
priorities = st.sampled_from(list(Priority))
slots = st.integers(0, 2)
limits = st.integers(1, 3)
kinds = st.sampled_from(list(OutcomeKind))
delays = st.sampled_from([0, 40, 60_000])


class QueueMachine(RuleBasedStateMachine):
    """Four pieces of work, three workers at a time, one queue."""

    #: Set by the test: gives a client of the Redis that is tried, and how to break its scripts.
    open_client: Callable[[], Client]
    mutate: Callable[[str, str], str] = staticmethod(lambda _, text: text)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = self.do(self._opened())
        self.workers: list[str] = []
        self.born = 0
        self.known: list[tuple[str, ClaimedJob]] = []
        self.fences: set[int] = set()
        self.flush = 0

    async def _opened(self) -> Client:
        return type(self).open_client()

    def do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(work)

    @initialize(keep=st.sampled_from([0, 1, 2, 1000]), deliveries=st.sampled_from([1, 2, 20]))
    def begin(self, keep: int, deliveries: int) -> None:
        self.model = Model(lease_ms=LEASE_MS, max_deliveries=deliveries, keep=keep)
        settings = QueueSettings(lease_seconds=LEASE_MS / 1000, max_deliveries=deliveries, history_count=keep)
        self.queue = SteeredQueue(self.client, name="machine", settings=settings)
        self.queue.mutate = type(self).mutate
        self.client.pipeline = SteeredPipelines(self.client, self.queue.prefix)  # type: ignore[method-assign]  # the clock
        self.prefix = self.queue.prefix
        self.do(self._cleared())
        self.workers = [self._new_worker() for _ in range(3)]
        self._turn_clock(0)

    def teardown(self) -> None:
        try:
            self.do(self._cleared())
            self.do(self.client.aclose())
        finally:
            self.runner.close()

    async def _cleared(self) -> None:
        """The queue has the same name each time, because ids are made of it and break ties."""
        names = await self.client.keys(f"{self.prefix}*")
        names += [rows.cancel_key(self._id(key)).encode() for key in "abcd"]
        await self.client.delete(*names)

    # Time

    @rule(ms=st.sampled_from([1, 40, LEASE_MS, LEASE_MS + 1, 70_000, 10**9, -1, -LEASE_MS, -(10**7)]))
    def clock_jumps(self, ms: int) -> None:
        self._turn_clock(ms)

    def _turn_clock(self, ms: int) -> None:
        self.model.now += ms
        self.do(self.client.set(f"{self.prefix}clock", str(self.model.now)))

    # Producers

    @rule(key=keys, size=sizes, priority=priorities)
    def submit(self, key: str, size: str, priority: Priority) -> None:
        new = new_job(key, payload=DOCUMENTS[size], priority=priority)
        answer = self.do(self.queue.submit(new))
        (known,) = self.model.submit([(self._id(key), new)])
        assert (answer.job_id, answer.duplicate) == (self._id(key), known is not None)
        assert answer.state is (known or JobState.QUEUED)

    @rule(batch=st.lists(st.tuples(keys, sizes, priorities), min_size=2, max_size=6), at_once=st.booleans())
    def submit_several(self, batch: list[tuple[str, str, Priority]], at_once: bool) -> None:
        jobs = [new_job(key, payload=DOCUMENTS[size], priority=priority) for key, size, priority in batch]
        answers = self.do(self._submitted_at_once(jobs) if at_once else self.queue.submit_many(jobs))
        known = self.model.submit([(self._id(job.key), job) for job in jobs])
        told = [(answer.state, answer.duplicate) for answer in answers]
        assert told == [(state or JobState.QUEUED, state is not None) for state in known]

    async def _submitted_at_once(self, jobs: list[NewJob]) -> list[Any]:
        return await asyncio.gather(*map(self.queue.submit, jobs))

    @rule(key=keys)
    def ask_to_cancel(self, key: str) -> None:
        self._ask_to_cancel(self._id(key))

    def _ask_to_cancel(self, job_id: str) -> None:
        expected = self.model.request_cancel(job_id, "no longer wanted")
        try:
            state = self.do(self.queue.request_cancel(job_id, reason="no  longer\nwanted", by="u"))
        except UnknownJobError:
            assert expected is None
        else:
            assert state is expected

    @rule(key=keys)
    def write_request_by_hand(self, key: str) -> None:
        reason = "by hand"
        self.do(self.client.hset(rows.cancel_key(self._id(key)), mapping={"reason": reason}))
        self.model.requests.setdefault(self._id(key), Request(reason, None)).reason = reason

    # Workers

    @rule(slot=slots, limit=limits, answer_lost=st.sampled_from([False, False, False, True]))
    def claim(self, slot: int, limit: int, answer_lost: bool) -> None:
        jobs = self.do(self.queue.claim(self.workers[slot], limit=limit))
        self._got(self.workers[slot], jobs, self.model.claim(self.workers[slot], limit), lost=answer_lost)

    @precondition(lambda self: any(self.model.inbox.values()))
    @rule(answer_lost=st.sampled_from([False, False, False, True]))
    def read_inbox(self, answer_lost: bool) -> None:
        worker = next(worker for worker, claims in self.model.inbox.items() if claims)
        jobs = self.do(self.queue.wait_for_work(worker, 1.0))
        self._got(worker, jobs, [self.model.inbox[worker].pop(0)], lost=answer_lost)

    def _got(self, worker: str, jobs: list[ClaimedJob], expected: list[Claim], *, lost: bool) -> None:
        told = [Claim(job.job_id, job.fence, job.attempt, job.delivery, job.cancel) for job in jobs]
        assert told == expected
        if not lost:
            self.known += [(worker, job) for job in jobs]
            self.known = self.known[-12:]

    @precondition(lambda self: self._held())
    @rule(pick=st.integers(0, 11), count=limits, kind=kinds, delay_ms=delays, again=st.booleans())
    def settle(self, pick: int, count: int, kind: OutcomeKind, delay_ms: int, again: bool) -> None:
        """A worker reports on what it holds; sometimes twice in one call, as after a lost answer."""
        held = self._held()
        worker = held[pick % len(held)][0]
        jobs = [job for owner, job in held if owner == worker][:count]
        self._settle(worker, jobs * (2 if again else 1), kind, delay_ms)

    @rule(
        slot=slots, limit=limits, kind=kinds, delay_ms=delays, cancelled=st.sampled_from([False, False, True])
    )
    def work(self, slot: int, limit: int, kind: OutcomeKind, delay_ms: int, cancelled: bool) -> None:
        """Claim and report; somebody may ask for the end of the first job in between."""
        self.claim(slot, limit, answer_lost=False)
        jobs = [job for owner, job in self._held() if owner == self.workers[slot]][-limit:]
        if jobs and cancelled:
            self._ask_to_cancel(jobs[0].job_id)
        if jobs:
            self._settle(self.workers[slot], jobs, kind, delay_ms)

    @precondition(lambda self: self.known)
    @rule(picks=st.lists(st.integers(0, 11), min_size=1, max_size=3), kind=kinds, delay_ms=delays, slot=slots)
    def settle_too_late_or_again(self, picks: list[int], kind: OutcomeKind, delay_ms: int, slot: int) -> None:
        """Reports on any delivery so far, by who had it or by another: mixed, repeated, out of time."""
        worker = self._picked(picks[0])[0] if picks[0] % 3 else self.workers[slot]
        self._settle(worker, [self._picked(pick)[1] for pick in picks], kind, delay_ms)

    def _settle(self, worker: str, jobs: list[ClaimedJob], kind: OutcomeKind, delay_ms: int) -> None:
        error = JobError("EMBEDDING_TIMEOUT", "too slow") if kind in ("retry", "dead") else None
        reports = [
            Outcome(job.job_id, job.fence, kind, delay_ms, error, Figures(words=3, chunks=1)) for job in jobs
        ]
        assert self.do(self.queue.settle(worker, reports)) == self.model.settle(worker, reports)

    @rule(slot=slots, again=st.booleans(), give_back=st.booleans())
    def renew(self, slot: int, again: bool, give_back: bool) -> None:
        """A heartbeat, or the one before once more; a worker may give back what it never heard of."""
        worker = self.workers[slot]
        self.flush += 0 if again else 1
        stats = {"rate_limited": 2.0}
        held = self.do(self.queue.renew(worker, {"active": "1"}, stats=stats, flush=self.flush))
        assert held == self.model.renew(worker, self.flush, 2)
        heard_of = {job.fence for owner, job in self.known if owner == worker}
        if give_back:
            reports = [Outcome(i, f, OutcomeKind.RELEASED) for f, i in held.items() if f not in heard_of]
            assert self.do(self.queue.settle(worker, reports)) == self.model.settle(worker, reports)

    @rule(slot=slots, how=st.sampled_from(["crash", "leave", "rest"]))
    def worker_goes(self, slot: int, how: str) -> None:
        worker = self.workers[slot]
        if how == "rest":
            self.do(self.queue.rest(worker))
            self.model.idle.pop(worker, None)
        elif how == "leave":
            self.do(self.queue.leave(worker))
            self.model.leave(worker)
        else:
            self.workers[slot] = self._new_worker()

    @precondition(lambda self: any(self.model.claims.values()))
    @rule(limit=st.sampled_from([1, 2, 50]))
    def everybody_crashes(self, limit: int) -> None:
        """And somebody comes when all leases have run out."""
        self.workers = [self._new_worker() for _ in self.workers]
        self._turn_clock(LEASE_MS)
        self.take_over(limit)

    @rule(limit=st.sampled_from([1, 2, 50]))
    def take_over(self, limit: int) -> None:
        self.model.take_over(limit, self.do(self.queue.take_over(limit=limit)))

    @precondition(lambda self: self.known)
    @rule(pick=st.integers(0, 11), close=st.booleans())
    def look_around(self, pick: int, close: bool) -> None:
        """Requests to cancel, whether a delivery still counts, and the document of one that does."""
        jobs = [job for _, job in self.known]
        asked = {job.fence: self.model.asked_to_cancel(job.job_id, job.queued_ms) for job in jobs}
        expected = {fence: reason for fence, reason in asked.items() if reason is not None}
        assert self.do(self.queue.cancelled_among(jobs)) == expected
        worker, job = self._picked(pick)
        holds = self.model.claims.get(worker, {}).get(job.job_id) == job.fence
        assert self.do(self.queue.holds(worker, job)) == holds
        if holds:
            assert self.do(self._read(job)) == self.model.jobs[job.job_id].new.payload
        if close:
            self.do(self.queue.close_requests([job]))
            request = self.model.requests.setdefault(job.job_id, Request("no reason given", job.queued_ms))
            request.at_ms = job.queued_ms if request.at_ms is None else request.at_ms

    async def _read(self, job: ClaimedJob) -> bytes:
        return b"".join([piece async for piece in self.queue.document(job)])

    # Operators

    @precondition(lambda self: self.model.dead)
    @rule(pick=st.integers(0, 3), verb=st.sampled_from(["requeue", "requeue", "purge"]))
    def look_after_a_dead_letter(self, pick: int, verb: str) -> None:
        job_id = sorted(self.model.dead)[pick % len(self.model.dead)]
        assert self.do(getattr(self.queue, verb)(job_id)) is getattr(self.model, verb)(job_id) is True

    @rule(key=keys, verb=st.sampled_from(["requeue", "purge", "rolled_back"]))
    def do_what_may_not_apply(self, key: str, verb: str) -> None:
        by = {"by": "u"} if verb == "rolled_back" else {}
        done = self.do(getattr(self.queue, verb)(self._id(key), **by))
        assert done is getattr(self.model, verb)(self._id(key))

    @rule(key=keys, done=st.integers(1, 9))
    def progress(self, key: str, done: int) -> None:
        self.do(self.queue.progress(self._id(key), "embed", done, 9))
        self.model.progress(self._id(key), "embed", done, 9)

    @rule()
    def pause(self) -> None:
        self.do(self.queue.pause())
        self.model.paused = True

    @precondition(lambda self: self.model.paused)
    @rule()
    def resume(self) -> None:
        self.do(self.queue.resume())
        self.model.paused = False

    @precondition(lambda self: self._ended())
    @rule(pick=st.integers(0, 3))
    def record_expires(self, pick: int) -> None:
        job_id = self._ended()[pick % len(self._ended())]
        del self.model.jobs[job_id]
        self.do(self.client.delete(f"{self.prefix}job:{job_id}"))

    # What must hold after every step

    @invariant()
    def all_that_is_seen_is_as_in_the_model(self) -> None:
        if self.workers:
            self.do(self._compare())

    async def _compare(self) -> None:
        model, queue = self.model, self.queue
        seen = await Snapshot.take(self.client, self.prefix)
        assert seen.ready == model.ready
        assert seen.delayed == model.delayed
        assert seen.dead == model.dead
        assert seen.claims == {worker: held for worker, held in model.claims.items() if held}
        assert seen.leases == model.leases
        assert seen.idle == model.idle
        inboxes = {
            worker: [(claim.job_id, claim.fence) for claim in claims]
            for worker, claims in model.inbox.items()
        }
        assert seen.inbox == {worker: claims for worker, claims in inboxes.items() if claims}
        assert set(seen.claims) <= set(seen.leases), "what nobody has a lease for is never taken over"
        assert seen.finished == model.finished
        assert seen.uploads == 0
        assert seen.jobs == set(model.jobs)
        assert seen.payloads == {
            i for i, job in model.jobs.items() if self._keeps(job) and job.new.payload == LARGE
        }
        for job_id, job in model.jobs.items():
            await self._compare_job(job_id, job)
        gauges = await queue.gauges()
        waiting = len([*model.ready["high"], *model.ready["normal"], *model.delayed])
        held = {worker: len(claims) for worker, claims in model.claims.items()}
        active = sum(held.get(worker, 0) for worker in model.live())
        known = [
            waiting,
            active,
            waiting + sum(held.values()),
            len(model.dead),
            len(model.live()),
            model.paused,
        ]
        assert [getattr(gauges, name) for name in GAUGES] == known
        # Counters that rise come from Redis in text; a bucket that was never hit may be absent or 0.
        assert {k: v for k, v in gauges.stats.items() if v} == {
            k: float(v) for k, v in model.stats.items() if v
        }
        assert gauges.stats.get(f"{HISTOGRAM}count", 0) == model.stats["committed"] + model.stats["dead"]
        newest_first = sorted(model.dead, key=lambda job_id: (model.dead[job_id], job_id), reverse=True)
        assert [view.job_id for view in await queue.dead_letters()] == newest_first
        given = {fence for held in seen.claims.values() for fence in held.values()}
        assert all(fence > max(self.fences, default=0) for fence in given - self.fences), "fences only rise"
        self.fences |= given

    async def _compare_job(self, job_id: str, job: Record) -> None:
        view = await self.queue.get(job_id)
        assert view is not None
        code = job.code if self._keeps(job) else None
        assert (view.state, view.attempt, view.deliveries) == (job.state, job.attempt, job.deliveries)
        assert (view.priority, view.bytes) == (job.new.priority, len(job.new.payload))
        assert (view.error.code if view.error else None) == code
        happened = [entry.event for entry in view.history]
        assert happened == job.happened[-len(happened) :]
        assert min(len(job.happened), 50) <= len(happened) < 68
        places = self.model.places(job_id)
        assert len(places) == self._keeps(job), f"{job_id} is {job.state} and in {places}"
        events = await self.queue.events(job_id)
        numbers = [int(event.event_id.partition("-")[2]) for event in events]
        assert numbers == sorted(set(numbers))
        ends = [n for n, event in enumerate(events) if event.kind is EventKind.END]
        assert len(ends) == sum(event in ("done", "dead", "cancelled", "rolled_back") for event in happened)
        assert (events[-1].kind is EventKind.END) == job.state.terminal
        told = [(e.stage, e.done, e.total) for e in events if e.kind is EventKind.PROGRESS]
        assert told == ([job.progress] if job.progress else [])

    def _ended(self) -> list[str]:
        return sorted(job_id for job_id, job in self.model.jobs.items() if not self._keeps(job))

    def _held(self) -> list[tuple[str, ClaimedJob]]:
        """Deliveries that a worker knows of and that are still its own."""
        claims = self.model.claims
        return [(w, job) for w, job in self.known if claims.get(w, {}).get(job.job_id) == job.fence]

    @staticmethod
    def _keeps(job: Record) -> bool:
        return job.state not in (JobState.DONE, JobState.CANCELLED)

    # Names

    def _new_worker(self) -> str:
        self.born += 1
        return f"w{self.born}"

    def _picked(self, pick: int) -> tuple[str, ClaimedJob]:
        return self.known[pick % len(self.known)]

    def _id(self, key: str) -> str:
        return job_id_for(queue=self.queue.name, user_id="user-1", key=key)
