"""Every log line of API and workers is one JSON object with the required fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document

# Spec G5. The context fields are on every line, null where nothing applies: a log store can index them.
ALWAYS = ("timestamp", "level", "message", "service")
CONTEXT = ("request_id", "trace_id", "correlation_id", "user_id", "job_id")
LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
SERVICES = {"ragworker-api", "ragworker-worker"}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ENDS = {"job.finished"}  # a job's last line says how long it took
LONGEST_LINE = 64_000
TIMED_JOBS = 5
FINISH_SECONDS, LOG_SECONDS = 20.0, 5.0
SLACK = timedelta(seconds=5)
DURATION_SLACK_MS = 2_000  # the line is written a little after the end that the API shows


@pytest.mark.claim("G5.fields")
def test_every_log_line_is_json_with_all_fields(ingested: Ingested, evidence: ClaimEvidence) -> None:
    """No line of any process of the lane lacks a field, has another time format, or carries a document's
    text.
    """
    lines = ingested.lane.log_lines()
    wrong = [f"{fault}: {str(line)[:160]}" for line in lines if (fault := what_is_wrong(line))]
    services = {str(line.get("service")) for line in lines}
    evidence.trials(len(lines), len(wrong), "lines", examples=wrong)
    evidence.facts(
        messages=dict(Counter(str(line.get("message")) for line in lines)), services=sorted(services)
    )
    assert services >= SERVICES, f"expected lines of {sorted(SERVICES)}, got {sorted(services)}"
    assert not wrong, f"{len(wrong)} of {len(lines)} lines: {wrong[0]}"


@pytest.mark.claim("G5.fields")
def test_times_are_utc_and_milliseconds(traced_lane: Any, evidence: ClaimEvidence) -> None:
    """Whatever zone the processes live in, their lines say when they were written in UTC, and how long a job took in
    milliseconds, as the API says it.
    """
    lane = traced_lane.lane
    began = datetime.now(UTC) - SLACK
    documents = [Document(f"timed-{n}.txt", "text/plain", f"timed {n}".encode()) for n in range(TIMED_JOBS)]
    jobs = lane.wait_all([lane.enqueue(document).job_id for document in documents], seconds=FINISH_SECONDS)

    def ends() -> list[Mapping[str, Any]]:
        lines = lane.log_lines()
        return [
            line for line in lines if line.get("message") == "job.finished" and line.get("job_id") in jobs
        ]

    wait_until(
        lambda: len(ends()) == TIMED_JOBS, seconds=LOG_SECONDS, what="job.finished lines", every_seconds=0.1
    )
    wrong: list[str] = []
    for line in ends():
        written = datetime.fromisoformat(line["timestamp"])
        if not began <= written <= datetime.now(UTC) + SLACK:
            wrong.append(
                f"timestamp {line['timestamp']}: expected the present time in UTC, zone {lane.settings['TZ']}"
            )
        said, true = float(line["duration_ms"]), jobs[line["job_id"]].duration_ms
        if true is None or abs(said - true) > DURATION_SLACK_MS:
            wrong.append(f"duration_ms {said:g}: expected about {true} as the API says")
    evidence.trials(TIMED_JOBS, min(len(wrong), TIMED_JOBS), "lines", examples=wrong)
    assert not wrong, wrong[0]


def what_is_wrong(line: Mapping[str, object]) -> str:
    """The first thing that is wrong with a line, "" when nothing is."""
    return next(faults(line), "")


def faults(line: Mapping[str, object]) -> Iterator[str]:
    """Everything that is wrong with a line, the plainest first."""
    if "_raw" in line:
        yield "no JSON object"
    yield from (f"without {name}" for name in ALWAYS if not line.get(name))
    yield from (f"without the field {name}" for name in CONTEXT if name not in line)
    message, level = str(line.get("message")), str(line.get("level"))
    if not TIMESTAMP.fullmatch(str(line.get("timestamp"))):
        yield f"timestamp {line.get('timestamp')!r} is not UTC with milliseconds and Z"
    if level not in LEVELS:
        yield f"unknown level {level!r}"
    if message.startswith("job.") and not line.get("job_id"):
        yield f"{message} without job_id"
    if message in ENDS and not isinstance(line.get("duration_ms"), int | float):
        yield f"{message} without duration_ms"
    if len(str(line)) > LONGEST_LINE:
        yield "longer than a log shipper accepts"
