"""What an API process writes: JSON lines only, with all required fields, whatever happens to it."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from api_process import RedisServer, running_api, wait_until
from test_logs import REQUIRED


def test_every_line_of_a_life_is_json_with_all_fields(redis_server: RedisServer, tmp_path: Path) -> None:
    """Start, requests, malformed HTTP, a vanished client, warnings and SIGTERM: each line is JSON, none is bare."""
    with running_api(tmp_path, redis_url=redis_server.url) as api:
        api.submit("a text for the log", headers={"X-Request-ID": "req-0123456789abcdef"})
        api.client.get("/no/such/route")
        api.client.get("/healthz")
        address = urlsplit(str(api.client.base_url))
        with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
            raw.sendall(b"this is not HTTP\r\n\r\n")
            assert b"400" in raw.recv(1000)
        with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
            raw.sendall(
                b"POST /rag/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
            )
        wait_until(
            lambda: len(api.lines(message="http.request.finished")) == 3,
            seconds=5,
            what="three requests in the log",
        )
        assert api.stop() == 0
        lines = api.lines()
    assert all(set(line) >= REQUIRED for line in lines)
    assert {line["service"] for line in lines} == {"ragworker-api"}
    (finished,) = api.lines(message="http.request.finished", request_id="req-0123456789abcdef")
    assert (finished["method"], finished["route"], finished["status"]) == ("POST", "/rag/jobs", 202)
    assert finished["duration_ms"] > 0
    assert [line["status"] for line in api.lines(route="unmatched")] == [404]
    assert not api.lines(route="/healthz"), "machines that ask every few seconds do not fill the log"
    assert lines[-1]["message"] == "api.stopped"
    assert "a text for the log" not in api.log.read_text("utf-8")


def test_failure_inside_a_request_is_a_problem_and_one_line(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """An unforeseen exception answers a 500 problem with the request's id, and its traceback is one JSON line."""
    with running_api(tmp_path, redis_url=redis_server.url) as api:
        job_id = api.submit("a text whose record will be broken").json()["job_id"]

        async def break_record(queue: object) -> None:
            await queue._redis.hset(f"{queue.prefix}job:{job_id}", "state", "no such state")  # type: ignore[attr-defined]  # only a broken record gets this far

        api.on_queue(break_record)
        answer = api.client.get(f"/rag/jobs/{job_id}", headers={"X-Request-ID": "req-" + "b" * 16})
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == "req-" + "b" * 16
        (line,) = api.lines(message="http.request.failed")
    assert (line["request_id"], line["error"]) == ("req-" + "b" * 16, "ValueError")
    assert "Traceback" in line["traceback"]


def test_stopping_ends_open_streams(redis_server: RedisServer, tmp_path: Path) -> None:
    """SIGTERM closes the streams that are open and ends the process with status 0, within seconds."""
    with running_api(tmp_path, redis_url=redis_server.url) as api:
        job_id = api.submit("a text that is watched to the end of the server").json()["job_id"]
        with api.client.stream("GET", f"/rag/jobs/{job_id}/events") as answer:
            lines = answer.iter_lines()
            assert any(line.startswith("data: ") for line in lines)
            api.process.terminate()
            assert "event: end" not in list(lines), "the stream ends, the job does not"
        assert api.process.wait(timeout=8) == 0
        assert all(line["level"] == "INFO" for line in api.lines())
