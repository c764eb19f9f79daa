"""Append evidence to a run folder, from any number of processes, and read it back.

Judging is not done here, sealing is sealing.py's. Crash safety: a record is one `write` of one line to a file
opened with O_APPEND, under an exclusive `flock` on the claim's file, so two writers never share a `prev`.
When a process is killed inside that write, the last line is left torn: readers keep every finished record
before it and name the torn line; the next writer cuts it off and says so in a `facts` record (what was never
finished was never evidence). No fsync: the harness outlives its checks, and a power cut ends the run anyway.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from readiness.errors import HarnessFailure
from readiness.evidence.records import (
    CLAIM_ID,
    FIRST_PREV,
    KINDS,
    ClaimFile,
    Record,
    make_record,
    parse_line,
    plain,
    read_chain,
)

EVIDENCE = "evidence"
RAW = "raw"
# The tail that is read to find the last record; longer lines are read by falling back to the whole file.
TAIL_BYTES = 65_536


class EvidenceWriter:
    """Writes records into `run_dir`/evidence. Keep one per process; every call locks, appends and closes.

    `command` is what a person types to repeat the measurement; it stands in every record.
    """

    def __init__(self, run_dir: Path, *, command: str) -> None:
        self.run_dir = Path(run_dir)
        self.command = command
        (self.run_dir / EVIDENCE / RAW).mkdir(parents=True, exist_ok=True)

    def record(
        self,
        claim: str,
        kind: str,
        data: Mapping[str, object],
        *,
        fault: str | None = None,
        check: str | None = None,
    ) -> None:
        """Append one record.

        ValueError for an unknown kind or an id that is no file name; the data is not judged.
        """
        if kind not in KINDS:
            raise ValueError(f"evidence kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        path = claim_path(self.run_dir, claim)
        with _locked(path) as descriptor:
            torn = _cut_torn_line(descriptor)
            if torn:
                self._append(descriptor, claim, "facts", {"torn_line_cut_bytes": torn})
            self._append(descriptor, claim, kind, data, fault=fault, check=check)

    def attach(self, claim: str, path: Path, *, name: str | None = None) -> None:
        """Copy `path` to evidence/raw/ as `name` (default: its own name) and record its digest.

        A file of that name with other content is kept: the new one gets a number before its suffix.
        """
        source = Path(path)
        content_hash, size = file_digest(source)
        destination = free_name(self.run_dir / EVIDENCE / RAW, name or source.name, content_hash)
        if not destination.exists():
            temporary = destination.with_name(f".{destination.name}.{os.getpid()}")
            shutil.copyfile(source, temporary)
            temporary.replace(destination)
        relative = destination.relative_to(self.run_dir).as_posix()
        self.record(claim, "attachment", {"path": relative, "sha256": content_hash, "bytes": size})

    def _append(
        self,
        descriptor: int,
        claim: str,
        kind: str,
        data: Mapping[str, object],
        *,
        fault: str | None = None,
        check: str | None = None,
    ) -> None:
        last = _last_record(descriptor, claim)
        _, line = make_record(
            {
                "seq": last.seq + 1 if last else 0,
                "prev": last.hash if last else FIRST_PREV,
                "claim": claim,
                "kind": kind,
                "check": plain(check),
                "fault": plain(fault),
                "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "command": plain(self.command),
                "data": plain(dict(data)),
            }
        )
        written = os.write(descriptor, line)
        if written != len(line):
            raise HarnessFailure(
                f"evidence/{claim}.jsonl: expected {len(line)} bytes written, got {written}. Disk full?"
            )


def claim_path(run_dir: Path, claim: str) -> Path:
    """Return the evidence file of a claim; ValueError when the id could not be a plain file name."""
    if not CLAIM_ID.fullmatch(claim):
        raise ValueError(f"claim id: expected letters, digits, '_' and single dots, got {claim!r}")
    return Path(run_dir) / EVIDENCE / f"{claim}.jsonl"


def read_claim_file(run_dir: Path, claim: str) -> ClaimFile:
    """Return a claim's evidence with what is wrong with it; a missing file reads as one without records."""
    try:
        content = claim_path(run_dir, claim).read_bytes()
    except FileNotFoundError:
        return ClaimFile(claim)
    return read_chain(claim, content)


def read_claim(run_dir: Path, claim: str) -> list[Record]:
    """Return the finished records of a claim, oldest first; empty when there are none."""
    return list(read_claim_file(run_dir, claim).records)


def read_all(run_dir: Path) -> dict[str, ClaimFile]:
    """Return the evidence of every claim that has a file, by claim id."""
    names = sorted(path.stem for path in (Path(run_dir) / EVIDENCE).glob("*.jsonl"))
    return {name: read_claim_file(run_dir, name) for name in names if CLAIM_ID.fullmatch(name)}


def file_digest(path: Path) -> tuple[str, int]:
    """Return a file's SHA-256 and size in bytes."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest, stream.tell()


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for one append of a few kB, so nobody waits long
        yield descriptor
    finally:
        os.close(descriptor)


def _last_record(descriptor: int, claim: str) -> Record | None:
    size = os.fstat(descriptor).st_size
    if size == 0:
        return None
    tail = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    lines = tail.rstrip(b"\n").split(b"\n")
    if len(lines) < 2 and size > TAIL_BYTES:
        lines = os.pread(descriptor, size, 0).rstrip(b"\n").split(b"\n")
    record = parse_line(lines[-1])
    if record is None:
        raise HarnessFailure(
            f"evidence/{claim}.jsonl: expected a record in the last line, got something else."
        )
    return record


def _cut_torn_line(descriptor: int) -> int:
    """Cut the unfinished last line that a crashed writer left; return its length (0: none)."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return 0
    content = os.pread(descriptor, size, 0)
    keep = content.rfind(b"\n") + 1
    os.ftruncate(descriptor, keep)
    return size - keep


def free_name(folder: Path, name: str, content_hash: str) -> Path:
    """Return the place below `folder` for a raw file called `name`: numbered when another content has that name."""
    plain_name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name).name).lstrip(".") or "attachment"
    candidate = folder / plain_name
    for number in range(2, 1000):
        if not candidate.exists() or file_digest(candidate)[0] == content_hash:
            return candidate
        candidate = folder / f"{Path(plain_name).stem}-{number}{Path(plain_name).suffix}"
    raise HarnessFailure(f"evidence/raw/{plain_name}: expected fewer than 1000 attachments of that name.")
