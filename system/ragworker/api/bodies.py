"""Jobs and dead letters as JSON, the same for the API and the command line. Knows no web framework."""

from __future__ import annotations

from typing import Any

from ragworker.job import JobView


def job_body(view: JobView) -> dict[str, Any]:
    """A job as the API shows it."""
    return {
        "job_id": view.job_id,
        "state": view.state.value,
        "mode": view.mode,
        "name": view.name,
        "media_type": view.media_type,
        "priority": view.priority.value,
        "bytes": view.bytes,
        "sha256": view.sha256,
        "attempt": view.attempt,
        "deliveries": view.deliveries,
        "created_ms": view.created_ms or None,
        "finished_ms": view.finished_ms,
        "duration_ms": view.duration_ms,
        "chunks": view.figures.chunks,
        "tokens": view.figures.tokens,
        "cost_usd": view.figures.cost_usd,
        "error": None if view.error is None else {"code": view.error.code, "message": view.error.message},
        "history": [
            {
                name: value
                for name, value in (
                    ("at_ms", entry.at_ms),
                    ("event", entry.event),
                    ("attempt", entry.attempt),
                    ("code", entry.code),
                    ("delay_ms", entry.delay_ms),
                    ("worker", entry.worker),
                )
                if value is not None
            }
            for entry in view.history
        ],
        "request_id": view.request_id,
        "trace_id": view.trace_id,
        "correlation_id": view.correlation_id,
        "user_id": view.user_id,
    }


def dead_letter_body(view: JobView) -> dict[str, Any]:
    """A dead letter as the API shows it: the job, and what is kept of its document."""
    return {
        **job_body(view),
        "attempts": view.attempt,
        "payload": {"sha256": view.sha256, "bytes": view.bytes},
    }
