"""What a worker holds in memory follows the batch, not the document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document
from readiness.targets.base import Lane

SMALL_BYTES = 12 << 20
LARGE_BYTES = 24 << 20  # just below the largest upload that is accepted by default
WORD_BYTES = 128  # long words: many bytes in few chunks
PEAK_RESET = "5"  # proc(5), /proc/pid/clear_refs: the peak of the resident set begins anew
FINISH_SECONDS = 40.0


@pytest.mark.claim("B5.memory")
def test_memory_follows_the_batch(pressure_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """A document of 24 MiB raises the peak of the worker's resident memory by less than what it is larger than
    one of 12 MiB: its peak comes from batches that meet, not from the document.
    """
    pid = pressure_lane.workers[-1].pid
    if not Path(f"/proc/{pid}/clear_refs").exists():
        pytest.skip("needs Linux' /proc to read a process' peak of resident memory")
    pressure_lane.script_embedding([])
    peaks: dict[int, float] = {}
    states: set[str] = set()
    for size in (SMALL_BYTES, LARGE_BYTES):
        Path(f"/proc/{pid}/clear_refs").write_text(PEAK_RESET, encoding="ascii")
        job = pressure_lane.enqueue(large_document(seed, size)).job_id
        states |= {
            state_of(status) for status in ends_of(pressure_lane, [job], seconds=FINISH_SECONDS).values()
        }
        peaks[size] = peak_mib(pid)
    growth = peaks[LARGE_BYTES] - peaks[SMALL_BYTES]
    allowed = (LARGE_BYTES - SMALL_BYTES) / (1 << 20)
    wrong = []
    if growth >= allowed:
        wrong.append(
            f"expected the peak of memory to rise by less than {allowed:.0f} MiB from a document of"
            f" {SMALL_BYTES >> 20} MiB to one of {LARGE_BYTES >> 20} MiB, got {growth:.1f} MiB"
        )
    if states != {"done"}:
        wrong.append(f"expected both documents done, got {sorted(states)}")
    evidence.cases(2, len(wrong), wrong, "peaks of resident memory")
    evidence.facts(
        peak_mib_small=round(peaks[SMALL_BYTES], 1),
        peak_mib_large=round(peaks[LARGE_BYTES], 1),
        growth_mib=round(growth, 1),
    )
    assert not wrong, wrong[0]


def large_document(seed: int, size: int) -> Document:
    words = size // (WORD_BYTES + 1)
    content = " ".join(f"{seed}-{size}-{number}-".ljust(WORD_BYTES, "m") for number in range(words))
    return Document(f"large-{size}.txt", "text/plain", content.encode())


def peak_mib(pid: int) -> float:
    """The most resident memory that a process had since the last reset, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found, "expected VmHWM in /proc/pid/status"
    return int(found[1]) / 1024
