"""Submitting: once per work, within bounds, and each refusal says what was expected."""

from __future__ import annotations

import select
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_process import Api

from ragworker.job import OutcomeKind

PROBLEM = "application/problem+json"


def assert_problem(answer: Any, status: int) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert body["status"] == status
    assert body["detail"]
    assert body["title"]
    assert body["request_id"] == answer.headers["X-Request-ID"]
    return body


def test_same_work_is_one_job(api: Api) -> None:
    """The same document of the same user is answered 202 once, then 200 with the job's present state."""
    first, again = (api.submit("one and the same text", name="same.txt") for _ in range(2))
    other = api.submit("one and the same text", name="other.txt")
    assert (first.status_code, first.json()["duplicate"], first.json()["mode"]) == (202, False, "durable")
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert again.json()["job_id"] == first.json()["job_id"] != other.json()["job_id"]
    assert first.headers["location"] == f"/rag/jobs/{first.json()['job_id']}"


def test_idempotency_key_names_the_work(api: Api) -> None:
    """An explicit key decides alone: same key is the same job whatever the text, another key another job."""
    first = api.submit("text a", headers={"Idempotency-Key": "order-1"})
    again = api.submit("text b", headers={"Idempotency-Key": "order-1"})
    other = api.submit("text a", headers={"Idempotency-Key": "order-2"})
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 202)
    assert again.json()["job_id"] == first.json()["job_id"] != other.json()["job_id"]


def test_finished_job_is_found_with_its_state(api: Api) -> None:
    """Submitting work that is done answers 200 and `done`, and nothing is queued again."""
    api.submit("text that will be done", priority="high")
    api.settle(api.claim(), OutcomeKind.DONE)
    again = api.submit("text that will be done")
    assert (again.status_code, again.json()["state"], again.json()["duplicate"]) == (200, "done", True)


@pytest.mark.parametrize("key", ["", "a b", "\u00fc", "x" * 201])
def test_malformed_idempotency_key_is_refused(api: Api, key: str) -> None:
    """A key that is empty, too long or not visible ASCII is a 422, not a silent default."""
    answer = api.client.post("/rag/jobs", json={"text": "x"}, headers={b"Idempotency-Key": key.encode()})
    assert "Idempotency-Key" in assert_problem(answer, 422)["detail"]


def test_multipart_upload_takes_its_type_from_part_or_ending(api: Api) -> None:
    """A file's type is the one its part names, or the one of its ending when the part names none."""
    for name, given, expected in [
        ("a.md", "text/markdown; charset=utf-8", "text/markdown"),
        ("b.rst", "application/octet-stream", "text/x-rst"),
        ("C.PDF", "application/octet-stream", "application/pdf"),
    ]:
        answer = api.client.post(
            "/rag/jobs",
            files={"file": (name, f"bytes of {name}".encode(), given)},
            data={"priority": "normal"},
        )
        assert answer.status_code == 202, answer.text
        job = api.client.get(f"/rag/jobs/{answer.json()['job_id']}").json()
        assert (job["name"], job["media_type"], job["bytes"]) == (name, expected, len(f"bytes of {name}"))


def test_body_of_a_job_has_every_field(api: Api) -> None:
    """GET of a job shows all fields of the contract; what is not known yet is null."""
    job_id = api.submit("a text to look at", name="look.txt").json()["job_id"]
    job = api.client.get(f"/rag/jobs/{job_id}").json()
    assert set(job) >= {
        "job_id", "state", "mode", "name", "media_type", "bytes", "attempt", "deliveries", "created_ms", "finished_ms",
        "duration_ms", "chunks", "tokens", "cost_usd", "error", "history", "request_id", "trace_id", "correlation_id",
        "user_id",
    }  # fmt: skip
    assert (job["state"], job["finished_ms"], job["duration_ms"], job["error"]) == (
        "queued",
        None,
        None,
        None,
    )
    assert job["history"][0]["event"] == "submitted"


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        ({"content": b"text", "headers": {"content-type": "text/plain"}}, 415, "multipart/form-data"),
        ({"content": b"text"}, 415, "no type"),
        ({"json": {"text": "x", "media_type": "image/png"}}, 415, "application/pdf"),
        ({"files": {"file": ("a.exe", b"x", "application/octet-stream")}}, 415, "text/markdown"),
        ({"json": {"text": "x", "priority": "urgent"}}, 422, "priority"),
        ({"json": {"txt": "x"}}, 422, "txt"),
        ({"json": {"text": 7}}, 422, "text"),
        ({"json": []}, 422, "body"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "JSON"),
        ({"content": b"[" * 60000, "headers": {"content-type": "application/json"}}, 422, "JSON"),
        ({"content": b'{"text": "\\ud800"}', "headers": {"content-type": "application/json"}}, 422, "JSON"),
        ({"files": {"other": ("a.txt", b"x")}}, 422, "file"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"colour": "red"}}, 422, "colour"),
        ({"content": b"xx", "headers": {"content-type": "multipart/form-data"}}, 422, "multipart"),
        ({"content": b"--b\r\nxx", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 422, "multipart"),
    ],
)  # fmt: skip
def test_bad_submission_is_a_problem_that_says_why(
    api: Api, request_: dict[str, Any], status: int, says: str
) -> None:
    """Each malformed submission is refused with its status and a sentence about what was expected."""
    assert says in assert_problem(api.client.post("/rag/jobs", **request_), status)["detail"]


def test_too_large_document_is_refused(api: Api) -> None:
    """Above RAG_MAX_UPLOAD_BYTES a document is a 413; at the limit it is taken. In both forms of submission."""
    assert api.submit("x" * 100_000).status_code == 202
    assert_problem(api.submit("x" * 100_001), 413)
    assert api.client.post("/rag/jobs", files={"file": ("a.txt", b"y" * 100_000)}).status_code == 202
    assert_problem(api.client.post("/rag/jobs", files={"file": ("a.txt", b"y" * 100_001)}), 413)
    assert_problem(api.client.post("/rag/jobs", files={"file": ("a.txt", b"y" * 3_000_000)}), 413)


@pytest.mark.parametrize("path", ["/rag/jobs", "/rag/jobs/job-x/cancel", "/ui/errors"])
def test_declared_size_is_refused_before_the_body(api: Api, path: str) -> None:
    """A Content-Length beyond the limit is a 413 with no byte of the body sent, on every route that takes one."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999999999\r\n\r\n"
    address = urlsplit(str(api.client.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        raw.sendall(head.encode())
        answer = raw.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert PROBLEM in answer


@pytest.mark.parametrize("path", ["/rag/jobs", "/ui/errors"])
def test_endless_upload_is_refused_while_it_streams(api: Api, path: str) -> None:
    """A body without declared length is cut at the limit: the answer comes long before the sender would end."""
    address = urlsplit(str(api.client.base_url))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"4000\r\n" + b"z" * 0x4000 + b"\r\n"
    sent = 0
    with socket.create_connection((address.hostname, address.port), timeout=5) as raw:
        raw.sendall(head.encode())
        while not select.select([raw], [], [], 0)[0]:
            assert sent < 50_000_000, "the sender could go on for ever"
            try:
                sent += raw.send(piece)
            except OSError:
                break
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert api.client.get("/healthz").status_code == 200


def test_unknown_job_is_404_on_every_verb(api: Api) -> None:
    """A job that is not there is a 404 problem for show, cancel, events and the dead-letter verbs."""
    for method, path in [
        ("GET", "/rag/jobs/job-none"),
        ("GET", "/rag/jobs/%00"),
        ("GET", "/rag/jobs/" + "x" * 5000),
        ("GET", "/rag/jobs/%0a/events"),
        ("DELETE", "/rag/dlq/*"),
        ("POST", "/rag/jobs/job-none/cancel"),
        ("GET", "/rag/jobs/job-none/events"),
        ("GET", "/rag/dlq/job-none"),
        ("POST", "/rag/dlq/job-none/requeue"),
        ("DELETE", "/rag/dlq/job-none"),
    ]:
        assert_problem(api.client.request(method, path), 404)
    assert_problem(api.client.get("/no/such/route"), 404)
    assert_problem(api.client.put("/healthz"), 405)
