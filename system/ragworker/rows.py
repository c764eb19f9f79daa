"""Translate between the rows of `lua/*.lua` (bytes, flat lists) and the values of `job.py`. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Outcome,
    Priority,
)

#: Longest reason kept with a cancel request, longest message of an error.
TEXT_LIMIT: Final = 300


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
    """The ten arguments of settle.lua for one outcome."""
    figures, error = outcome.figures, outcome.error or JobError("", "")
    return (
        outcome.job_id,
        outcome.fence,
        outcome.kind,
        outcome.delay_ms,
        error.code,
        error.message[:TEXT_LIMIT],
        figures.words,
        figures.chunks,
        figures.tokens,
        f"{figures.cost_usd:.9f}",
    )


def claimed_job(row: Sequence[Any]) -> ClaimedJob:
    """One row of the answer of claim.lua."""
    job_id, fence, attempt, delivery, name, media_type, size, sha256, *rest = map(text, row)
    user_id, request_id, trace_id, correlation_id, created_ms, queued_ms = rest
    return ClaimedJob(
        job_id=job_id,
        fence=int(fence),
        attempt=int(attempt),
        delivery=int(delivery),
        name=name,
        media_type=media_type,
        bytes=int(size),
        sha256=sha256,
        user_id=user_id,
        request_id=request_id,
        trace_id=trace_id,
        correlation_id=correlation_id,
        created_ms=int(created_ms),
        queued_ms=int(queued_ms),
    )


def job_view(fields: Mapping[str, str]) -> JobView:
    """A job hash."""
    finished, code = fields.get("finished_ms", ""), fields.get("error_code", "")
    history = (line.split("|") for line in fields.get("history", "").split("\n") if line)
    return JobView(
        job_id=fields["id"],
        state=JobState(fields["state"]),
        name=fields["name"],
        media_type=fields["media_type"],
        bytes=int(fields["bytes"]),
        sha256=fields["sha256"],
        priority=Priority(fields["priority"]),
        attempt=int(fields["attempt"]),
        deliveries=int(fields["deliveries"]),
        created_ms=int(fields["created_ms"]),
        finished_ms=int(finished) if finished else None,
        figures=Figures(
            words=int(fields.get("words", 0)),
            chunks=int(fields.get("chunks", 0)),
            tokens=int(fields.get("tokens", 0)),
            cost_usd=float(fields.get("cost_usd", 0)),
        ),
        error=JobError(code, fields.get("error_message", "")) if code else None,
        history=tuple(
            HistoryEntry(
                int(at), event, int(attempt), code or None, int(delay) if delay else None, worker or None
            )
            for at, event, attempt, code, delay, worker in history
        ),
        request_id=fields["request_id"],
        trace_id=fields["trace_id"],
        correlation_id=fields["correlation_id"],
        user_id=fields["user_id"],
    )


def event(job_id: str, event_id: str, fields: Mapping[str, str]) -> Event:
    """One entry of a job's stream."""
    done, total = fields.get("done", ""), fields.get("total", "")
    return Event(
        job_id=job_id,
        event_id=event_id,
        kind=EventKind(fields["kind"]),
        state=JobState(fields["state"]),
        at_ms=int(event_id.partition("-")[0]),
        stage=fields.get("stage") or None,
        done=int(done) if done else None,
        total=int(total) if total else None,
    )


def published_event(line: str) -> Event:
    """One message of the events channel."""
    job_id, event_id, *rest = line.split("\n")
    return event(job_id, event_id, dict(zip(("kind", "state", "stage", "done", "total"), rest, strict=True)))


def clock_ms(clock: tuple[int, int]) -> int:
    """The answer of TIME in ms."""
    return clock[0] * 1000 + clock[1] // 1000


def text(raw: Any) -> str:
    """Any scalar as text; bytes that are not UTF-8 do not matter enough to fail."""
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)


def decoded(raw: Mapping[Any, Any]) -> dict[str, str]:
    """A hash as text."""
    return {text(name): text(value) for name, value in raw.items()}
