"""Run jobs inside the API process, without Redis: when USE_DURABLE_WORKER is off, or Redis is away (spec A2).

The same `ingest.py` as the worker's, with an in-memory registry. What it does not promise: jobs die with the
process, and the rate limit is this process' own (the shared one lives in Redis), so the limit of B2 holds per
process here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from ragworker.job import Event, JobState, JobView, NewJob, Submitted
from ragworker.settings import Settings


class BackgroundFullError(Exception):
    """Too many jobs wait already; the caller should answer 503."""


class BackgroundRunner:
    """Same verbs as `Queue` for what the API needs; call `start` once inside the running loop, `close` at the end."""

    def __init__(self, settings: Settings) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Open the database and the embedding client lazily; cheap when no job ever comes."""

    async def close(self) -> None:
        """Finish running jobs within a bound, then stop; waiting ones are lost, as promised above."""

    async def submit(self, new: NewJob) -> Submitted:
        """Accept a job or find the one that does the same work. BackgroundFullError when there is no room."""
        raise NotImplementedError

    async def get(self, job_id: str) -> JobView | None:
        """The job (mode `background`), or None."""
        raise NotImplementedError

    async def cancel(self, job_id: str, *, reason: str, by: str) -> JobState:
        """End a job; as `Queue.request_cancel`."""
        raise NotImplementedError

    async def events(self, job_id: str, *, after: str = "0") -> list[Event]:
        """The kept events that follow `after`."""
        raise NotImplementedError

    def subscribe(self) -> AsyncIterator[Event]:
        """Events of all jobs as they happen."""
        raise NotImplementedError

    def stats(self) -> Mapping[str, float]:
        """Counters and histograms by the names of `QueueGauges.stats`, of this process."""
        raise NotImplementedError

    @property
    def queue_length(self) -> int:
        """Jobs waiting."""
        raise NotImplementedError

    @property
    def active_jobs(self) -> int:
        """Jobs running."""
        raise NotImplementedError

    @property
    def token_used_pct(self) -> float:
        """Tokens held by in-flight batches, in percent of the budget."""
        raise NotImplementedError
