"""A committed job can be undone for a minute: wholly, once, and not a second longer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import Connection, create_engine, text

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

CHUNKS = 6
# What an effect consists of, and the log of what was undone (the target's public schema).
PARTS = ("documents", "chunks", "vectors")
LOG = "rollback_log"
WINDOW_SECONDS = 60.0
MARGIN_SECONDS = 5.0  # so long may a check take between two lines on a crowded machine
AT_ONCE = 4
LATENCY_MS = 400
FINISH_SECONDS = 20.0
WHOLE = {"documents": 1, "chunks": CHUNKS, "vectors": CHUNKS, LOG: 0}
UNDONE = {"documents": 0, "chunks": 0, "vectors": 0, LOG: 1}


@pytest.mark.claim("D3.rollback")
def test_a_commit_is_undone_wholly_once_and_in_time(
    cleanup_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """Commits of now and of 55 s ago are undone without a trace, by one request or by many at once; one of 61 s ago,
    and whatever is not committed, stays as it is.
    """
    lane = cleanup_lane
    lane.script_embedding([])
    names = ("fresh", "repeated", "at-once", "almost-late", "late", "untouched")
    jobs = {name: lane.enqueue(document(seed, name, CHUNKS)).job_id for name in names}
    states = {
        state_of(status) for status in ends_of(lane, list(jobs.values()), seconds=FINISH_SECONDS).values()
    }
    assert states == {"done"}, f"expected every job done before its rollback, got {sorted(states)}"
    found: list[tuple[str, object, object]] = [
        (f"{name}: rows before", WHOLE, rows_of(lane, jobs[name])) for name in names
    ]

    # Once; again; by several callers at once.
    found.append(("fresh: answer", 200, roll_back(lane, jobs["fresh"])))
    found.append(("repeated: answers", [200] * 3, [roll_back(lane, jobs["repeated"]) for _ in range(3)]))
    found.append(("at-once: answers", [200] * AT_ONCE, at_once(lane, jobs["at-once"])))
    # Just inside and just outside of the window, without waiting for it: the commit is made older.
    with connection_of(lane) as connection:
        age(connection, jobs["almost-late"], WINDOW_SECONDS - MARGIN_SECONDS)
        age(connection, jobs["late"], WINDOW_SECONDS + 1)
    found.append(("almost-late: answer", 200, roll_back(lane, jobs["almost-late"])))
    found.append(("late: answers", [409] * 2, [roll_back(lane, jobs["late"]) for _ in range(2)]))
    for name in names:
        undone = name not in ("late", "untouched")
        rows, state = (UNDONE, "cancelled") if undone else (WHOLE, "done")
        status = lane.status(jobs[name])
        told = [event.event for event in status.history].count("rolled_back")
        found.append((f"{name}: rows after", rows, rows_of(lane, jobs[name])))
        found.append((f"{name}: state after", state, status.state))
        found.append((f"{name}: rollbacks in its history", int(undone), told))

    # A job that is not committed has nothing to undo, and goes on undisturbed.
    lane.script_embedding([], latency_ms=LATENCY_MS)
    running = lane.enqueue(document(seed, "running", CHUNKS)).job_id
    wait_until(lambda: lane.status(running).state == "running", seconds=FINISH_SECONDS, what="a running job")
    found.append(("running: answer", 409, roll_back(lane, running)))
    found.append(("unknown: answer", 404, roll_back(lane, "0" * 32)))
    end = state_of(ends_of(lane, [running], seconds=FINISH_SECONDS)[running])
    lane.script_embedding([])
    found.append(("running: state after", "done", end))
    found.append(("running: rows after", WHOLE, rows_of(lane, running)))

    wrong = [f"{what}: expected {expected}, got {got}" for what, expected, got in found if expected != got]
    evidence.cases(len(found), len(wrong), wrong, "rollbacks: answers, rows, states")
    evidence.facts(window_seconds=WINDOW_SECONDS, rollbacks=len(names) - 1)
    assert not wrong, wrong[0]


def roll_back(lane: Lane, job: str) -> int:
    """The status of the answer."""
    return lane.http().post(f"/rag/jobs/{job}/rollback").status_code


def at_once(lane: Lane, job: str) -> list[int]:
    """The answers to several rollbacks of one job that were asked for at the same time."""
    answers: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=lane.api_url, timeout=FINISH_SECONDS, trust_env=False) as client:
            answers.append(client.post(f"/rag/jobs/{job}/rollback").status_code)

    threads = [threading.Thread(target=ask) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=FINISH_SECONDS)
    return answers


@contextmanager
def connection_of(lane: Lane) -> Iterator[Connection]:
    """A transaction on the lane's database, by itself: the check looks past the API, and moves the time of a commit."""
    engine = create_engine(lane.database_url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def rows_of(lane: Lane, job: str) -> dict[str, int]:
    """How many rows each table has of a job."""
    with connection_of(lane) as connection:
        return {
            table: int(
                connection.execute(
                    text(f"SELECT COUNT(*) FROM {table} WHERE job_id = :job"),  # noqa: S608  names of the schema
                    {"job": job},
                ).scalar_one()
            )
            for table in (*PARTS, LOG)
        }


def age(connection: Connection, job: str, seconds: float) -> None:
    """Make a commit older by so many seconds."""
    connection.execute(
        text("UPDATE documents SET committed_at_ms = committed_at_ms - :ms WHERE job_id = :job"),
        {"ms": int(seconds * 1000), "job": job},
    )


def document(seed: int, name: str, chunks: int) -> Document:
    words = " ".join(f"rollback-{seed}-{name}-{word}" for word in range(150 * chunks + 30))
    return Document(f"rollback-{name}.txt", "text/plain", words.encode())
