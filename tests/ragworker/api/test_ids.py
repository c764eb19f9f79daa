"""Ids: valid ones are kept, others replaced, and they are found again in headers, bodies, jobs and log lines."""

from __future__ import annotations

import re

import pytest
from api_process import Api

SHAPES = {
    "x-request-id": r"req-[a-z0-9]{16}",
    "x-trace-id": r"trace-[0-9a-f]{32}",
    "x-correlation-id": r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}",
}
GOOD = {
    "X-Request-ID": "req-abcdef0123456789",
    "X-Trace-ID": "trace-" + "0123456789abcdef" * 2,
    "X-Correlation-ID": "order:2026-11.42",
}
BAD = {
    "X-Request-ID": [
        "", "req-", "req-short", "req-ABCDEF0123456789", "req-abcdef01234567890", "abcdef0123456789",
        "req-abcdef012345678\u00df", "req-abcdef 12345678", "req-abcdef0123456789,x", '{"a":"b"}',
    ],
    "X-Trace-ID": [
        "", "trace-", "trace-" + "g" * 32, "trace-" + "A" * 32, "trace-" + "a" * 31, "trace-" + "a" * 33, "a" * 32,
    ],
    "X-Correlation-ID": ["", "-starts-wrong", "has space", "x" * 129, "semi;colon", "quote\"d", "<script>"],
}  # fmt: skip


def test_valid_ids_are_kept(api: Api) -> None:
    """Ids of the right shape come back unchanged in the three headers."""
    answer = api.client.get("/healthz", headers=GOOD)
    assert {name: answer.headers[name] for name in GOOD} == GOOD


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_invalid_id_is_replaced(api: Api, name: str, value: str) -> None:
    """A malformed id is never echoed: a fresh one of the right shape stands in its place."""
    answer = api.client.get("/healthz", headers=[(name.encode(), value.encode("latin-1"))])
    assert answer.headers[name] != value
    assert re.fullmatch(SHAPES[name.lower()], answer.headers[name])


def test_missing_and_repeated_ids_are_made_anew(api: Api) -> None:
    """Without ids, or with one given twice, each request gets fresh ones."""
    first, second = (api.client.get("/healthz") for _ in range(2))
    for name, shape in SHAPES.items():
        assert re.fullmatch(shape, first.headers[name])
        assert first.headers[name] != second.headers[name]
    given = ["req-" + "a" * 16, "req-" + "b" * 16]
    twice = api.client.get("/healthz", headers=[("X-Request-ID", value) for value in given])
    assert twice.headers["X-Request-ID"] not in given


@pytest.mark.parametrize("path", ["/metrics", "/rag/jobs/unknown", "/no/such/route", "/rag/dlq", "/readyz"])
def test_every_answer_carries_the_ids(api: Api, path: str) -> None:
    """Also errors and machine routes answer with the three headers."""
    answer = api.client.get(path, headers=GOOD)
    assert {name: answer.headers[name] for name in GOOD} == GOOD


def test_ids_travel_into_the_job_and_the_log(api: Api) -> None:
    """The ids of a submission are in its answer, in the job's metadata and in the API's lines about it."""
    ids = {**GOOD, "X-Request-ID": "req-travel0123456789"[:20]}
    answer = api.submit("the ids of this text travel", headers=ids, priority="high")
    job = api.client.get(f"/rag/jobs/{answer.json()['job_id']}").json()
    assert answer.status_code == 202
    assert answer.json()["request_id"] == job["request_id"] == ids["X-Request-ID"]
    assert answer.json()["trace_id"] == job["trace_id"] == ids["X-Trace-ID"]
    assert job["correlation_id"] == ids["X-Correlation-ID"]
    (line,) = api.lines(message="job.submitted", job_id=job["job_id"])
    assert (line["request_id"], line["trace_id"]) == (ids["X-Request-ID"], ids["X-Trace-ID"])
    assert (line["correlation_id"], line["user_id"]) == (ids["X-Correlation-ID"], "anonymous")
    assert api.claim().request_id == ids["X-Request-ID"]
