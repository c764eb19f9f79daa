"""A job's event stream: nothing is missing after a reconnect, it ends, it is never silent, and nobody waits for a slow
reader.

One instance serves all four; the idle streams are opened first and listened to beside the others.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from readiness.checking.exposition import parse
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.streams import SILENT, Heard, listen, taking_nothing, unsent_bytes
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.pytest_plugin import lane_factory
from readiness.targets.base import Lane, Target, TargetError

JOBS = 24
RETRIES = 2  # so that a job has several events, spread over some time
RETRY_BASE_SECONDS = 0.05
JOB_SECONDS = 30.0
CONNECTIONS_MAX = 8  # of one cut reader: three would do
IDLE_STREAMS = 3
LATE_COMERS = ("", "no id of ours")
CLOSE_SECONDS = 10.0  # in which the server notices that a reader has gone
# Documented is a comment every 15 s; proxies cut at 30 s.
SILENCE_SECONDS = 22.0
IDLE_MS = 40_000
CHUNK_WORDS = 10
BIG_WORDS = 60_000  # batches of one chunk of ten words: thousands of events, unless it is cancelled before
# More than kernel and server buffer for a reader that takes nothing (about 110 kB, see `unsent_bytes`).
PAST_BUFFERS_BYTES = 220_000
BUSY_SECONDS = 45.0
STALL_SECONDS = 12.0  # lost wake-ups cost 5 s
BEHIND_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Streams:
    """The instance, and listeners of streams on which nothing happens."""

    lane: Lane
    idle: Sequence[Future[Heard]]

    def url(self, job: str) -> str:
        return f"{self.lane.api_url}/rag/jobs/{job}/events"


def text(name: str, content: str) -> Document:
    return Document(name=f"{name}.txt", media_type="text/plain", content=content.encode())


@pytest.fixture(scope="session")
def stream_lane(target: Target) -> Iterator[Streams]:
    """API and one worker; waits compressed, chunks and batches small, three jobs that stand still."""
    with ExitStack() as cleanup:
        lane = lane_factory(cleanup, target)(
            "streams",
            RAG_RETRY_BASE_SECONDS=RETRY_BASE_SECONDS,
            RAG_CHUNK_WORDS=CHUNK_WORDS,
            RAG_CHUNK_OVERLAP_WORDS=0,
            RAG_EMBEDDING_BATCH_SIZE=1,
            RAG_EMBEDDING_CONCURRENCY=8,
            RAG_EMBEDDING_RATE_LIMIT=1_000_000,
            RAG_EMBEDDING_TIMEOUT_SECONDS=2 * IDLE_MS // 1000,
            RAG_WORKER_CONCURRENCY=16,
        )
        lane.script_embedding([{"contains": "standstill", "delay_ms": IDLE_MS}])
        pool = ThreadPoolExecutor(max_workers=IDLE_STREAMS, thread_name_prefix="idle")
        cleanup.callback(pool.shutdown, wait=False, cancel_futures=True)
        jobs = [lane.enqueue(text(f"idle-{n}", f"standstill {n}")).job_id for n in range(IDLE_STREAMS)]
        wait_until(
            lambda: all(lane.status(job).state == "running" for job in jobs),
            seconds=JOB_SECONDS,
            what="standing jobs",
        )
        streams = [f"{lane.api_url}/rag/jobs/{job}/events" for job in jobs]
        yield Streams(
            lane=lane,
            idle=[
                pool.submit(listen, url, seconds=SILENCE_SECONDS, enough=lambda heard: heard.heartbeats > 0)
                for url in streams
            ],
        )
        for job in jobs:
            with suppress(TargetError):
                lane.cancel(job, reason="the check is over")


@pytest.mark.early
@pytest.mark.claim("SSE.sequence", "SSE.end")
def test_a_stream_misses_nothing_and_ends(stream_lane: Streams, evidence: ClaimEvidence, seed: int) -> None:
    """Readers that are cut and resume by Last-Event-ID get every state once and in order; every stream brings the
    job's end as its last event and is closed.
    """
    lane = stream_lane.lane
    rules = [{"contains": f"stumble-{n}-", "times": RETRIES, "status": 500} for n in range(JOBS)]
    resumed_before = parse(lane.metrics()).total("sse_reconnect_count")
    lane.script_embedding([{"contains": "standstill", "delay_ms": IDLE_MS}, *rules])
    with ThreadPoolExecutor(max_workers=2 * JOBS) as pool:
        jobs = [lane.enqueue(text(f"stumble-{n}", f"stumble-{n}- word")).job_id for n in range(JOBS)]
        whole = [pool.submit(listen, stream_lane.url(job), seconds=JOB_SECONDS) for job in jobs]
        cut = [
            pool.submit(cut_and_resumed, stream_lane.url(job), random.Random(f"{seed}-{n}"))
            for n, job in enumerate(jobs)
        ]
        ends = lane.wait_all(jobs, seconds=JOB_SECONDS)
        whole_heard, cut_heard = [one.result() for one in whole], [one.result() for one in cut]
    gaps: list[str] = []
    endless: list[str] = []
    late: list[float] = []
    for job, reference, pieces in zip(jobs, whole_heard, cut_heard, strict=True):
        replay = listen(stream_lane.url(job), seconds=JOB_SECONDS, after="0-0")
        told = [event for event in replay.events if event.name == "state"]
        if len(told) != len(ends[job].history):
            gaps.append(
                f"{job}: resumed after 0-0: expected {len(ends[job].history)} states, got {len(told)}"
            )
        for readings in (pieces, [reference]):
            if why := missing(readings, replay):
                gaps.append(f"{job}: {why}")
        for heard in (reference, pieces[-1], replay):
            if why := without_end(heard, ends[job].state):
                endless.append(f"{job}: {why}")
        if reference.closed_at is None:
            endless.append(
                f"{job}: expected its stream closed after the end, it stayed open {reference.failure}"
            )
        finished_ms, closed_at = ends[job].finished_ms, reference.closed_at
        if finished_ms is not None and closed_at is not None:
            late.append(max(0.0, closed_at - finished_ms / 1000))
    # Whoever comes late, or with an id that is none, is told how it ended.
    late_comers = [
        listen(stream_lane.url(jobs[0]), seconds=JOB_SECONDS, after=after) for after in LATE_COMERS
    ]
    late_comers.append(listen(stream_lane.url(jobs[0]), seconds=JOB_SECONDS, after=whole_heard[0].last_id))
    for heard in late_comers:
        names = [event.name for event in heard.events]
        why = without_end(heard, ends[jobs[0]].state)
        if why or len(names) > 2 or heard.closed_at is None:
            endless.append(
                f"the stream of a finished job: {why or f'expected its state and its end, got {names}'}"
            )
    # The figures about streams are those of the clients.
    resumed = sum(piece.status == 200 for pieces in cut_heard for piece in pieces[1:] if pieces[0].last_id)
    resumed += JOBS + sum(bool(after) for after in LATE_COMERS) + 1
    wrong = wrong_figures(lane, resumed, before=resumed_before)
    evidence.cases(2, len(wrong), wrong, "figures about streams", claim="SSE.sequence")
    evidence.trials(JOBS, min(len(gaps), JOBS), "streams", examples=gaps, claim="SSE.sequence")
    evidence.facts(
        claim="SSE.sequence",
        connections=sum(len(pieces) for pieces in cut_heard),
        events=sum(len(heard.events) for pieces in cut_heard for heard in pieces),
    )
    n = 4 * JOBS + len(late_comers)
    evidence.cases(n, min(len(endless), n), endless, "ends of streams", claim="SSE.end")
    if late:
        evidence.samples(late, "s", "from a job's end to that of its stream", claim="SSE.end")
    assert not endless, endless[0]
    assert not gaps, gaps[0]
    assert not wrong, wrong[0]


@pytest.mark.early
@pytest.mark.claim("SSE.slow_reader")
def test_a_slow_reader_holds_up_nobody(stream_lane: Streams, evidence: ClaimEvidence) -> None:
    """While one reader of a busy stream takes nothing, another one of the same stream goes on, and so does the
    stream of another job.
    """
    lane = stream_lane.lane
    big = lane.enqueue(text("busy", " ".join(f"w{n}" for n in range(BIG_WORDS)))).job_id
    wrong: list[str] = []
    try:
        with ThreadPoolExecutor(max_workers=1) as pool, taking_nothing(stream_lane.url(big)) as slow:
            other = pool.submit(
                listen,
                stream_lane.url(big),
                seconds=BUSY_SECONDS,
                silence_seconds=STALL_SECONDS,
                enough=lambda heard: heard.bytes > PAST_BUFFERS_BYTES,
            )
            heard = other.result()
            stuck = unsent_bytes(slow)
            if heard.failure.startswith(SILENT):
                wrong.append(
                    f"behind a slow reader: expected {PAST_BUFFERS_BYTES} bytes of the same stream,"
                    f" got {heard.bytes} and then {heard.failure}"
                )
            elif why := odd_progress(heard):
                wrong.append(f"the stream of a busy job: {why}")
            elif heard.bytes <= PAST_BUFFERS_BYTES or not stuck:
                pytest.skip(f"the reader that takes nothing was not slow: {heard.bytes} bytes, {stuck} stuck")
            small = lane.enqueue(text("beside", "beside a slow reader")).job_id
            began = time.monotonic()
            beside = listen(stream_lane.url(small), seconds=BEHIND_SECONDS)
            took = time.monotonic() - began
            if why := without_end(beside, "done"):
                wrong.append(f"behind a slow reader: the stream of another job: {why} ({took:.1f} s)")
    finally:
        with suppress(TargetError):
            lane.cancel(big, reason="the check is over")
    evidence.cases(2, len(wrong), wrong, "streams beside a reader that takes nothing")
    evidence.facts(bytes_of_the_other_reader=heard.bytes, bytes_stuck=stuck, seconds_beside=round(took, 3))
    assert not wrong, wrong[0]


@pytest.mark.early
@pytest.mark.claim("SSE.heartbeat")
def test_an_idle_stream_is_not_silent(stream_lane: Streams, evidence: ClaimEvidence) -> None:
    """On a stream on which nothing happens a comment arrives before a proxy would cut it."""
    wrong: list[str] = []
    for future in stream_lane.idle:
        heard = future.result(timeout=2 * SILENCE_SECONDS)
        if heard.closed_at is not None:
            wrong.append("an idle stream: expected it open as long as its job runs, it was closed")
        elif not heard.heartbeats:
            wrong.append(
                f"an idle stream: expected a byte within {SILENCE_SECONDS:g} s of silence, got none"
                f" ({heard.failure or len(heard.events)})"
            )
    evidence.cases(IDLE_STREAMS, len(wrong), wrong, "idle streams")
    assert not wrong, wrong[0]


def cut_and_resumed(url: str, draw: random.Random) -> list[Heard]:
    """What a reader gets whose connection is cut after one or two events, again and again, until the job's end."""
    pieces: list[Heard] = []
    deadline = time.monotonic() + JOB_SECONDS
    for number in range(CONNECTIONS_MAX):
        wanted = draw.randint(1, 2) if number < CONNECTIONS_MAX - 2 else 1000
        after = next((piece.last_id for piece in reversed(pieces) if piece.last_id), "")
        heard = listen(
            url,
            seconds=max(1.0, deadline - time.monotonic()),
            after=after,
            enough=lambda heard, wanted=wanted: len(heard.events) >= wanted,
        )
        pieces.append(heard)
        if heard.closed_at is not None or any(event.name == "end" for event in heard.events):
            break
        time.sleep(draw.uniform(0.0, 0.3))  # events go by while nobody listens: that is the point
    return pieces


def missing(pieces: Sequence[Heard], replay: Heard) -> str:
    """What a reader that was cut did not get of the whole story, got twice, or got out of order; "" for nothing."""
    got = [event for piece in pieces for event in piece.events]
    ids = [place(event.event_id) for event in got if event.event_id and event.name != "end"]
    cuts = [piece.last_id for piece in pieces[:-1]]
    if ids != sorted(set(ids)):
        return f"resumed after {cuts}: expected rising ids, got {[event.event_id for event in got]}"
    if not ids:
        return f"expected events with ids, got {[event.name for event in got]}"
    states = [
        (event.event_id, json.loads(event.data)["state"]) for event in replay.events if event.name == "state"
    ]
    expected = [one for one in states if place(one[0]) >= ids[0]]
    seen = [(event.event_id, json.loads(event.data)["state"]) for event in got if event.name == "state"]
    lost = [one for one in expected if one not in seen]
    return f"resumed after {cuts}: expected the states {expected}, did not get {lost}" if lost else ""


def without_end(heard: Heard, state: str) -> str:
    """What is wrong with the end of a stream; "" for nothing."""
    names = [event.name for event in heard.events]
    if heard.status != 200:
        return f"expected status 200, got {heard.status} {heard.failure}"
    if not names or names[-1] != "end" or names.count("end") != 1:
        return f"expected the event end as the last one, got {names[-5:]} {heard.failure}"
    if json.loads(heard.events[-1].data)["state"] != state:
        return f"expected the event end with state {state}, got {heard.events[-1].data}"
    return ""


def odd_progress(heard: Heard) -> str:
    """What is wrong with the progress that a stream told; "" for nothing."""
    told = [json.loads(event.data) for event in heard.events if event.name == "progress"]
    embedded = [(one["done"], one["total"]) for one in told if one.get("stage") == told[-1].get("stage")]
    if len(embedded) < 2:
        return f"expected progress, got {len(told)} events of it"
    done, totals = [one for one, _ in embedded], {total for _, total in embedded}
    if done != sorted(done) or len(totals) != 1 or done[-1] > max(totals):
        return f"expected rising progress towards one total, got {embedded[:3]} ... {embedded[-3:]}"
    return ""


def wrong_figures(lane: Lane, resumed: int, *, before: float) -> list[str]:
    """Where the API's own figures about streams differ from what its clients did."""
    counted = parse(lane.metrics()).total("sse_reconnect_count") - before
    wrong = [] if counted == resumed else [f"sse_reconnect_count: expected {resumed} more, got {counted:g}"]
    try:
        wait_until(lambda: open_streams(lane) <= IDLE_STREAMS, seconds=CLOSE_SECONDS, what="closed streams")
    except WaitedTooLong:
        wrong.append(f"sse_connections_open: expected at most {IDLE_STREAMS}, got {open_streams(lane):g}")
    return wrong


def open_streams(lane: Lane) -> float:
    """How many streams the API says are open."""
    return parse(lane.metrics()).total("sse_connections_open")


def place(event_id: str) -> tuple[int, ...]:
    """An event id as its place in the job's story: <ms>-<n>, n rising."""
    at, _, number = event_id.partition("-")
    return (int(number), int(at)) if number else (int(at),)
