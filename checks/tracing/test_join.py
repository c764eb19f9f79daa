"""A request can be followed by its ids from the HTTP answer through the API's log into the worker's."""

from __future__ import annotations

import pytest

from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until

LOG_SECONDS = 5.0  # lines are written before the state is seen, but by another process


@pytest.mark.claim("G2.join")
def test_ids_join_answer_api_and_worker(ingested: Ingested, evidence: ClaimEvidence) -> None:
    """For each committed document the API's submit line and the worker's finish line carry the ids of the
    answer.
    """
    jobs = ingested.done

    def lines() -> dict[str, dict[str, list[dict[str, object]]]]:
        found: dict[str, dict[str, list[dict[str, object]]]] = {job: {} for job in jobs}
        for line in ingested.lane.log_lines():
            job = str(line.get("job_id"))
            if job in found:
                found[job].setdefault(str(line.get("message")), []).append(dict(line))
        return found

    wait_until(
        lambda: all("job.finished" in events for events in lines().values()),
        seconds=LOG_SECONDS,
        what="a job.finished line of every committed document",
        every_seconds=0.2,
    )
    wrong: list[str] = []
    by_job = lines()
    assert jobs, "no document was committed: there is nothing to join"
    for job in jobs:
        answer = ingested.submissions[job].headers
        ids = (answer.get("x-request-id"), answer.get("x-trace-id"), answer.get("x-correlation-id"))
        for event, service in (("job.submitted", "ragworker-api"), ("job.finished", "ragworker-worker")):
            mine = by_job[job].get(event, [])
            joined = [line for line in mine if line.get("service") == service and ids_of(line) == ids]
            if not joined:
                seen = [(line.get("service"), *ids_of(line)) for line in mine]
                wrong.append(f"{job}: expected {event} of {service} with {ids}, got {seen}")
                break
    evidence.trials(len(jobs), len(wrong), "jobs", examples=wrong)
    evidence.facts(log_lines=sum(len(events) for events in by_job.values()))
    assert not wrong, wrong[0]


def ids_of(line: dict[str, object]) -> tuple[object, object, object]:
    return line.get("request_id"), line.get("trace_id"), line.get("correlation_id")
