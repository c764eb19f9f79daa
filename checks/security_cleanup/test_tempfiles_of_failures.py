"""Jobs that fail leave no temporary file, named or unnamed, and jobs side by side never read each other's."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.recount import Recount, recount
from readiness.targets.base import Lane

ROUNDS = 2  # far enough apart that no sweep of strays can hide what both of them leave
BLANK, BROKEN = 6, 6  # of each round; they fail while their file is read
APART_SECONDS = 0.8
SPOOLED = (
    2  # too large for memory: their chunks are in unnamed files while they are embedded, and then refused
)
SPOOL_WORDS, WORD_CHARS = 14_000, 120
LATENCY_MS = 500
SIDE_BY_SIDE = 12
TAGS = 40_000  # empty elements before the text: a while to read, nothing to embed
FINISH_SECONDS = 25.0


@pytest.mark.claim("D4.tempfiles")
def test_failed_jobs_leave_no_file(cleanup_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """Right after jobs have failed, the folder is empty; and what unnamed files held cannot be read any more."""
    lane = cleanup_lane
    lane.script_embedding([])
    wrong: list[str] = []
    ends: list[str] = []
    for turn in range(ROUNDS):
        jobs = [lane.enqueue(one).job_id for one in hopeless(seed, turn)]
        ends += [state_of(status) for status in ends_of(lane, jobs, seconds=FINISH_SECONDS).values()]
        left = [path.name for path in lane.temp_dir.rglob("*") if path.is_file()]
        wrong += [f"{name}: still there after its job had failed" for name in left]
        if turn + 1 < ROUNDS:
            with suppress(WaitedTooLong):
                wait_until(lambda: False, seconds=APART_SECONDS, what="the next round")

    secret = f"spooled-{seed}-that-must-not-stay"
    lane.script_embedding([{"contains": secret, "status": 400}], latency_ms=LATENCY_MS)
    pid = lane.workers[-1].pid
    with ExitStack() as opened:
        witnesses: dict[str, BinaryIO] = {}

        def seen() -> bool:
            for link in unnamed(pid, lane.temp_dir):
                with suppress(OSError):
                    witnesses.setdefault(os.readlink(link), opened.enter_context(link.open("rb")))
            return sum(1 for one in witnesses.values() if secret in whole(one)) >= SPOOLED

        jobs = [lane.enqueue(spooled(secret, number)).job_id for number in range(SPOOLED)]
        with suppress(WaitedTooLong):  # a system that keeps chunks elsewhere has no such files
            wait_until(seen, seconds=3, what="unnamed files with chunks in them")
        ends += [state_of(status) for status in ends_of(lane, jobs, seconds=FINISH_SECONDS).values()]
        with suppress(WaitedTooLong):
            wait_until(lambda: not unnamed(pid, lane.temp_dir), seconds=5, what="closed files")
        wrong += [
            f"{link.name}: an unnamed file is open after its job" for link in unnamed(pid, lane.temp_dir)
        ]
        wrong += [
            f"{name}: closed, but its content was not overwritten"
            for name, one in witnesses.items()
            if secret in whole(one)
        ]
    lane.script_embedding([])
    n = ROUNDS * (BLANK + BROKEN) + SPOOLED
    evidence.trials(n, min(n, len(wrong)), "jobs", examples=wrong)
    evidence.facts(unnamed_files_seen=len(witnesses), failed=ends.count("dead"))
    assert set(ends) == {"dead"}, f"expected every job to fail, got {sorted(set(ends))}"
    assert not wrong, wrong[0]


@pytest.mark.claim("D4.private")
def test_jobs_side_by_side_read_their_own_files(
    cleanup_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """Documents that are read at the same time are stored each with its own text and its own digest."""
    lane = cleanup_lane
    lane.script_embedding([])
    documents = {
        lane.enqueue(one).job_id: one
        for one in (slow_to_read(seed, number) for number in range(SIDE_BY_SIDE))
    }
    names: set[str] = set()
    most = 0

    def finished() -> bool:
        nonlocal most
        here = {path.name for path in lane.temp_dir.rglob("*") if path.is_file()}
        most = max(most, len(here))
        names.update(here)
        return lane.status(list(documents)[-1]).finished

    with suppress(WaitedTooLong):  # judged below
        wait_until(finished, seconds=FINISH_SECONDS, what="the last document", every_seconds=0.01)
    statuses = ends_of(lane, list(documents), seconds=FINISH_SECONDS)
    committed = lane.committed()
    wrong: list[str] = []
    for job, document in documents.items():
        counted = recount(document)
        assert isinstance(counted, Recount), counted
        row = committed.get(job)
        status = statuses[job]
        if state_of(status) != "done" or (status and status.attempt != 1):
            got = f"{state_of(status)} at attempt {status.attempt if status else 0}"
            wrong.append(f"{document.name}: expected done at the first attempt, got {got}")
        elif [chunk.text for chunk in lane.chunks(job)] != list(counted.texts):
            wrong.append(
                f"{document.name}: expected its own text in SQL, got another document's or less of it"
            )
        elif row is None or row.sha256 != document.sha256:
            wrong.append(f"{document.name}: expected its own digest in SQL, got {row}")
    evidence.trials(len(documents), len(wrong), "jobs", examples=wrong)
    evidence.facts(files_at_once=most, files_seen=len(names))
    assert not wrong, wrong[0]
    assert most > 1, "never were two files there at once: the check showed nothing"


def hopeless(seed: int, turn: int) -> list[Document]:
    """Documents that fail while they are read, all different."""
    found = [
        Document(f"blank-{seed}-{turn}-{number}.txt", "text/plain", b"\n" * (number + 1))
        for number in range(BLANK)
    ]
    return found + [
        Document(
            f"broken-{turn}-{number}.pdf", "application/pdf", f"%PDF-1.4 {seed} {turn} {number}".encode()
        )
        for number in range(BROKEN)
    ]


def spooled(secret: str, number: int) -> Document:
    words = " ".join(f"{secret}-{number}-{word}-".ljust(WORD_CHARS, "s") for word in range(SPOOL_WORDS))
    return Document(f"spooled-{number}.txt", "text/plain", words.encode())


def slow_to_read(seed: int, number: int) -> Document:
    words = " ".join(f"own-{seed}-{number}-{word}" for word in range(150 + 29))
    content = f"<p>{number}</p>{'<b></b>' * TAGS}<p>{words}</p>"
    return Document(f"own-{number}.html", "text/html", content.encode())


def unnamed(pid: int, folder: Path) -> list[Path]:
    """The open files of a process that are in the folder and have no name there (proc(5), /proc/pid/fd)."""
    found = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = os.readlink(link)
                if target.startswith(f"{folder}/") and target.endswith(" (deleted)"):
                    found.append(link)
    return found


def whole(file: BinaryIO) -> str:
    """What an observer who opened the file in time can read now."""
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")
