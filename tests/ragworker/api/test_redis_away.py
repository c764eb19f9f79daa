"""Redis going away: submissions fall back, questions answer 503, and everything comes back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from api_process import Api, RedisServer, redis_binary, running_api, wait_until


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that these tests may end and freeze."""
    server = RedisServer(redis_binary(), tmp_path_factory.mktemp("own-redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def lonely_api(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API in durable mode on that Redis."""
    folder = tmp_path_factory.mktemp("lonely")
    with running_api(folder, redis_url=own_redis.url, RAG_RETRY_BASE_SECONDS="100") as api:
        yield api


@pytest.fixture(autouse=True)
def _redis_is_back_afterwards(own_redis: RedisServer) -> Iterator[None]:
    yield
    if own_redis.process is None:
        own_redis.start()


def test_submission_falls_back_and_questions_answer_503(lonely_api: Api, own_redis: RedisServer) -> None:
    """Without Redis a submission is taken in the background; a durable job is a 503 with Retry-After, then back."""
    durable = lonely_api.submit("taken by Redis").json()
    own_redis.stop()
    fallen = lonely_api.submit("taken here")
    assert (fallen.status_code, fallen.json()["mode"]) == (202, "background")
    assert lonely_api.client.get(f"/rag/jobs/{fallen.json()['job_id']}").json()["mode"] == "background"
    for method, path in [
        ("GET", f"/rag/jobs/{durable['job_id']}"),
        ("GET", f"/rag/jobs/{durable['job_id']}/events"),
        ("POST", f"/rag/jobs/{durable['job_id']}/cancel"),
        ("GET", "/rag/dlq"),
        ("POST", f"/rag/dlq/{durable['job_id']}/requeue"),
    ]:
        answer = lonely_api.client.request(method, path)
        assert answer.status_code == 503, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
    ready = lonely_api.client.get("/readyz")
    assert (ready.status_code, ready.json()["parts"]["sql"]) == (503, "reachable")
    assert ready.json()["parts"]["redis"].startswith("unreachable")
    text = lonely_api.client.get("/metrics").text
    assert "rag_redis_up 0.0" in text
    assert "rag_queue_length" not in text
    assert lonely_api.client.get("/healthz").status_code == 200
    own_redis.start()
    assert lonely_api.client.get(f"/rag/jobs/{durable['job_id']}").json()["state"] == "queued"
    assert lonely_api.submit("taken by Redis again").json()["mode"] == "durable"


def test_same_work_taken_here_is_not_taken_twice(lonely_api: Api, own_redis: RedisServer) -> None:
    """Work that the background took while Redis was away is found there when it is submitted again."""
    own_redis.stop()
    first = lonely_api.submit("work of the outage").json()
    own_redis.start()
    again = lonely_api.submit("work of the outage")
    assert (again.status_code, again.json()["job_id"]) == (200, first["job_id"])
    assert (again.json()["mode"], again.json()["duplicate"]) == ("background", True)


def test_frozen_redis_costs_a_bounded_wait(lonely_api: Api, own_redis: RedisServer) -> None:
    """A Redis that accepts but never answers delays a submission by about a second, and no 5xx comes of it."""
    lonely_api.submit("to have a connection")
    own_redis.freeze()
    try:
        started = time.monotonic()
        answer = lonely_api.submit("text for a frozen Redis")
        waited = time.monotonic() - started
        scraped = lonely_api.client.get("/metrics")
    finally:
        own_redis.thaw()
    assert (answer.status_code, answer.json()["mode"]) == (202, "background")
    assert waited < 3
    assert "rag_redis_up 0.0" in scraped.text
    wait_until(
        lambda: lonely_api.submit(f"thawed {time.monotonic_ns()}").json()["mode"] == "durable",
        seconds=10,
        what="submissions are durable again",
    )


def test_open_stream_outlives_a_restart_of_redis(lonely_api: Api, own_redis: RedisServer) -> None:
    """A client that listens while Redis restarts keeps its stream and gets the end."""
    job_id = lonely_api.submit("text with a patient listener").json()["job_id"]
    with lonely_api.client.stream("GET", f"/rag/jobs/{job_id}/events") as answer:
        lines = answer.iter_lines()
        assert any(line.startswith("data: ") for line in lines)
        own_redis.stop()
        own_redis.start()
        wait_until(
            lambda: lonely_api.client.post(f"/rag/jobs/{job_id}/cancel").status_code == 202,
            seconds=10,
            what="the cancellation is accepted",
        )
        assert "event: end" in list(lines)


def test_api_without_any_redis_works_in_the_background(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With the flag off and no Redis at all, jobs run, unknown ones are 404, and the ten metrics are there."""
    folder = tmp_path_factory.mktemp("bare")
    url = f"unix://{folder}/nothing.sock"
    with running_api(folder, redis_url=url, flag="false", RAG_RETRY_BASE_SECONDS="100") as api:
        answer = api.submit("text without Redis")
        assert (answer.status_code, answer.json()["mode"]) == (202, "background")
        assert api.client.get(f"/rag/jobs/{answer.json()['job_id']}").status_code == 200
        assert api.client.get("/rag/jobs/job-unknown").status_code == 404
        assert api.client.get("/readyz").json() == {
            "ready": True,
            "mode": "background",
            "parts": {"sql": "reachable"},
        }
        assert "\nrag_queue_length " in api.client.get("/metrics").text
