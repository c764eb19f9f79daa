"""Read ragworker's HTTP answers into the values of `targets.base`. Pure; asking is left to `ragworker`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

from readiness.targets.base import JobEvent, JobStatus, JsonObject, JsonValue, Submission, TargetError

T = TypeVar("T", int, float, str)


def read_submission(status_code: int, body: JsonObject, headers: Mapping[str, str]) -> Submission:
    """The answer to a submit, refused or not."""
    lowered = {name.lower(): value for name, value in headers.items()}
    return Submission(
        job_id=_given(body, "job_id", str) or "",
        status_code=status_code,
        duplicate=body.get("duplicate") is True,
        mode=_given(body, "mode", str) or "",
        state=_given(body, "state", str) or "",
        request_id=_given(body, "request_id", str) or lowered.get("x-request-id", ""),
        trace_id=_given(body, "trace_id", str) or lowered.get("x-trace-id", ""),
        headers=lowered,
        body=body,
    )


def read_status(body: JsonObject) -> JobStatus:
    """A job. TargetError when an answer lacks what every job has."""
    error = body.get("error")
    failure = error if isinstance(error, dict) else {}
    history = body.get("history")
    return JobStatus(
        job_id=_needed(body, "job_id", str),
        state=_needed(body, "state", str),
        mode=_given(body, "mode", str) or "",
        attempt=_needed(body, "attempt", int),
        deliveries=_needed(body, "deliveries", int),
        # Null: the queue has no record any more (Redis lost it), and SQL alone says that it was done.
        created_ms=_given(body, "created_ms", int) or 0,
        finished_ms=_given(body, "finished_ms", int),
        duration_ms=_given(body, "duration_ms", int),
        chunks=_given(body, "chunks", int),
        tokens=_given(body, "tokens", int),
        cost_usd=_given(body, "cost_usd", float),
        error_code=_given(failure, "code", str) or "",
        error_message=_given(failure, "message", str) or "",
        history=tuple(_event(item) for item in history) if isinstance(history, list) else (),
        request_id=_given(body, "request_id", str) or "",
        trace_id=_given(body, "trace_id", str) or "",
        correlation_id=_given(body, "correlation_id", str) or "",
        user_id=_given(body, "user_id", str) or "",
        body=body,
    )


def missing_status(job_id: str) -> JobStatus:
    """What a job is that the target does not know: state "missing", which is no terminal state."""
    return JobStatus(
        job_id=job_id,
        state="missing",
        mode="",
        attempt=0,
        deliveries=0,
        created_ms=0,
        finished_ms=None,
        duration_ms=None,
        chunks=None,
        tokens=None,
        cost_usd=None,
        error_code="",
        error_message="",
        history=(),
        request_id="",
        trace_id="",
        correlation_id="",
        user_id="",
    )


def sample(exposition: str, name: str) -> float:
    """The value of the only sample `name` of an exposition; TargetError when there is none."""
    for family in text_string_to_metric_families(exposition):
        for found in family.samples:
            if found.name == name:
                return float(found.value)
    raise TargetError(f"/metrics: expected a sample {name}, found none. Is Redis reachable?")


def _event(raw: JsonValue) -> JobEvent:
    if not isinstance(raw, dict):
        raise TargetError(f"history: expected objects, got {type(raw).__name__}")
    return JobEvent(
        at_ms=_needed(raw, "at_ms", int),
        event=_needed(raw, "event", str),
        attempt=_given(raw, "attempt", int) or 0,
        code=_given(raw, "code", str) or "",
        delay_ms=_given(raw, "delay_ms", int),
        worker=_given(raw, "worker", str) or "",
    )


def _needed(body: JsonObject, key: str, kind: type[T]) -> T:
    value = _given(body, key, kind)
    if value is None:
        raise TargetError(f"job: expected {key}, got none in {sorted(body)}")
    return value


def _given(body: JsonObject, key: str, kind: type[T]) -> T | None:
    """A value of the right kind, or None when it is absent or null. An int is a fine float."""
    value = body.get(key)
    if value is None:
        return None
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return kind(value)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise TargetError(f"job: expected {key} to be {kind.__name__}, got {value!r}")
