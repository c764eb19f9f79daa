"""What /metrics says of a real queue is true, and /readyz, /ui/errors do what they promise."""

from __future__ import annotations

from api_process import Api
from test_telemetry import CORE, types_in

from ragworker.errors import ErrorCode
from ragworker.job import JobError, OutcomeKind


def test_metrics_have_the_ten_names_with_their_types(api: Api) -> None:
    """The endpoint answers the text format with the ten core metrics under their exact names and types."""
    answer = api.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {name: kind for name, kind in types_in(answer.text).items() if name in CORE} == CORE
    assert "rag_redis_up 1.0" in answer.text


def test_metrics_follow_the_jobs(api: Api) -> None:
    """Submitting, claiming and ending jobs moves exactly the figures that speak of it."""
    names = [
        "rag_queue_length", "worker_active_jobs", "rag_dlq_entries", "dlq_entries_total", "commit_positive_total",
        'rag_jobs_finished_total{outcome="done"}', 'rag_jobs_finished_total{outcome="dead"}',
        'rag_jobs_failed_total{code="VALIDATION_ERROR"}', "rag_job_duration_ms_count",
        'rag_job_duration_ms_bucket{le="60000.0"}',
    ]  # fmt: skip

    def moved(before: dict[str, float]) -> dict[str, float]:
        return {name: api.metric(name) - value for name, value in before.items() if api.metric(name) != value}

    start = {name: api.metric(name) for name in names}
    for number in range(2):
        api.submit(f"a text that is counted {number}", priority="high")
    assert moved(start) == {"rag_queue_length": 2}
    jobs = [api.claim() for _ in range(2)]
    assert moved(start) == {"worker_active_jobs": 2}
    api.settle(jobs[0], OutcomeKind.DONE)
    api.settle(jobs[1], OutcomeKind.DEAD, error=JobError(ErrorCode.VALIDATION_ERROR, "no words"))
    assert moved(start) == {
        "rag_dlq_entries": 1,
        "dlq_entries_total": 1,
        "commit_positive_total": 1,
        'rag_jobs_finished_total{outcome="done"}': 1,
        'rag_jobs_finished_total{outcome="dead"}': 1,
        'rag_jobs_failed_total{code="VALIDATION_ERROR"}': 1,
        "rag_job_duration_ms_count": 2,
        'rag_job_duration_ms_bucket{le="60000.0"}': 2,
    }


def test_dead_letter_can_be_listed_inspected_requeued_and_purged(api: Api) -> None:
    """The four verbs of the dead-letter queue (spec C5), and what each leaves behind."""
    ids = []
    for number in range(2):
        ids.append(api.submit(f"a text that dies {number}", priority="high").json()["job_id"])
        api.settle(api.claim(), OutcomeKind.DEAD, error=JobError(ErrorCode.STORE_REJECTED, "refused"))
    listed = api.client.get("/rag/dlq").json()
    assert [entry["job_id"] for entry in listed["entries"]][:2] == ids[::-1]
    assert listed["count"] == len(listed["entries"]) >= 2
    entry = api.client.get(f"/rag/dlq/{ids[0]}").json()
    assert entry["error"] == {"code": "STORE_REJECTED", "message": "refused"}
    assert entry["payload"]["bytes"] == len("a text that dies 0")
    assert entry["history"][0]["event"] == "submitted"
    requeued = api.client.post(f"/rag/dlq/{ids[0]}/requeue")
    assert (requeued.status_code, requeued.json()["state"]) == (202, "queued")
    assert api.client.get(f"/rag/jobs/{ids[0]}").json()["state"] == "queued"
    assert api.client.post(f"/rag/dlq/{ids[0]}/requeue").status_code == 404
    assert api.client.delete(f"/rag/dlq/{ids[1]}").status_code == 204
    assert api.client.get(f"/rag/jobs/{ids[1]}").status_code == 404
    api.settle(api.claim(), OutcomeKind.DONE)


def test_cancel_is_accepted_once(api: Api) -> None:
    """A waiting job is cancelled with 202; one that has ended answers 409; a malformed reason 422."""
    job_id = api.submit("a text that is cancelled").json()["job_id"]
    assert api.client.post(f"/rag/jobs/{job_id}/cancel", json={"reason": 7}).status_code == 422
    answer = api.client.post(f"/rag/jobs/{job_id}/cancel", json={"reason": "changed my mind"})
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    again = api.client.post(f"/rag/jobs/{job_id}/cancel")
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")


def test_running_job_is_cancelled_by_its_worker(api: Api) -> None:
    """Cancelling a running job leaves the request for its worker, under the key that spec D1 names."""
    job_id = api.submit("a text in work", priority="high").json()["job_id"]
    job = api.claim()
    assert (
        api.client.post(f"/rag/jobs/{job_id}/cancel", json={"reason": "stop it"}).json()["state"] == "running"
    )
    assert api.on_queue(lambda queue: queue.cancelled_among([job])) == {job.fence: "stop it"}
    api.settle(job, OutcomeKind.CANCELLED)
    assert api.client.get(f"/rag/jobs/{job_id}").json()["state"] == "cancelled"


def test_error_panels_are_counted_within_a_bounded_set(api: Api) -> None:
    """A known type is counted as itself, any other as unknown, and no type at all is refused."""
    network, unknown = (f'ui_error_panel_shown{{type="{kind}"}}' for kind in ("network", "unknown"))
    before = api.metric(network), api.metric(unknown)
    assert api.client.post("/ui/errors", json={"type": "network"}).status_code == 204
    assert api.client.post("/ui/errors", json={"type": "made up " * 9}).status_code == 204
    assert api.client.post("/ui/errors", json={}).status_code == 422
    assert api.client.post("/ui/errors", content=b"x" * 5000).status_code == 413
    assert (api.metric(network), api.metric(unknown)) == (before[0] + 1, before[1] + 1)


def test_requests_are_counted_by_route_not_by_path(api: Api) -> None:
    """Labels stay bounded: ids and unknown paths do not become series."""
    for path in ("/rag/jobs/job-a", "/rag/jobs/job-b", "/wp-admin", "/wp-login"):
        api.client.get(path)
    text = api.client.get("/metrics").text
    assert 'rag_http_requests_total{method="GET",route="/rag/jobs/{job_id}",status="404"}' in text
    assert 'rag_http_requests_total{method="GET",route="unmatched",status="404"}' in text
    assert "job-a" not in text
    assert "wp-" not in text


def test_readiness_names_its_parts(api: Api) -> None:
    """In durable mode both Redis and SQL are asked, and the answer says which is what."""
    answer = api.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"ready": True, "mode": "durable", "parts": {"sql": "reachable", "redis": "reachable"}},
    )
