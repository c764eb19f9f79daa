"""One record of evidence: its fields, its canonical JSON, its hash, and the chain that joins records.

Pure: bytes in, values out. Files, locks and folders are writer.py's, sealing.py's and verify.py's.

A claim's file is JSON lines. Each line carries `prev`, the hash of the line before (64 zeros first), and
`hash`, the SHA-256 of its own canonical JSON without `hash`. So a changed, dropped, inserted or reordered
line breaks the chain at a line that can be named. The chain alone does not stop someone who rewrites the
whole file: the manifest does.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from readiness.errors import BadInput
from readiness.judge.codec import JsonValue, from_json, to_json

FIRST_PREV = "0" * 64
# Key of a facts record: the check that it names was begun anew here; what it recorded before no longer counts.
REPEATS = "repeats"
KINDS = ("outcome", "cases", "trials", "samples", "exposure", "facts", "attachment")
# A claim id becomes a file name, so it may hold nothing that a file system reads as more than a name.
CLAIM_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")


@dataclass(frozen=True, slots=True)
class Record:
    """A line of evidence/<claim>.jsonl. `at` is UTC, ISO 8601 with milliseconds and `Z`."""

    seq: int
    prev: str
    claim: str
    kind: str
    check: str | None
    fault: str | None
    at: str
    command: str
    data: Mapping[str, object]
    hash: str


@dataclass(frozen=True, slots=True)
class ClaimFile:
    """A claim's evidence as read: the records of the intact beginning, and what is wrong with the rest.

    `digest` is the SHA-256 of the whole file (empty: no file). `broken` names the line where the chain
    breaks, `torn` the unfinished last line that a crash leaves behind; both are empty when all is well.
    """

    claim: str
    records: tuple[Record, ...] = ()
    digest: str = ""
    broken: str = ""
    torn: str = ""

    @property
    def head(self) -> str:
        """The hash of the last good record."""
        return self.records[-1].hash if self.records else FIRST_PREV


def standing(records: Sequence[Record]) -> list[Record]:
    """Return the records that count: all but those of a check from before it was begun anew."""
    begun = {
        str(one.data[REPEATS]): one.seq for one in records if one.kind == "facts" and REPEATS in one.data
    }
    return [one for one in records if one.seq >= begun.get(one.check or "", 0)]


def canonical(value: JsonValue) -> bytes:
    """Return the one spelling of a JSON value that is hashed: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode("utf-8", "surrogatepass")


def plain(value: object) -> JsonValue:
    """Return `value` as strict JSON.

    NaN and infinities become strings, so that they are kept and judged INVALID.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode(
            "utf-8"
        )  # lone surrogates of hostile file names
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return to_json(value)


def make_record(fields: Mapping[str, JsonValue]) -> tuple[Record, bytes]:
    """Return the record made of `fields` (all but `hash`) and its line, newline included."""
    body = dict(fields)
    digest = hashlib.sha256(canonical(body)).hexdigest()
    body["hash"] = digest
    return from_json(Record, body, where="record"), canonical(body) + b"\n"


def parse_line(line: bytes) -> Record | None:
    """Return the record of one line, its place in the chain unchecked; None when it is none."""
    try:
        return from_json(Record, json.loads(line), where="record")
    except (ValueError, BadInput):
        return None


def read_chain(claim: str, content: bytes) -> ClaimFile:
    """Read a claim's file. Never raises: what cannot be read is named in `broken` or `torn`."""
    records: list[Record] = []
    digest = hashlib.sha256(content).hexdigest()
    lines = content.split(b"\n")
    last = lines.pop()  # empty when the file ends in a newline, the torn line otherwise
    prev = FIRST_PREV
    for number, line in enumerate(lines, start=1):
        record, problem = _read_line(line, claim=claim, seq=number - 1, prev=prev)
        if record is None:
            return ClaimFile(claim, tuple(records), digest, broken=f"line {number}: {problem}")
        records.append(record)
        prev = record.hash
    torn = f"line {len(lines) + 1}: unfinished, {len(last)} bytes without a newline" if last else ""
    return ClaimFile(claim, tuple(records), digest, torn=torn)


def _read_line(line: bytes, *, claim: str, seq: int, prev: str) -> tuple[Record | None, str]:
    try:
        body = json.loads(line)
        record = from_json(Record, body, where="record")
        digest = hashlib.sha256(canonical({k: v for k, v in body.items() if k != "hash"})).hexdigest()
    except Exception as error:
        # Any byte may be wrong here, so any error may come; all mean the same.
        return None, f"expected a record, got {type(error).__name__}: {str(error)[:120]}"
    expected: Sequence[tuple[str, object, object]] = (
        ("hash", digest, record.hash),
        ("prev", prev, record.prev),
        ("seq", seq, record.seq),
        ("claim", claim, record.claim),
    )
    for name, wanted, got in expected:
        if wanted != got:
            return None, f"expected {name} {str(wanted)[:16]}, got {str(got)[:16]}"
    if canonical(body) != line:
        return None, "expected canonical JSON, got another spelling of it"
    return record, ""
