"""The OpenAPI document is true: whatever schemathesis sends, each answer is one that the document names, none a 500."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import schemathesis
from api_process import SECRET, Api, RedisServer, routes_of, running_api
from schemathesis.checks import positive_data_acceptance
from test_access import bearer

from ragworker.api import jobs
from ragworker.errors import ErrorCode
from ragworker.job import JobError, OutcomeKind

#: All checks that schemathesis has. A request with a wrong token is tried by one of them (`ignored_auth`).
RUN = [
    "-m",
    "schemathesis.cli",
    "run",
    "--checks",
    "all",
    "--seed",
    "7",
    "--request-timeout",
    "5",
    "--no-color",
]

SECONDS = 60.0


@dataclass(frozen=True)
class Fuzzed:
    """An API in one mode, with jobs of alice in every state that a test can bring about."""

    api: Api
    job_ids: dict[str, str]


@pytest.fixture(scope="module", params=["durable", "background"])
def fuzzed(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fuzzed]:
    durable = request.param == "durable"
    environ = {"RAG_JWT_SECRET": SECRET, "RAG_JWT_AUDIENCE": "rag", "RAG_JWT_ISSUER": "tests"}
    with running_api(
        tmp_path_factory.mktemp("fuzzed"),
        redis_url=redis_server.url,
        flag="true" if durable else "false",
        RAG_USER_RATE_LIMIT="50000",
        **environ,
    ) as api:
        ids: dict[str, str] = {}
        for state in ("dead", "dead too", "done") if durable else ():
            ids[state] = api.submit(state, headers=bearer("alice")).json()["job_id"]
            error = JobError(ErrorCode.STORE_REJECTED, "refused") if state != "done" else None
            api.settle(api.claim(), OutcomeKind(state.split()[0]), error=error)
        for state in ("queued", "cancelled"):
            ids[state] = api.submit(state, headers=bearer("alice")).json()["job_id"]
        api.client.post(f"/rag/jobs/{ids['cancelled']}/cancel", headers=bearer("alice"))
        yield Fuzzed(api, ids)


def test_every_answer_about_a_job_is_documented(fuzzed: Fuzzed) -> None:
    """All operations on a job in every state: status, type, headers and body are as documented.

    First of all, because schemathesis requeues and purges the dead letters that it comes upon.
    """
    schema = schemathesis.openapi.from_url(f"{fuzzed.api.client.base_url.copy_with(path='/openapi.json')}")
    paths = [(method, path) for method, path in routes_of(*jobs.routers) if "{job_id}" in path]
    # What changes a job comes last, or nothing would be left to look at.
    order = ["GET", "POST", "DELETE"]
    seen = set()
    for method, path in sorted(paths, key=lambda route: order.index(route[0])):
        for state, job_id in fuzzed.job_ids.items():
            if (path.rpartition("/")[2], state) in (("events", "queued"), ("requeue", "dead")):
                continue  # a stream that lasts as long as its job; a dead letter that is left to be purged
            case = schema[path][method].Case(path_parameters={"job_id": job_id}, headers=bearer("alice"))
            seen.add(case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code)
    assert {200, 202, 404, 409} <= seen
    assert 204 in seen or "dead" not in fuzzed.job_ids


@pytest.mark.parametrize("caller", ["alice", "nobody"])
def test_every_answer_is_documented(fuzzed: Fuzzed, caller: str, tmp_path: Path) -> None:
    """Valid and invalid requests to all operations, with a token and without: zero failures of any check."""
    url = str(fuzzed.api.client.base_url).rstrip("/")
    # The stream of a job that has ended closes by itself; that of a waiting one would last as long as the job.
    (tmp_path / "schemathesis.toml").write_text(
        '[[operations]]\ninclude-path = "/rag/jobs/{job_id}/events"\n'
        f'parameters = {{ job_id = "{fuzzed.job_ids["cancelled"]}" }}\n',
        "utf-8",
    )
    token = bearer("alice")["Authorization"]
    command = [sys.executable, *RUN, "--max-examples", "10", f"{url}/openapi.json"]
    if caller == "alice":
        command += ["-H", f"Authorization: {token}"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "150"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    report = done.stdout.replace(token, "Bearer ...")
    assert done.returncode == 0, report
    (cases,) = re.findall(r"(\d+) generated, (\d+) passed", report)
    assert int(cases[0]) == int(cases[1]) > 200, report
    assert not fuzzed.api.lines(message="http.request.failed")
