"""One instance on which jobs meet every fate: done, retried, dead, cancelled, orphaned by a kill, each in each way.

Plays the scenario once and keeps what outside witnesses saw: jobs' histories, SQL, the embedding API's true log, the
client's own clock, and scrapes at the moments that matter. Judges nothing: many checks compare metrics with this.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from readiness.checking.ends import ends_of
from readiness.checking.exposition import Exposition, parse
from readiness.checking.history import Request, requests_of
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document

if TYPE_CHECKING:
    from readiness.targets.base import Effect, JobStatus, JsonObject, Lane

SLOTS = 3
LEASE_SECONDS = 1.5
SETTINGS: Mapping[str, Any] = {
    "RAG_WORKER_CONCURRENCY": SLOTS,
    "RAG_LEASE_SECONDS": LEASE_SECONDS,
    "RAG_RETRY_BASE_SECONDS": 0.004,  # 4, 20, 100, 500 ms instead of seconds
    "RAG_MAX_DELIVERIES": 2,
}
SLOW_MS = 250
HOLD_MS = 60_000  # longer than the scenario: such a job never ends by itself
PHASE_SECONDS = 25.0
QUIET_SECONDS = 10.0
STREAMS = 3
HOLD_WORDS = 170  # one chunk
TOKEN_BUDGET = 100_000  # RAG_MEMORY_TOKEN_BUDGET, default
HELD_PCT = 100 * SLOTS * ((HOLD_WORDS * 13 + 9) // 10) / TOKEN_BUDGET
CLIENT_CLOSED = 499
KINDS = {
    # How many documents of each kind; the name is in the text, so that the embedding API's script knows them.
    "plain": 3,
    "slow": 2,
    "failed-once": 2,
    "limited-once": 2,
    "garbled-once": 1,
    "never": 2,
    "rejected": 1,
}
BLANK = 2


@dataclass(slots=True)
class Fates:
    """What happened. `scrapes` by moment; `seconds` from a submit until the client knew of the end: no
    job can have taken longer.

    Moments: `start`, `ended` (first jobs), `held` (all slots hold a job, others wait), `streams` and `closed` (event
    streams open and closed), `killed` (no worker lives, its lease has run out), `end`.
    """

    lane: Lane
    jobs: dict[str, list[str]] = field(default_factory=dict)
    scrapes: dict[str, Exposition] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    statuses: dict[str, JobStatus | None] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    dead_letters: list[JsonObject] = field(default_factory=list)
    answers: list[tuple[str, str, int, float]] = field(default_factory=list)
    submitted: int = 0
    reconnects: int = 0
    trouble: list[str] = field(default_factory=list)

    @property
    def all_jobs(self) -> list[str]:
        """Every job, in the order of submission by kind."""
        return [job for jobs in self.jobs.values() for job in jobs]

    def events(self, *names: str) -> list[Any]:
        """Every line of every history with one of these names."""
        return [event for _, event in self.job_events(*names)]

    def job_events(self, *names: str) -> list[tuple[str, Any]]:
        """The same, with the job."""
        return [
            (job, event)
            for job, status in self.statuses.items()
            if status is not None
            for event in status.history
            if event.event in names
        ]

    def scrape(self, moment: str) -> None:
        """Keep a scrape under a name."""
        self.texts[moment] = self.lane.metrics()
        self.scrapes[moment] = parse(self.texts[moment])


def play(lane: Lane, *, seed: int) -> Fates:
    """Go through all of it. What does not come in time is noted in `trouble`, and the scenario goes on."""
    fates = Fates(lane)
    count_answers(fates)
    lane.script_embedding(script())
    fates.scrape("start")
    ordinary(fates, seed)
    fates.scrape("ended")
    fill_slots(fates, seed)
    fates.scrape("held")
    open_streams(fates)
    wait_in_line(fates, seed)
    orphan(fates)
    close(fates)
    return fates


def script() -> list[dict[str, Any]]:
    """How the embedding API treats each kind."""
    return [
        {"contains": "fate-slow", "delay_ms": SLOW_MS},
        {"contains": "fate-failed-once", "times": KINDS["failed-once"], "status": 500},
        {"contains": "fate-limited-once", "times": KINDS["limited-once"], "status": 429, "retry_after": 0.2},
        {"contains": "fate-garbled-once", "times": KINDS["garbled-once"], "garbage": "json"},
        {"contains": "fate-never", "status": 503},
        {"contains": "fate-rejected", "status": 400},
        # The first delivery hangs, the second one (after the kill) is let through.
        {"contains": "fate-orphan", "times": 1, "delay_ms": HOLD_MS},
        {"contains": "fate-poison", "delay_ms": HOLD_MS},
        {"contains": "fate-unwanted", "delay_ms": HOLD_MS},
    ]


def ordinary(fates: Fates, seed: int) -> None:
    """Jobs that end by themselves, a duplicate, a rollback, a requeue."""
    for kind, count in KINDS.items():
        fates.jobs[kind] = [submit(fates, f"fate-{kind}-{seed}-{number}") for number in range(count)]
    fates.jobs["blank"] = [
        submit(fates, " " * (number + 1), name=f"blank-{seed}-{number}") for number in range(BLANK)
    ]
    again = submit(fates, f"fate-plain-{seed}-0", duplicate=True)
    if again != fates.jobs["plain"][0]:
        fates.trouble.append(f"the same document again: expected job {fates.jobs['plain'][0]}, got {again}")
    wait_ends(fates, fates.all_jobs)
    client = fates.lane.http()
    client.post(f"/rag/jobs/{fates.jobs['plain'][1]}/rollback")
    fates.lane.requeue(fates.jobs["blank"][0])
    wait_ends(fates, fates.jobs["blank"])
    client.post("/ui/errors", json={"type": "network"})
    client.post("/ui/errors", json={"type": "something new"})
    drained(fates)


def fill_slots(fates: Fates, seed: int) -> None:
    """Every slot holds a job whose request hangs."""
    words = " ".join(f"w{number}" for number in range(HOLD_WORDS - 1))
    for kind in ("unwanted", "orphan", "poison"):
        fates.jobs[kind] = [submit(fates, f"fate-{kind}-{seed} {words}")]
    held(fates, [job for kind in ("unwanted", "orphan", "poison") for job in fates.jobs[kind]])


def wait_in_line(fates: Fates, seed: int) -> None:
    """Normal jobs, high ones, two that are cancelled while they wait; a running one is: its slot serves the rest."""
    lane = fates.lane
    for kind, priority, count in (("normal", "normal", 4), ("high", "high", 3), ("waiting", "normal", 2)):
        fates.jobs[kind] = [
            submit(fates, f"fate-{kind}-{seed}-{number}", priority=priority) for number in range(count)
        ]
    with suppress(WaitedTooLong):  # an older, smaller figure may stand there until the next heartbeat
        wait_until(
            lambda: parse(lane.metrics()).total("memory_token_used_pct") > HELD_PCT - 0.01,
            seconds=QUIET_SECONDS,
            what="the tokens of the jobs that hang",
        )
    fates.scrape("line")
    for job in fates.jobs["waiting"]:
        lane.cancel(job)
    for job in fates.jobs["unwanted"]:
        lane.cancel(job)
    wait_ends(
        fates, [*fates.jobs["waiting"], *fates.jobs["unwanted"], *fates.jobs["high"], *fates.jobs["normal"]]
    )


def orphan(fates: Fates) -> None:
    """The only worker is killed twice: one job is taken over and done, one dies of it."""
    lane = fates.lane
    reported(fates)
    lane.workers[-1].kill()
    with suppress(WaitedTooLong):  # what the gauges say then is judged by a check
        wait_until(
            lambda: not parse(lane.metrics()).total("rag_workers"),
            seconds=QUIET_SECONDS,
            what="the end of a lease",
        )
    fates.scrape("killed")
    lane.start_worker()
    wait_ends(fates, fates.jobs["orphan"])
    held(fates, fates.jobs["poison"])
    reported(fates)
    lane.workers[-1].kill()
    lane.start_worker()
    wait_ends(fates, fates.jobs["poison"])


def open_streams(fates: Fates) -> None:
    """Event streams of a running job, one new and the others resumed; all are closed by the client."""
    client, path = fates.lane.http(), f"/rag/jobs/{fates.jobs['poison'][0]}/events"
    headers = [{}, *({"Last-Event-ID": "1-1"} for _ in range(STREAMS - 1))]
    fates.reconnects = STREAMS - 1
    before = parse(fates.lane.metrics()).total("sse_connections_open")
    with ExitStack() as opened:
        for header in headers:
            opened.enter_context(client.stream("GET", path, headers=header))
        with suppress(WaitedTooLong):
            wait_until(
                lambda: parse(fates.lane.metrics()).total("sse_connections_open") == before + STREAMS,
                seconds=QUIET_SECONDS,
                what="open streams",
            )
        fates.scrape("streams")
    with suppress(WaitedTooLong):
        wait_until(
            lambda: not parse(fates.lane.metrics()).total("sse_connections_open"),
            seconds=QUIET_SECONDS,
            what="closed streams",
        )
    fates.scrape("closed")


def close(fates: Fates) -> None:
    """Wait for quiet and keep what the witnesses have."""
    drained(fates)
    reported(fates)
    lane = fates.lane
    fates.statuses = dict(ends_of(lane, fates.all_jobs, seconds=1))
    fates.effects = lane.effects()
    fates.dead_letters = lane.dead_letters()
    fates.requests = requests_of(lane.embedding_log())
    fates.scrape("end")


def submit(fates: Fates, text: str, *, name: str = "", priority: str = "", duplicate: bool = False) -> str:
    """Submit a text and return its job; counted unless it is known to be a duplicate."""
    fates.submitted += not duplicate
    begun = time.monotonic()
    if priority:
        body = {"text": text, "name": "line.txt", "priority": priority}
        job = str(fates.lane.http().post("/rag/jobs", json=body).json().get("job_id", ""))
    else:
        title = name or text.split(maxsplit=1)[0]
        job = fates.lane.enqueue(Document(f"{title}.txt", "text/plain", text.encode())).job_id
    fates.begun.setdefault(job, begun)
    return job


def wait_ends(fates: Fates, jobs: Sequence[str]) -> None:
    """Until all have ended, or the deadline, which is noted."""
    started = time.monotonic()
    for job, status in ends_of(fates.lane, jobs, seconds=PHASE_SECONDS).items():
        if status is None or not status.finished:
            fates.trouble.append(f"{job}: not ended within {time.monotonic() - started:.0f} s")
        fates.seconds[job] = time.monotonic() - fates.begun[job]


def held(fates: Fates, jobs: Sequence[str]) -> None:
    """Until a worker holds all these jobs."""
    attempt(
        fates,
        lambda: all(fates.lane.status(job).state == "running" for job in jobs),
        f"{len(jobs)} jobs in a worker's hands",
    )


def drained(fates: Fates) -> None:
    """Until nothing waits and nothing runs."""

    def quiet() -> bool:
        scrape = parse(fates.lane.metrics())
        return not scrape.total("rag_jobs_unfinished")

    attempt(fates, quiet, "an empty queue")


def reported(fates: Fates) -> None:
    """Until the worker has flushed its figures: they come with its heartbeat, and die with it."""
    answered = sum(
        1 for one in requests_of(fates.lane.embedding_log()) if one.status not in (0, CLIENT_CLOSED)
    )

    def flushed() -> bool:
        return parse(fates.lane.metrics()).total("embedding_api_latency_ms_count") >= answered

    attempt(fates, flushed, f"{answered} embedding requests in the metrics")


def attempt(fates: Fates, look: Any, what: str) -> None:
    """Wait; what does not come is noted."""
    try:
        wait_until(look, seconds=QUIET_SECONDS, what=what)
    except WaitedTooLong as late:
        fates.trouble.append(str(late))


def count_answers(fates: Fates) -> None:
    """Keep method, path, status and seconds of every answer that this client gets."""

    def note(answer: httpx.Response) -> None:
        request = answer.request
        started = request.extensions.get("started", time.monotonic())
        fates.answers.append(
            (request.method, request.url.path, answer.status_code, time.monotonic() - started)
        )

    def begin(request: httpx.Request) -> None:
        request.extensions["started"] = time.monotonic()

    client = fates.lane.http()
    client.event_hooks = {"request": [begin], "response": [note]}
