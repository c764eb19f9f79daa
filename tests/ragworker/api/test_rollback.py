"""Undoing a committed effect (spec D3): within the window, once, repeatable, and only where there is one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from api_process import Api, RedisServer, passed_on, running_api, wait_until
from traced import Sink

from ragworker.job import OutcomeKind


@dataclass
class Stand:
    """An API whose window is open, one on the same places whose window is shut, and a worker."""

    api: Api
    late: Api
    database: Path

    def done(self, text: str) -> str:
        """The id of a job whose effect is committed."""
        job_id = str(self.api.submit(text).json()["job_id"])
        wait_until(lambda: self.state(job_id) == "done", seconds=30, what=f"{job_id} is done")
        return job_id

    def state(self, job_id: str) -> str:
        return str(self.api.client.get(f"/rag/jobs/{job_id}").json()["state"])

    def rows(self, table: str, job_id: str) -> int:
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            query = f"SELECT count(*) FROM {table} WHERE job_id = ?"  # noqa: S608  our own table names
            return int(connection.execute(query, (job_id,)).fetchone()[0])


@pytest.fixture(scope="module")
def stand(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("rollback")
    with Sink().serving() as url:
        environ = {
            "RAG_QUEUE": "rollback",
            "RAG_EMBEDDING_URL": f"{url}/v1",
            "DATABASE_URL": f"sqlite:///{folder}/rag.db",
            "RAG_TEMP_DIR": str(folder / "temp"),
            "REDIS_URL": redis_server.url,
        }
        given = {name: value for name, value in environ.items() if name != "REDIS_URL"}
        with (
            running_api(folder / "1", redis_url=redis_server.url, RAG_ROLLBACK_SECONDS="600", **given) as api,
            running_api(folder / "2", redis_url=redis_server.url, RAG_ROLLBACK_SECONDS="0", **given) as late,
            (folder / "worker.log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "ragworker", "worker"], env={**passed_on(), **environ}, stderr=log
            ) as worker,
        ):
            yield Stand(api, late, folder / "rag.db")
            worker.terminate()


def asked(api: Api, job_id: str) -> httpx.Response:
    return api.client.post(f"/rag/jobs/{job_id}/rollback")


@pytest.mark.parametrize("mode", ["durable", "background"])
def test_effect_is_undone_once_and_asking_again_says_the_same(stand: Stand, mode: str) -> None:
    """The document is gone, the job cancelled with its history; a repeat answers the same and does nothing."""
    stand.api.set_flag("true" if mode == "durable" else "false")
    job_id = stand.done(f"a text to take back {mode}")
    assert [stand.rows(table, job_id) for table in ("documents", "chunks", "vectors")] == [1, 1, 1]
    for _ in range(3):
        answer = asked(stand.api, job_id)
        body = {name: answer.json()[name] for name in ("job_id", "state", "rolled_back")}
        assert (answer.status_code, body) == (
            200,
            {"job_id": job_id, "state": "cancelled", "rolled_back": True},
        )
    assert [stand.rows(table, job_id) for table in ("documents", "chunks", "vectors")] == [0, 0, 0]
    assert [stand.rows(table, job_id) for table in ("commit_log", "rollback_log")] == [1, 1]
    job = stand.api.client.get(f"/rag/jobs/{job_id}").json()
    assert (job["state"], job["mode"]) == ("cancelled", mode)
    assert [line["event"] for line in job["history"]].count("rolled_back") == 1


def test_after_the_window_the_effect_stays(stand: Stand) -> None:
    """A commit older than RAG_ROLLBACK_SECONDS is a 409, and the document is still there."""
    stand.api.set_flag("true")
    job_id = stand.done("a text that stays")
    answer = asked(stand.late, job_id)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:ragworker:problem:rollback-too-late")
    assert "RAG_ROLLBACK_SECONDS" in answer.json()["detail"]
    assert (stand.rows("documents", job_id), stand.state(job_id)) == (1, "done")


@pytest.mark.parametrize("state", ["queued", "running", "dead", "cancelled"])
def test_without_an_effect_there_is_nothing_to_undo(api: Api, state: str) -> None:
    """A job that has committed nothing is a 409 and stays as it is."""
    job_id = str(api.submit(f"a text without effect {state}", priority="high").json()["job_id"])
    job = api.claim() if state in ("running", "dead") else None
    if job and state == "dead":
        api.settle(job, OutcomeKind.DEAD)
    if state == "cancelled":
        api.client.post(f"/rag/jobs/{job_id}/cancel")
    answer = asked(api, job_id)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:ragworker:problem:nothing-to-roll-back")
    assert api.client.get(f"/rag/jobs/{job_id}").json()["state"] == state
    if job and state == "running":
        api.settle(job, OutcomeKind.DONE)
    api.client.post(f"/rag/jobs/{job_id}/cancel")
