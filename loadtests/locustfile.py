"""Users of the document service: each submits small real texts, listens to the job's event stream, polls
its state.

Works alone (`locust -f loadtests/locustfile.py --host URL`, with Locust's page) and as the load step of
`readiness run`, which hands it a plan by READINESS_LOAD_* variables. Arrivals are decided beforehand and do
not wait for answers; every request, job and stream is written to READINESS_LOAD_LOG as it ended, also those
that never ended. Nothing is judged here.
"""

from __future__ import annotations

import json
import logging
import os
import random
import secrets
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import gevent
from gevent.event import Event
from gevent.pool import Pool
from locust import FastHttpUser, events, task
from locust.env import Environment

from readiness.load import plan as plans
from readiness.load.arrivals import endless_arrivals, planned_arrivals
from readiness.load.rawlog import RawLog
from readiness.load.sse import EventReader
from readiness.recount import decode, html_words

ARRIVALS_PER_USER_SECOND = 0.5  # by hand: about one document every two seconds a user, gentle on a laptop
MAX_ARRIVALS_BY_HAND = 100_000  # a page left open over the weekend must not fill the database
MAX_JOBS_IN_FLIGHT = 50  # a user; beyond it arrivals are dropped, counted and shown
FIRST_POLL_SECONDS = (0.15, 0.6)  # random, so that polls do not march in step either
POLL_SECONDS = (0.7, 1.3)
TICK_SECONDS = 0.1
JOB_SECONDS = 900.0  # by hand: a job that never ends is given up, long after four retries could have helped
END_GRACE_SECONDS = 10.0  # how long after its job's end a stream may still be silent about it
TERMINAL = ("done", "dead", "cancelled")
SUBMIT, STATUS, EVENTS = "/rag/jobs", "/rag/jobs/{id}", "/rag/jobs/{id}/events"

PLAN = plans.plan_of(os.environ)
SEED = PLAN.seed if PLAN else int(os.environ.get(plans.SEED_VARIABLE, "") or secrets.randbelow(2**31))
DRAIN_SECONDS = PLAN.drain_seconds if PLAN else plans.DRAIN_SECONDS
LOG = RawLog(Path(os.environ[plans.LOG_VARIABLE]) if os.environ.get(plans.LOG_VARIABLE) else None)


def read_words() -> list[str]:
    """The words of the sample pages beside this file: the text that users submit is cut from them."""
    pages = sorted((Path(__file__).resolve().parent / "samples").glob("*.html"))
    if not pages:
        raise SystemExit("locustfile: expected HTML samples in samples/ beside it, found none.")
    return [word for page in pages for word in html_words(decode(page.read_bytes()))]


WORDS = read_words()


class Generator:
    """What all users of this process share: the start of the test, the numbering of users, the count of
    jobs.
    """

    def __init__(self) -> None:
        self.schedule = planned_arrivals(PLAN) if PLAN else []
        self.begin()

    def begin(self) -> None:
        """A test starts (by hand more than one may, one after the other)."""
        self.started = time.monotonic()
        self.run = secrets.token_hex(4)  # keys of two runs against one service must differ
        self.users = count()
        self.jobs = 0
        self.ended = 0
        self.due = sum(len(moments) for moments in self.schedule)

    def arrivals(self, user: int) -> Iterator[float]:
        """Monotonic moments at which user number `user` submits."""
        if not PLAN:
            here = time.monotonic()
            rate = ARRIVALS_PER_USER_SECOND
            return (here + moment for moment in endless_arrivals(per_second=rate, seed=SEED, user=user))
        mine = self.schedule[user] if user < len(self.schedule) else []
        return (self.started + moment for moment in mine)


GENERATOR = Generator()


class DocumentUser(FastHttpUser):
    """Submits documents when they are due; each job has a greenlet that listens and one that polls."""

    network_timeout = plans.REQUEST_SECONDS
    connection_timeout = plans.REQUEST_SECONDS
    concurrency = 2 * MAX_JOBS_IN_FLIGHT  # no request ever waits for a connection of the generator

    def on_start(self) -> None:
        self.number = next(GENERATOR.users)
        self.source = random.Random(SEED * 7919 + self.number)
        self.in_flight = Pool(MAX_JOBS_IN_FLIGHT)
        self.moments = GENERATOR.arrivals(self.number)
        self.next_moment = next(self.moments, None)
        token = os.environ.get(plans.TOKEN_VARIABLE, "")
        # A connection for each request, as many clients have it: one that is kept may be closed by the server's idle
        # timeout in the very moment of its next use, and that would count as a failure of the service.
        self.headers = {"Connection": "close", **({"Authorization": f"Bearer {token}"} if token else {})}

    def wait_time(self) -> float:
        """Seconds until the next arrival is due."""
        return 1.0 if self.next_moment is None else max(0.0, self.next_moment - time.monotonic())

    @task
    def submit_what_is_due(self) -> None:
        while self.next_moment is not None and self.next_moment <= time.monotonic():
            planned, self.next_moment = self.next_moment, next(self.moments, None)
            if not PLAN and GENERATOR.jobs >= MAX_ARRIVALS_BY_HAND:
                self.next_moment = None
            elif self.in_flight.free_count() == 0:
                LOG.write("dropped", {"at": time.monotonic(), "user": self.number})
            else:
                GENERATOR.jobs += 1
                self.in_flight.spawn(Job(self, planned, serial=GENERATOR.jobs).run)

    def on_stop(self) -> None:
        """Let jobs in flight end, within a bound; what is cut off then is written down as such, not
        dropped.
        """
        self.in_flight.join(timeout=DRAIN_SECONDS)
        self.in_flight.kill(block=True, timeout=plans.REQUEST_SECONDS)

    def text(self, serial: int) -> str:
        """A text that no other job has, cut from the samples."""
        words = self.source.randint(40, plans.LONGEST_DOCUMENT_WORDS - 10)
        first = self.source.randrange(len(WORDS) - words)
        return f"Reading {serial} of run {GENERATOR.run}. {' '.join(WORDS[first : first + words])}"


class Job:
    """One document's way: submitted, listened to and polled until it ended or was cut off."""

    def __init__(self, user: DocumentUser, planned: float, *, serial: int) -> None:
        self.user = user
        self.serial = serial
        self.planned = planned
        self.job_id = ""
        self.state = ""
        self.ended_at: float | None = None
        self.server_ms: object = None
        self.ended = Event()

    def run(self) -> None:
        """The whole way. A job line is written whatever happens, also when the greenlet is killed."""
        submitted = time.monotonic()
        listener = None
        try:
            self.submit()
            if self.job_id:
                listener = gevent.spawn(Stream(self).listen)
                self.poll()
                listener.join(timeout=END_GRACE_SECONDS)
        finally:
            if listener is not None:
                listener.kill()
            GENERATOR.ended += 1
            LOG.write(
                "job",
                {
                    "user": self.user.number,
                    "planned": self.planned,
                    "at": submitted,
                    "job_id": self.job_id,
                    "accepted": bool(self.job_id),
                    "state": self.state,
                    "ended": self.ended_at,
                    "server_ms": self.server_ms,
                },
            )

    def submit(self) -> None:
        """Hand the text in; `job_id` stays empty when it was not accepted."""
        text = self.user.text(self.serial)
        name = f"reading-{GENERATOR.run}-{self.serial}"
        body = {"text": text, "name": f"{name}.txt", "media_type": "text/plain"}
        answer = self.call("POST", SUBMIT, name=SUBMIT, json=body, headers={"Idempotency-Key": name})
        self.job_id = str(answer.get("job_id", ""))

    def poll(self) -> None:
        """Ask for the state now and then until the job ended or is given up."""
        wait = FIRST_POLL_SECONDS
        deadline = time.monotonic() + JOB_SECONDS
        while time.monotonic() < deadline:
            self.ended.wait(timeout=self.user.source.uniform(*wait))
            wait = POLL_SECONDS
            answer = self.call("GET", f"/rag/jobs/{self.job_id}", name=STATUS)
            self.server_ms = answer.get("duration_ms")
            if answer.get("state") in TERMINAL:
                self.end(str(answer["state"]))
                return
            if self.ended.is_set():  # the stream said so, the status does not yet: do not spin
                gevent.sleep(TICK_SECONDS)

    def end(self, state: str) -> None:
        """Whoever learns of the end first sets its moment; the status, asked last, has the last word on the
        state.
        """
        self.state = state
        if self.ended_at is None:
            self.ended_at = time.monotonic()
        self.ended.set()

    def call(self, method: str, path: str, *, name: str, **options: object) -> dict[str, object]:
        """One API request; its line is written whatever came. The JSON object of a good answer, else {}."""
        at, wall = time.monotonic(), time.time()
        headers = {**self.user.headers, **options.pop("headers", {})}
        body: dict[str, object] = {}
        problem: str | None = "cut off"
        status = 0
        try:
            with self.user.client.request(
                method, path, name=name, headers=headers, catch_response=True, **options
            ) as response:
                status = response.status_code
                body, problem = read_answer(response)
                if problem:
                    response.failure(problem)
        finally:
            duration = (time.monotonic() - at) * 1000
            LOG.write(
                "request",
                {
                    "name": f"{method} {name}",
                    "at": at,
                    "wall": wall,
                    "duration_ms": round(duration, 3),
                    "status": status,
                    "exception": problem,
                },
            )
        return body


def read_answer(response: object) -> tuple[dict[str, object], str | None]:
    """The JSON object of a 2xx answer and None, or {} and what is wrong."""
    status = response.status_code
    if not status:
        return {}, repr(getattr(response, "error", "no answer"))[:200]
    if not 200 <= status < 300:
        return {}, f"status {status}"
    try:
        body = json.loads(response.content)
    except (ValueError, TypeError, OSError) as error:
        return {}, f"no JSON: {error!r}"[:200]
    return (body, None) if isinstance(body, dict) else ({}, "no JSON object")


class Stream:
    """The event stream of one job, on its own connection as a browser would have it, read as it comes in."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.reader = EventReader()
        self.events = 0
        self.octets = 0
        self.status = 0

    def listen(self) -> None:
        """Read until the `end` event. A stream line is written whatever happens."""
        at, wall = time.monotonic(), time.time()
        outcome, problem = "cut", "cut off before its end event"
        try:
            outcome, problem = self.read()
        finally:
            duration = (time.monotonic() - at) * 1000
            LOG.write(
                "stream",
                {
                    "job_id": self.job.job_id,
                    "at": at,
                    "wall": wall,
                    "duration_ms": round(duration, 3),
                    "opened": self.status == 200,
                    "status": self.status,
                    "outcome": outcome,
                    "events": self.events,
                    "heartbeats": self.reader.heartbeats,
                    "exception": problem,
                },
            )
            events.request.fire(
                request_type="SSE",
                name=EVENTS,
                response_time=duration,
                response_length=self.octets,
                exception=RuntimeError(problem) if problem else None,
                context={},
            )

    def read(self) -> tuple[str, str | None]:
        """How the stream ended: ended, refused, silent, broken; and what happened."""
        connection = connect(str(self.job.user.host))
        try:
            headers = {**self.job.user.headers, "Accept": "text/event-stream"}
            path = urlsplit(str(self.job.user.host)).path.rstrip("/")
            connection.request("GET", f"{path}/rag/jobs/{self.job.job_id}/events", headers=headers)
            response = connection.getresponse()
            self.status = response.status
            if response.status != 200:
                return "refused", f"status {response.status}"
            return self.read_events(response)
        except TimeoutError:
            return ("silent" if self.status else "refused"), "no byte in time"
        except (OSError, HTTPException, ValueError) as error:
            return ("broken" if self.status else "refused"), repr(error)[:200]
        finally:
            connection.close()

    def read_events(self, response: HTTPResponse) -> tuple[str, str | None]:
        """Read line by line as lines arrive."""
        while line := response.readline(65_536):
            self.octets += len(line)
            event = self.reader.line(line.decode("utf-8", "replace").rstrip("\r\n"))
            if event is None:
                continue
            self.events += 1
            if event.name == "end":
                state = json.loads(event.data).get("state", "")
                if state not in TERMINAL:
                    return "broken", f"end event with state {state!r}"
                self.job.end(state)
                return "ended", None
        return "broken", "closed without an end event"


def connect(host: str) -> HTTPConnection:
    """A connection of its own for one stream; a read that gets no byte for too long raises TimeoutError."""
    parts = urlsplit(host)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=plans.STREAM_SILENCE_SECONDS)


def watch_self(environment: Environment) -> None:
    """Write how late this process wakes up: a late generator measures itself. End the test when all is done."""
    while not PLAN or GENERATOR.ended < GENERATOR.due:
        due = time.monotonic() + TICK_SECONDS
        gevent.sleep(TICK_SECONDS)
        late = time.monotonic() - due
        fields = {"at": due, "late_ms": round(max(0.0, late) * 1000, 3), "cpu_seconds": time.process_time()}
        LOG.write("tick", fields)
        LOG.flush()
    gevent.spawn(environment.runner.quit)  # in a greenlet of its own, because it ends this one


@events.test_start.add_listener
def begin(environment: Environment, **_: object) -> None:
    """Write the plan and both clocks, start the watch."""
    GENERATOR.begin()
    LOG.write(
        "start",
        {
            "at": GENERATOR.started,
            "wall": time.time(),
            "pid": os.getpid(),
            "seed": SEED,
            "due": GENERATOR.due,
        },
    )
    GENERATOR.watch = gevent.spawn(watch_self, environment)
    logging.getLogger(__name__).info("seed %d; repeat with %s=%d", SEED, plans.SEED_VARIABLE, SEED)


@events.test_stop.add_listener
def end(environment: Environment, **_: object) -> None:
    """Write the totals; a log without this line comes from a generator that died."""
    del environment
    GENERATOR.watch.kill()
    LOG.write("stop", {"at": time.monotonic(), "wall": time.time(), "jobs": GENERATOR.jobs, "cut": LOG.cut})
    LOG.flush()
