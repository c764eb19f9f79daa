"""The queue as plain Python: what `Queue` promises, without Redis. The state machine compares the two step by step.

Jobs are records in a dict, ready lists are lists, a lease is a moment, the clock is a number that the test turns. Times
are in ms. Where the order of an answer is left open (which of a dead worker's jobs comes first), the model is told what
was seen and checks that it was allowed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ragworker.job import (
    JOB_DURATION_BUCKETS_MS,
    TRANSITIONS,
    JobState,
    NewJob,
    Outcome,
    OutcomeKind,
)
from ragworker.queue import TakenOver

HISTOGRAM = "hist:rag_job_duration_ms:"

#: How long the record of a finished job stays: the default of RAG_JOB_HISTORY_SECONDS.
TTL_MS = 86_400_000

#: Dead workers that one call of `take_over` looks at.
WORKERS_AT_ONCE = 16


@dataclass
class Record:
    """One job as long as it is on record."""

    new: NewJob
    created_ms: int
    state: JobState = JobState.QUEUED
    queued_ms: int = 0
    attempt: int = 1
    lost: int = 0
    deliveries: int = 0
    fence: int | None = None
    settled: int | None = None
    cancel: str | None = None
    code: str | None = None
    progress: tuple[str, int, int] | None = None
    happened: list[str] = field(default_factory=lambda: ["submitted"])

    def becomes(self, state: JobState, event: str) -> None:
        """One step of the table in job.py."""
        assert state in TRANSITIONS[self.state], f"{self.state} -> {state} by {event}"
        self.state = state
        self.happened.append(event)


@dataclass
class Request:
    """A request to cancel; without a time when somebody wrote it by hand."""

    reason: str
    at_ms: int | None


@dataclass(frozen=True)
class Claim:
    """What a worker is told of a job that it gets."""

    job_id: str
    fence: int
    attempt: int
    delivery: int
    cancel: str | None


@dataclass
class Model:
    """One queue. `keep` finished jobs stay on record, none when it is 0."""

    lease_ms: int
    max_deliveries: int
    keep: int
    now: int = 1_700_000_000_000
    fence: int = 0
    paused: bool = False
    jobs: dict[str, Record] = field(default_factory=dict)
    ready: dict[str, list[str]] = field(default_factory=lambda: {"high": [], "normal": []})
    delayed: dict[str, int] = field(default_factory=dict)
    claims: dict[str, dict[str, int]] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    inbox: dict[str, list[Claim]] = field(default_factory=dict)
    flushes: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    stats: Counter[str] = field(default_factory=Counter)

    # What callers do

    def submit(self, batch: Sequence[tuple[str, NewJob]]) -> list[JobState | None]:
        """The state of each job that was known already, None for those that are accepted."""
        known: list[JobState | None] = []
        for job_id, new in batch:
            found = self.jobs.get(job_id)
            known.append(found.state if found else None)
            if found is None:
                self.finished.pop(job_id, None)
                self.jobs[job_id] = Record(new, created_ms=self.now, queued_ms=self.now)
                self.stats["submitted"] += 1
        for job_id, state in zip((job_id for job_id, _ in batch), known, strict=True):
            if state is None:
                self.ready[self.jobs[job_id].new.priority].append(job_id)
        if None in known:
            self._hand_out()
        return known

    def request_cancel(self, job_id: str, reason: str) -> JobState | None:
        """The state in which the request found the job, or `cancelled` when it ended it; None for no such job."""
        job = self.jobs.get(job_id)
        if job is None or job.state.terminal:
            return job.state if job else None
        self.requests[job_id] = Request(reason, self.now)
        found = job.state
        if found is not JobState.RUNNING and job.fence is None:
            self._leave_line(job_id)
            self._finish(job_id, JobState.CANCELLED, "cancelled")
            self.stats["cancelled"] += 1
            self._retire([job_id])
            return JobState.CANCELLED
        job.cancel = reason
        if found is not JobState.RUNNING:
            # A former owner may be about to commit: a worker shuts it out first, and at once.
            self._leave_line(job_id)
            self.ready["high"].insert(0, job_id)
            self._hand_out()
        return found

    def asked_to_cancel(self, job_id: str, queued_ms: int) -> str | None:
        """The reason, when a request belongs to the life of the job that began at `queued_ms`."""
        request = self.requests.get(job_id)
        if request is None or (request.at_ms is not None and request.at_ms < queued_ms):
            return None
        return request.reason

    def claim(self, worker: str, limit: int) -> list[Claim]:
        """What the worker gets: what was handed to it while it was idle, then from the lists."""
        self._promote()
        self.leases[worker] = self.now + self.lease_ms
        got = self.inbox.pop(worker, [])
        if len(got) < limit:
            got = got + self._claim_for(worker, limit - len(got))
        if got:
            self.idle.pop(worker, None)
        else:
            self.idle[worker] = limit
        self._hand_out()
        return got

    def settle(self, worker: str, outcomes: Sequence[Outcome]) -> list[bool]:
        """Which reports are taken, or were taken before."""
        if not outcomes:
            return []
        held = {(job_id, fence) for job_id, fence in self.claims.get(worker, {}).items()}
        answers, ended = [], []
        for outcome in outcomes:
            job = self.jobs.get(outcome.job_id)
            if (outcome.job_id, outcome.fence) in held:
                held.discard((outcome.job_id, outcome.fence))
                del self.claims[worker][outcome.job_id]
                self._settle(outcome)
                if outcome.kind in (OutcomeKind.DONE, OutcomeKind.CANCELLED):
                    ended.append(outcome.job_id)
                answers.append(True)
            else:
                answers.append(job is not None and job.settled == outcome.fence)
        if ended:
            self._retire(ended)
        self._hand_out()
        return answers

    def renew(self, worker: str, flush: int, answers_429: int) -> dict[int, str]:
        """What the worker holds. Figures with a number that is not new were added before."""
        self.leases[worker] = self.now + self.lease_ms
        if flush > self.flushes.get(worker, 0):
            self.stats["rate_limited"] += answers_429
        self.flushes[worker] = max(flush, self.flushes.get(worker, 0))
        return {fence: job_id for job_id, fence in self.claims.get(worker, {}).items()}

    def take_over(self, limit: int, seen: Sequence[TakenOver]) -> None:
        """Move jobs of workers whose lease has run out; `seen` is what the queue says that it moved."""
        self._promote()
        self._forget_old()
        left = limit
        told = list(seen)
        expired = sorted((end, name) for name, end in self.leases.items() if end <= self.now)
        for _, worker in expired[:WORKERS_AT_ONCE]:
            held = self.claims.get(worker, {})
            moved, told = told[: min(len(held), left)], told[min(len(held), left) :]
            assert {taken.job_id for taken in moved} <= held.keys(), (moved, held)
            assert {taken.worker for taken in moved} <= {worker}
            for taken in moved:
                assert taken.dead is self._take(worker, taken.job_id)
            left -= len(moved)
            if held:
                break
            self._forget_worker(worker)
            del self.leases[worker]
        assert told == [], f"moved what was nobody's to move: {told}"
        self._hand_out()

    def leave(self, worker: str) -> None:
        """The worker goes; what it still holds is anybody's from now on."""
        self._forget_worker(worker)
        if self.claims.get(worker):
            self.leases[worker] = self.now
        else:
            self.leases.pop(worker, None)

    def requeue(self, job_id: str) -> bool:
        """A dead job starts afresh; anything else stays as it is."""
        job = self.jobs.get(job_id)
        if job is None or job.state is not JobState.DEAD:
            return False
        self.requests.pop(job_id, None)
        del self.dead[job_id]
        job.becomes(JobState.QUEUED, "requeued")
        job.queued_ms, job.attempt, job.lost, job.deliveries = self.now, 1, 0, 0
        job.cancel = job.code = None
        self.ready[job.new.priority].append(job_id)
        self._hand_out()
        return True

    def purge(self, job_id: str) -> bool:
        """A dead job is forgotten."""
        job = self.jobs.get(job_id)
        if job is None or job.state is not JobState.DEAD:
            return False
        del self.dead[job_id], self.jobs[job_id]
        return True

    def rolled_back(self, job_id: str) -> bool:
        """What a done job did was undone."""
        job = self.jobs.get(job_id)
        if job is None or job.state is not JobState.DONE:
            return False
        job.becomes(JobState.CANCELLED, "rolled_back")
        return True

    def progress(self, job_id: str, stage: str, done: int, total: int) -> None:
        """Heard only while the job runs."""
        job = self.jobs.get(job_id)
        if job is not None and job.state is JobState.RUNNING:
            job.progress = (stage, done, total)

    # What is to be seen

    def places(self, job_id: str) -> list[str]:
        """Every place in which the job is."""
        found = [f"ready:{name}" for name, ids in self.ready.items() for other in ids if other == job_id]
        found += ["delayed"] * (job_id in self.delayed) + ["dlq"] * (job_id in self.dead)
        return found + [f"claimed:{worker}" for worker, held in self.claims.items() if job_id in held]

    def live(self) -> list[str]:
        """Workers with a live lease."""
        return [worker for worker, end in self.leases.items() if end > self.now]

    # The parts of a step

    def _promote(self) -> None:
        due = sorted((at, job_id) for job_id, at in self.delayed.items() if at <= self.now)
        for _, job_id in due:
            del self.delayed[job_id]
            self.ready[self.jobs[job_id].new.priority].append(job_id)

    def _claim_for(self, worker: str, limit: int) -> list[Claim]:
        got: list[Claim] = []
        while not self.paused and len(got) < limit and any(self.ready.values()):
            job_id = (self.ready["high"] or self.ready["normal"]).pop(0)
            job = self.jobs[job_id]
            self.fence = max(self.fence + 1, self.now)
            job.becomes(JobState.RUNNING, "claimed")
            job.fence, job.deliveries = self.fence, job.lost + 1
            self.claims.setdefault(worker, {})[job_id] = self.fence
            got.append(Claim(job_id, self.fence, job.attempt, job.deliveries, job.cancel))
        return got

    def _hand_out(self) -> None:
        while self.idle and any(self.ready.values()) and not self.paused:
            room, worker = max((room, worker) for worker, room in self.idle.items())
            del self.idle[worker]
            if worker in self.live():
                self.inbox.setdefault(worker, []).extend(self._claim_for(worker, room))

    def _settle(self, outcome: Outcome) -> None:
        job_id, job = outcome.job_id, self.jobs[outcome.job_id]
        job.settled = outcome.fence
        if outcome.kind is OutcomeKind.DONE:
            self._finish(job_id, JobState.DONE, "done")
            self.stats["committed"] += 1
            self._observe(job)
        elif outcome.kind is OutcomeKind.CANCELLED:
            self._finish(job_id, JobState.CANCELLED, "cancelled")
            self.stats["cancelled"] += 1
        elif outcome.kind is OutcomeKind.DEAD:
            assert outcome.error is not None
            self._bury(job_id, outcome.error.code)
        elif outcome.kind is OutcomeKind.RETRY:
            assert outcome.error is not None
            job.becomes(JobState.RETRYING, "retry_scheduled")
            job.attempt, job.code = job.attempt + 1, outcome.error.code
            self.stats["retried"] += 1
            self.stats[f"failed:{job.code}"] += 1
            if job.cancel is None:
                self.delayed[job_id] = self.now + outcome.delay_ms
            else:
                self.ready["high"].insert(0, job_id)
        else:
            job.becomes(JobState.QUEUED, "released")
            self.ready[job.new.priority].insert(0, job_id)

    def _take(self, worker: str, job_id: str) -> bool:
        del self.claims[worker][job_id]
        job = self.jobs[job_id]
        self.stats["taken_over"] += 1
        if job.lost + 1 >= self.max_deliveries:
            job.settled = None
            self._bury(job_id, "WORKER_CRASHED")
            return True
        job.becomes(JobState.QUEUED, "taken_over")
        job.lost += 1
        self.ready[job.new.priority].insert(0, job_id)
        return False

    def _bury(self, job_id: str, code: str) -> None:
        job = self.jobs[job_id]
        self._finish(job_id, JobState.DEAD, "dead")
        job.code = code
        self.dead[job_id] = self.now
        self.stats["dead"] += 1
        self.stats[f"failed:{code}"] += 1
        self._observe(job)

    def _finish(self, job_id: str, state: JobState, event: str) -> None:
        self.jobs[job_id].becomes(state, event)
        self.stats[f"finished:{state}"] += 1

    def _observe(self, job: Record) -> None:
        took = max(0, self.now - job.queued_ms)
        border = next((str(border) for border in JOB_DURATION_BUCKETS_MS if took <= border), "+Inf")
        for name, by in ((border, 1), ("count", 1), ("sum", took)):
            self.stats[HISTOGRAM + name] += by

    def _retire(self, ended: Sequence[str]) -> None:
        if self.keep == 0:
            self._forget(ended)
        else:
            self.finished |= dict.fromkeys(ended, self.now)
            self._forget_old()

    def _forget_old(self) -> None:
        line = sorted(self.finished, key=lambda job_id: (self.finished[job_id], job_id))
        expired = sum(ended <= self.now - TTL_MS for ended in self.finished.values())
        old = line[: max(expired, len(line) - self.keep, 0)]
        self._forget(old)
        for job_id in old:
            del self.finished[job_id]

    def _forget(self, ids: Sequence[str]) -> None:
        for job_id in ids:
            self.jobs.pop(job_id, None)

    def _leave_line(self, job_id: str) -> None:
        for ids in self.ready.values():
            if job_id in ids:
                ids.remove(job_id)
        self.delayed.pop(job_id, None)

    def _forget_worker(self, worker: str) -> None:
        self.idle.pop(worker, None)
        self.inbox.pop(worker, None)
        self.flushes.pop(worker, None)
