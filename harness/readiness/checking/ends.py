"""How jobs ended, told without raising: a check about lost jobs must count them, not stop at the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from readiness.targets.base import DeadlineExceeded, TargetError

if TYPE_CHECKING:
    from readiness.targets.base import JobStatus, Lane

UNKNOWN = "unknown to the target"


def ends_of(lane: Lane, job_ids: Sequence[str], *, seconds: float) -> dict[str, JobStatus | None]:
    """Wait up to ``seconds`` for every job's end; then its last status, None when the target lost it."""
    try:
        return dict(lane.wait_all(job_ids, seconds=seconds))
    except DeadlineExceeded:
        return {job: _status(lane, job) for job in job_ids}


def state_of(status: JobStatus | None) -> str:
    """The state of a job for a reader."""
    return UNKNOWN if status is None else status.state


def _status(lane: Lane, job_id: str) -> JobStatus | None:
    try:
        return lane.status(job_id)
    except TargetError:
        return None
