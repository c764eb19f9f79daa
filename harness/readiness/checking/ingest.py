"""Put the whole corpus through the system once and keep what came back: ids, answers, states, timings.

One session, one ingestion: many checks look at its traces from outside (SQL, logs, the simulator's true
log). Judges nothing: a document that does not end is kept with the state it was last seen in, for the
checks to count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from readiness.checking.ends import ends_of, state_of

if TYPE_CHECKING:
    from readiness.documents import Corpus, Document
    from readiness.recount import Recount, Unreadable
    from readiness.targets.base import JobStatus, Lane, Submission

# Some hundred documents take a few seconds; more means that the system stands still.
INGEST_SECONDS = 45.0


@dataclass(frozen=True)  # no slots: the recount is kept once it is made
class Ingested:
    """The ingested corpus. Jobs are keyed by job id; a document that occurs twice in the corpus has one
    job.
    """

    lane: Lane
    corpus: Corpus
    documents: Mapping[str, Document]
    submissions: Mapping[str, Submission]
    statuses: Mapping[str, JobStatus | None]
    submit_seconds: Mapping[str, float]
    total_seconds: float

    @cached_property
    def recounts(self) -> Mapping[str, Recount | Unreadable]:
        """What the chunking rule makes of each document, counted here from its file, by job id."""
        from readiness.recount import recount  # noqa: PLC0415 - parsers that only this needs

        return {job: recount(document) for job, document in self.documents.items()}

    @property
    def job_ids(self) -> list[str]:
        """Every job, in the order of submission."""
        return list(self.submissions)

    @property
    def done(self) -> list[str]:
        """The jobs that the system says are done, in the order of submission."""
        return [job for job in self.submissions if state_of(self.statuses[job]) == "done"]


def ingest(lane: Lane, corpus: Corpus, *, seconds: float = INGEST_SECONDS) -> Ingested:
    """Submit every document of ``corpus`` and wait until each job has ended, or ``seconds`` are over."""
    documents: dict[str, Document] = {}
    submissions: dict[str, Submission] = {}
    submit_seconds: dict[str, float] = {}
    started = time.monotonic()
    for document in corpus.documents:
        before = time.monotonic()
        submission = lane.enqueue(document)
        took = time.monotonic() - before
        if submission.job_id and submission.job_id not in submissions:
            documents[submission.job_id] = document
            submissions[submission.job_id] = submission
            submit_seconds[submission.job_id] = took
    statuses = ends_of(lane, list(submissions), seconds=seconds)
    return Ingested(
        lane=lane,
        corpus=corpus,
        documents=documents,
        submissions=submissions,
        statuses=statuses,
        submit_seconds=submit_seconds,
        total_seconds=time.monotonic() - started,
    )
