"""No temporary file outlives its job, not even one whose worker was killed, and what was in it is
overwritten.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.targets.base import Lane

SLOW, NORMAL, WITHOUT_TEXT, CANCELLED = 4, 16, 3, 3
SLOW_TAGS = 120_000  # empty elements: some tenths of a second to read, hardly a word to embed
LATENCY_MS = 300
FINISH_SECONDS = 25.0
FAULT = "worker killed with SIGKILL"
RANDOM_VALUES = 200  # of 256: a kilobyte of random bytes has about 251 different ones
RANDOM_BYTES = 4096


@pytest.mark.early
@pytest.mark.claim("D4.tempfiles")
def test_no_temporary_file_survives(cleanup_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """A worker is killed while it holds files; after the drain the private folder is empty and the contents
    are gone.
    """
    held = cleanup_lane
    held.script_embedding([], latency_ms=LATENCY_MS)
    secret = f"sentence-{seed}-that-must-not-stay-on-the-disk"
    with ExitStack() as opened:
        # Given jobs of every end (done, refused, cancelled), whose files an observer opens while they are there.
        jobs = [held.enqueue(one).job_id for one in documents(secret)]
        witnesses: dict[str, BinaryIO] = {}
        modes: dict[str, int] = {}
        sizes: dict[str, int] = {}

        def seen() -> bool:
            for path in files(held.temp_dir):
                if path.name not in witnesses:
                    try:
                        witnesses[path.name] = opened.enter_context(path.open("rb"))
                        modes[path.name] = stat.S_IMODE(path.stat().st_mode)
                    except FileNotFoundError:  # its job ended between the look and the opening
                        continue
            sizes.update(
                {name: len(one) for name, file in witnesses.items() if secret in (one := whole(file))}
            )
            return len(sizes) >= SLOW // 2

        wait_until(seen, seconds=FINISH_SECONDS, what="temporary files with documents in them")

        # When the worker is killed and another one takes its place, and some jobs are cancelled.
        for worker in held.workers:
            worker.kill()
        left_by_the_dead = [path.name for path in files(held.temp_dir)]
        held.start_worker()
        for job in jobs[-CANCELLED - WITHOUT_TEXT : -WITHOUT_TEXT]:
            held.cancel(job)
        ends = [state_of(status) for status in ends_of(held, jobs, seconds=FINISH_SECONDS).values()]
        with suppress(WaitedTooLong):  # what is left is judged below, by name
            wait_until(lambda: not list(files(held.temp_dir)), seconds=FINISH_SECONDS, what="an empty folder")
        survivors = [path.name for path in files(held.temp_dir)]
        readable = [name for name, witness in witnesses.items() if secret in whole(witness)]
        odd = [(name, flaw) for name, size in sizes.items() if (flaw := flaw_of(witnesses[name], size))]

    # Then nothing is left, nothing can be read back, and nobody else could have read it meanwhile.
    folder_mode = stat.S_IMODE(held.temp_dir.stat().st_mode)
    wrong = [f"{name}: still there" for name in survivors]
    wrong += [f"{name}: removed, but its content was not overwritten" for name in readable]
    wrong += [f"{name}: {flaw}" for name, flaw in odd if name not in readable]
    wrong += [f"{name}: expected mode 600, got {mode:o}" for name, mode in modes.items() if mode != 0o600]
    if folder_mode != 0o700:
        wrong.append(f"folder: expected mode 700, got {folder_mode:o}")
    evidence.trials(len(jobs), min(len(wrong), len(jobs)), "jobs", examples=wrong, fault=FAULT)
    evidence.facts(
        files_seen=len(witnesses),
        left_by_the_killed_worker=len(left_by_the_dead),
        ends={state: ends.count(state) for state in set(ends)},
        folder_mode=f"{folder_mode:o}",
        not_shown="on SSDs, copy-on-write and journalling file systems overwriting does not reach the old blocks",
    )
    assert left_by_the_dead, "the killed worker held no file: the check showed nothing"
    assert set(ends) == {"done", "dead", "cancelled"}, f"expected jobs of every end, got {sorted(set(ends))}"
    assert not wrong, wrong[0]


def files(folder: Path) -> Iterator[Path]:
    """Everything in the folder, at any depth."""
    return (path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else iter(())


def whole(file: BinaryIO) -> str:
    """What an observer who opened the file in time can read now; one character a byte."""
    file.seek(0)
    return file.read().decode("latin-1")


def flaw_of(file: BinaryIO, size: int) -> str:
    """What is wrong with a wiped file that was this long, or "": all of it must be there, and be random."""
    file.seek(0)
    now = file.read()
    if len(now) < size:
        return f"cut to {len(now)} of {size} bytes instead of overwritten"
    if size >= RANDOM_BYTES and min(len(set(now[:size])), len(set(now[size - 1024 : size]))) < RANDOM_VALUES:
        return "overwritten with a pattern instead of random bytes"
    return ""


def documents(secret: str) -> list[Document]:
    """Slow ones first, so that the worker is caught with their files; the last ones have no text."""
    slow = f"<p>{secret}</p>" + "<b></b>" * SLOW_TAGS
    found = [
        Document(f"slow-{number}.html", "text/html", f"<i>{number}</i>{slow}".encode())
        for number in range(SLOW)
    ]
    words = f" {secret}" * 50
    found += [
        Document(f"{number}.txt", "text/plain", f"{number}{words}".encode())
        for number in range(NORMAL + CANCELLED)
    ]
    return found + [
        Document(f"blank-{number}.txt", "text/plain", b" " * (number + 1)) for number in range(WITHOUT_TEXT)
    ]
