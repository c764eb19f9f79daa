"""Every log line of API and workers is one JSON object with the required fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence

# Spec G5. The context fields are on every line, null where nothing applies: a log store can index them.
ALWAYS = ("timestamp", "level", "message", "service")
CONTEXT = ("request_id", "trace_id", "correlation_id", "user_id", "job_id")
LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
SERVICES = {"ragworker-api", "ragworker-worker"}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ENDS = {"job.finished"}  # a job's last line says how long it took
LONGEST_LINE = 64_000


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
