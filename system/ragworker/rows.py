"""Translate between what `lua/*.lua` keeps of a job and the values of `job.py`. Does no I/O.

The events of a job are its history, its newest progress and, after a final state, one `end`: nothing else is stored
for listeners. Numbers of events rise within a job; a history line has an even one, `end` the odd one after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ragworker.job import (
    ClaimedJob,
    Event,
    EventKind,
    Figures,
    HistoryEntry,
    JobError,
    JobState,
    JobView,
    NewJob,
    Outcome,
    OutcomeKind,
    Priority,
)

#: Longest reason kept with a cancel request, longest message of an error.
TEXT_LIMIT: Final = 300

#: What a job is after an event of its history.
_STATE_AFTER: Final = {
    "submitted": JobState.QUEUED,
    "claimed": JobState.RUNNING,
    "retry_scheduled": JobState.RETRYING,
    "released": JobState.QUEUED,
    "taken_over": JobState.QUEUED,
    "requeued": JobState.QUEUED,
    "done": JobState.DONE,
    "dead": JobState.DEAD,
    "cancelled": JobState.CANCELLED,
    "rolled_back": JobState.CANCELLED,
}

#: Events with which a job ends. A rollback comes after its end.
_ENDS: Final = frozenset({"done", "dead", "cancelled"})

#: The fields of a job that are read to show it: all but its document.
FIELDS: Final = (
    "state", "priority", "about", "created_ms", "attempt", "lost", "fence", "error", "figures", "progress", "history",
)  # fmt: skip

#: Of an outcome that has none.
_NO_ERROR: Final = JobError("", "")

#: What of a new job is written down once, as JSON.
_ABOUT: Final = ("name", "media_type", "user_id", "request_id", "trace_id", "correlation_id", "span_id")


def about(new: NewJob, *, sha256: str) -> str:
    """The field `about` of a job."""
    described = {name: getattr(new, name) for name in _ABOUT}
    return json.dumps({**described, "bytes": len(new.payload), "sha256": sha256}, separators=(",", ":"))


def cancel_key(job_id: str) -> str:
    """The hash that asks for a job's end; spec D1 gives its name."""
    return f"job:cancel:{job_id}"


def cancel_reason(job: ClaimedJob, raw: Mapping[bytes, bytes]) -> str | None:
    """The reason in a cancel request (hash `job:cancel:<id>`), if it is meant for this life of the job."""
    request = decoded(raw)
    at_ms = request.get("at_ms", "")
    # A request from before the job (re-)entered the queue was meant for its former life. One that was written
    # by hand, without a time, counts.
    if not request or (at_ms.isdigit() and int(at_ms) < job.queued_ms):
        return None
    return request.get("reason") or "no reason given"


def outcome_row(outcome: Outcome) -> tuple[str | int, ...]:
    """The six arguments of settle.lua for one outcome."""
    job_id, fence, kind, delay_ms, error, figures = outcome
    if kind is OutcomeKind.DONE:
        done = f"{figures.words}|{figures.chunks}|{figures.tokens}|{figures.cost_usd:.9f}"
        return job_id, fence, kind, done, "", ""
    error = error or _NO_ERROR
    return job_id, fence, kind, delay_ms, error.code, error.message[:TEXT_LIMIT]


def claimed_job(row: bytes) -> ClaimedJob:
    """One row of claim.lua, or of an inbox."""
    job_id, fence, attempt, delivery, created_ms, queued_ms, described, big, cancel, payload = row.split(
        b"\n", 9
    )
    return ClaimedJob(
        job_id.decode(),
        int(fence),
        int(attempt),
        int(delivery),
        described,
        int(created_ms),
        int(queued_ms),
        None if big else payload,
        text(cancel) if cancel else None,
    )


def job_view(job_id: str, fields: Mapping[str, str], *, mode: str) -> JobView:
    """A job hash."""
    state = JobState(fields["state"])
    described = json.loads(fields["about"])
    described.pop("span_id")
    code, _, message = fields.get("error", "").partition("|")
    words, chunks, tokens, cost = (fields.get("figures") or "0|0|0|0").split("|")
    history = tuple(entry for _, entry in _history(fields))
    ends = [entry.at_ms for entry in history if entry.event in _ENDS] if state.terminal else []
    # A lost delivery is in `lost` already, and one of an earlier series of attempts counts no more.
    current = "fence" in fields and history[-1].event not in ("taken_over", "requeued")
    return JobView(
        job_id=job_id,
        state=state,
        priority=Priority(fields["priority"]),
        attempt=int(fields.get("attempt", 1)),
        deliveries=int(fields.get("lost", 0)) + current,
        created_ms=int(fields["created_ms"]),
        finished_ms=ends[-1] if ends else None,
        figures=Figures(int(words), int(chunks), int(tokens), float(cost)),
        error=JobError(code, message) if code and state not in (JobState.DONE, JobState.CANCELLED) else None,
        history=history,
        mode=mode,
        **described,
    )


def events(job_id: str, fields: Mapping[str, str], *, after: str) -> list[Event]:
    """What listeners are told of a job, oldest first, from the event id `after` on."""
    found = [event for entry in _history(fields) for event in _told(job_id, *entry)]
    progress = fields.get("progress")
    if progress:
        number, at_ms, stage, done, total = progress.split("|")
        event_id = f"{at_ms}-{number}"
        report = Event(
            job_id,
            event_id,
            EventKind.PROGRESS,
            JobState.RUNNING,
            int(at_ms),
            stage or None,
            int(done),
            int(total),
        )
        found.append(report)
        found.sort(key=lambda event: _number(event.event_id))
    # A place from before the job's birth belongs to an earlier life of the same work.
    born, last = int(fields["created_ms"]), _number(after)
    older = int(after.partition("-")[0]) < born
    return [event for event in found if older or _number(event.event_id) > last]


def _history(fields: Mapping[str, str]) -> Iterator[tuple[int, HistoryEntry]]:
    lines = [line.split("|", 6) for line in reversed(fields.get("history", "").split("\n")) if line]
    # The first event is not written down, it is in created_ms; it is forgotten like the others.
    if not lines or lines[0][0] == "2":
        yield 0, HistoryEntry(int(fields["created_ms"]), "submitted", 1)
    for number, at_ms, event, attempt, code, delay_ms, worker in lines:
        delay = int(delay_ms) if delay_ms else None
        yield int(number), HistoryEntry(int(at_ms), event, int(attempt), code or None, delay, worker or None)


def _told(job_id: str, number: int, entry: HistoryEntry) -> Iterator[Event]:
    state = _STATE_AFTER[entry.event]
    yield Event(job_id, f"{entry.at_ms}-{number}", EventKind.STATE, state, entry.at_ms)
    if state.terminal:
        yield Event(job_id, f"{entry.at_ms}-{number + 1}", EventKind.END, state, entry.at_ms)


def _number(event_id: str) -> int:
    return int(event_id.partition("-")[2] or -1)


def fields_of(values: Sequence[bytes | None]) -> dict[str, str]:
    """The answer of HMGET for `FIELDS`, without those that the job does not have; empty when there is no job."""
    return {name: text(value) for name, value in zip(FIELDS, values, strict=True) if value is not None}


def text(raw: Any) -> str:
    """Any scalar as text; bytes that are not UTF-8 do not matter enough to fail."""
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def decoded(raw: Mapping[Any, Any]) -> dict[str, str]:
    """A hash as text."""
    return {text(name): text(value) for name, value in raw.items()}
