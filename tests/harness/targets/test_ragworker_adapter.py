"""The adapter reads answers, rows and logs strictly, waits with a deadline, and isolates lanes. No target runs here."""

from __future__ import annotations

import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import jwt
import pytest
import redis

from readiness.documents import Document
from readiness.errors import BadInput
from readiness.stack.base import StackInfo
from readiness.stack.binaries import embedded_redis_program, find_program
from readiness.stack.redis import start_private_redis
from readiness.targets import TARGETS, open_target, ragworker
from readiness.targets.base import DeadlineExceeded, HasDeadLetters, JsonObject, Killable, TargetError
from readiness.targets.ragworker import RagworkerLane
from readiness.targets.ragworker_answers import read_status, read_submission, sample
from readiness.targets.ragworker_api import RagworkerApi
from readiness.targets.ragworker_rows import CommittedRows

JOB: JsonObject = {
    "job_id": "j1",
    "state": "done",
    "mode": "durable",
    "attempt": 1,
    "deliveries": 2,
    "created_ms": 1000,
    "finished_ms": 1500,
    "duration_ms": 500,
    "chunks": 3,
    "tokens": 700,
    "cost_usd": 0,
    "error": {"code": "RATE_LIMITED", "message": "later"},
    "history": [
        {"at_ms": 1000, "event": "submitted", "attempt": 0},
        {"at_ms": 1100, "event": "retry_scheduled", "attempt": 1, "code": "RATE_LIMITED", "delay_ms": 1000},
    ],
    "request_id": "req-1",
    "trace_id": "trace-1",
    "correlation_id": "c",
    "user_id": "u",
}
SCHEMA = """
CREATE TABLE documents(job_id TEXT PRIMARY KEY, name TEXT, media_type TEXT, sha256 TEXT, bytes INT, words INT,
  chunk_count INT, token_count INT, user_id TEXT, fence INT, worker TEXT, committed_at_ms INT);
CREATE TABLE chunks(job_id TEXT, ordinal INT, text TEXT, token_count INT, PRIMARY KEY(job_id, ordinal));
CREATE TABLE vectors(job_id TEXT, ordinal INT, dimensions INT, embedding BLOB, PRIMARY KEY(job_id, ordinal));
CREATE TABLE commit_log(id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT, fence INT, worker TEXT, at_ms INT);
INSERT INTO documents VALUES('j1', 'a.txt', 'text/plain', 'ff', 9, 200, 2, 270, 'u', 7, 'w1', 5);
INSERT INTO commit_log(job_id, fence, worker, at_ms) VALUES('j1', 7, 'w1', 5), ('j1', 8, 'w2', 6);
INSERT INTO chunks VALUES('j1', 1, 'second', 36), ('j1', 0, 'first', 234), ('j2', 0, 'orphan', 1);
"""


class ScriptedApi(RagworkerApi):
    """The verbs over a function instead of a network."""

    def __init__(
        self, answer: Callable[[httpx.Request], httpx.Response], settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.name = "scripted"
        self.settings = settings or {}
        self._clients.append(httpx.Client(base_url=self.api_url, transport=httpx.MockTransport(answer)))

    @property
    def api_url(self) -> str:
        """Nobody is there."""
        return "http://127.0.0.1:9"


def stack_info(run_dir: Path) -> StackInfo:
    """The description of a stack that nobody started."""
    url = "http://127.0.0.1:9"
    return StackInfo(
        run_dir, "redis://127.0.0.1:9/0", "local", "7", "sqlite:///x", f"{url}/v1", None, None, url, url, ()
    )


def job(state: str, job_id: str = "j1") -> JsonObject:
    """An answer about a job."""
    return {**JOB, "job_id": job_id, "state": state}


def test_every_target_of_the_table_opens(tmp_path: Path) -> None:
    """Each line of the table names a module that opens a target of that name."""
    assert {name: open_target(name, stack_info(tmp_path)).name for name in TARGETS} == {
        name: name for name in TARGETS
    }


def test_an_unknown_target_is_one_line_with_the_nearest() -> None:
    """A misspelt target is BadInput that names the known ones."""
    with pytest.raises(
        BadInput, match=r"expected one of ragworker, got: 'ragwroker'\. Did you mean 'ragworker'\?"
    ):
        open_target("ragwroker", stack_info(Path()))


def test_a_job_is_read_whole() -> None:
    """Every field of an answer arrives in the value, history and error included."""
    status = read_status(JOB)
    assert (status.state, status.finished, status.attempt, status.deliveries) == ("done", True, 1, 2)
    assert (status.chunks, status.tokens, status.cost_usd, status.duration_ms) == (3, 700, 0.0, 500)
    assert (status.error_code, status.error_message) == ("RATE_LIMITED", "later")
    assert [(event.event, event.delay_ms) for event in status.history] == [
        ("submitted", None),
        ("retry_scheduled", 1000),
    ]
    assert status.body is JOB


def test_a_job_that_only_sql_knows_has_no_times() -> None:
    """Redis lost its record, the effect is committed: the answer says done, and null where nothing is known."""
    status = read_status({**JOB, "created_ms": None, "finished_ms": None, "history": []})
    assert (status.state, status.created_ms, status.finished_ms, status.history) == ("done", 0, None, ())


@pytest.mark.parametrize(
    "broken",
    [
        {"state": None},
        {"state": 3},
        {"attempt": "1"},
        {"deliveries": True},
        {"created_ms": 1.5},
        {"history": ["x"]},
    ],
)
def test_an_answer_that_lacks_something_is_said(broken: JsonObject) -> None:
    """A missing field or one of another kind is a TargetError, never a guess."""
    with pytest.raises(TargetError, match="expected"):
        read_status({**JOB, **broken})


def test_a_refused_submission_keeps_its_answer() -> None:
    """A refusal has no job, is not accepted, and keeps status, body and headers for the check."""
    refused = read_submission(415, {"title": "Unsupported"}, {"X-Request-ID": "req-9"})
    assert (refused.job_id, refused.accepted, refused.status_code, refused.request_id) == (
        "",
        False,
        415,
        "req-9",
    )
    assert refused.body == {"title": "Unsupported"}
    assert read_submission(200, {"job_id": "j", "duplicate": True}, {}).accepted


def test_submitting_sends_file_key_and_headers() -> None:
    """A document goes as a file with name, type, idempotency key and the caller's headers."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={"job_id": "j1", "state": "queued", "mode": "durable"})

    document = Document("가 나.md", "text/markdown", b"# words")
    submission = ScriptedApi(answer).enqueue(document, key="k-1", headers={"X-Request-ID": "req-1"})
    assert (submission.job_id, submission.accepted) == ("j1", True)
    content = seen[0].content
    assert b'name="file"' in content
    assert b"Content-Type: text/markdown\r\n\r\n# words" in content
    assert "가 나.md".encode() in content
    assert (seen[0].headers["idempotency-key"], seen[0].headers["x-request-id"]) == ("k-1", "req-1")


def test_the_lanes_own_requests_carry_a_token_where_one_is_wanted() -> None:
    """With a JWT secret the lane signs its requests, audience and issuer included; a caller's header wins."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization", ""))
        return httpx.Response(200, json=JOB)

    secret = "s" * 32
    api = ScriptedApi(answer, {"RAG_JWT_SECRET": secret, "RAG_JWT_AUDIENCE": "a", "RAG_JWT_ISSUER": "i"})
    api.status("j1")
    claims = jwt.decode(
        seen[0].removeprefix("Bearer "), secret, algorithms=["HS256"], audience="a", issuer="i"
    )
    assert claims["sub"] == "readiness"
    api.enqueue(Document("a", "text/plain", b"x"), headers={"Authorization": "Bearer other"})
    assert seen[1] == "Bearer other"
    ScriptedApi(answer).status("j1")
    assert seen[2] == ""


def test_waiting_ends_when_all_jobs_have_ended() -> None:
    """Jobs that end one after another, and an API that is away for a while, are waited for; order is kept."""
    asked = {"a": 0, "b": 0}

    def answer(request: httpx.Request) -> httpx.Response:
        job_id = request.url.path.rsplit("/", 1)[1]
        asked[job_id] += 1
        if asked[job_id] == 1:
            return httpx.Response(503, json={"title": "away"})
        return httpx.Response(200, json=job("dead" if asked[job_id] > 3 else "running", job_id))

    found = ScriptedApi(answer).wait_all(["b", "a"], seconds=10)
    assert [(job_id, status.state) for job_id, status in found.items()] == [("b", "dead"), ("a", "dead")]


def test_waiting_too_long_names_the_unfinished() -> None:
    """At the deadline the unfinished jobs are named with their states; a lost job is missing, not finished."""
    states = {"a": job("done", "a"), "b": job("retrying", "b")}

    def answer(request: httpx.Request) -> httpx.Response:
        body = states.get(request.url.path.rsplit("/", 1)[1])
        return httpx.Response(200, json=body) if body else httpx.Response(404, json={"title": "no"})

    began = time.monotonic()
    with pytest.raises(
        DeadlineExceeded, match=r"2 jobs not ended within 0\.2 s: b retrying, c missing"
    ) as caught:
        ScriptedApi(answer).wait_all(["a", "b", "c"], seconds=0.2)
    assert caught.value.unfinished == {"b": "retrying", "c": "missing"}
    assert time.monotonic() - began < 2


def test_no_answer_is_a_target_error_and_says_why() -> None:
    """A refused connection names lane, verb and path."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    with pytest.raises(
        TargetError, match=r"lane scripted: GET /metrics: expected an answer, got: Connection refused"
    ):
        ScriptedApi(answer).metrics()


def test_gauges_are_read_from_the_exposition() -> None:
    """A sample is found by its exact name; a missing one is said."""
    text = "# TYPE rag_queue_length_max gauge\nrag_queue_length_max 9\n"
    text += "# TYPE rag_queue_length gauge\nrag_queue_length 7\n"
    assert sample(text, "rag_queue_length") == 7
    with pytest.raises(TargetError, match="expected a sample worker_active_jobs"):
        sample(text, "worker_active_jobs")


def test_rows_are_counted_not_believed(tmp_path: Path) -> None:
    """Counts come from the tables: a missing vector row, an effect done twice and the order of chunks are seen."""
    file = tmp_path / "rag.db"
    with sqlite3.connect(file) as database:
        database.executescript(SCHEMA)
        database.execute("INSERT INTO vectors VALUES('j1', 0, 2, ?)", (struct.pack("<2f", 0.5, -1.0),))
    rows = CommittedRows(f"sqlite:///{file}")
    document = rows.committed()["j1"]
    assert (document.chunk_count, document.chunk_rows, document.vector_rows, document.token_sum) == (
        2,
        2,
        1,
        270,
    )
    assert set(rows.committed()) == {"j1"}
    assert [(effect.fence, effect.worker) for effect in rows.effects()] == [(7, "w1"), (8, "w2")]
    assert rows.chunks("j1") == [("first", 234, (0.5, -1.0)), ("second", 36, ())]
    with sqlite3.connect(file) as database:
        database.execute("UPDATE vectors SET dimensions = 3")
    with pytest.raises(TargetError, match="expected 12 bytes, got 8"):
        rows.chunks("j1")
    rows.close()


def test_reading_before_the_target_has_written_makes_nothing(tmp_path: Path) -> None:
    """Without database file or tables everything is empty, and the observer creates neither."""
    rows = CommittedRows(f"sqlite:///{tmp_path / 'rag.db'}")
    assert (rows.effects(), rows.committed(), rows.chunks("j")) == ([], {}, [])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "rag.db").touch()
    assert rows.effects() == []


def test_lanes_share_nothing_even_with_one_name(tmp_path: Path) -> None:
    """Two lanes of one name differ in queue, database, temporary folder, key and flag file."""
    lanes = [RagworkerLane(stack_info(tmp_path), "same name", settings={}, redis_url=None) for _ in range(2)]
    names = ("name", "queue", "database_url", "temp_dir", "embedding_key")
    assert all(getattr(lanes[0], name) != getattr(lanes[1], name) for name in names)
    assert lanes[0].settings["RAG_ENV_FILE"] != lanes[1].settings["RAG_ENV_FILE"]
    assert isinstance(lanes[0], HasDeadLetters)
    assert not isinstance(lanes[0], Killable)
    for lane in lanes:
        lane.close()
        lane.close()


def test_the_flag_file_follows_the_flag(tmp_path: Path) -> None:
    """A lane is durable unless its settings say otherwise, and set_flag rewrites the file in place."""
    lane = RagworkerLane(stack_info(tmp_path), "flag", settings={"USE_DURABLE_WORKER": "off"}, redis_url=None)
    file = Path(lane.settings["RAG_ENV_FILE"])
    assert file.read_text() == "USE_DURABLE_WORKER=off\n"
    lane.set_flag("TRUE")
    assert file.read_text() == "USE_DURABLE_WORKER=TRUE\n"
    assert [path.name for path in file.parent.iterdir()] == ["flag.env"]
    lane.close()
    assert (
        RagworkerLane(stack_info(tmp_path), "b", settings={}, redis_url=None).settings["USE_DURABLE_WORKER"]
        == "true"
    )


def test_a_lane_leaves_nothing_in_somebody_elses_redis(tmp_path: Path) -> None:
    """On an external Redis a closed lane takes its own keys away and touches no other."""
    if embedded_redis_program() is None and find_program("redis-server", "valkey-server") is None:
        pytest.skip(
            "no real redis-server here: it adds a Redis that is not ours; `make services` installs it"
        )
    server = start_private_redis(tmp_path, "external")
    info = replace(stack_info(tmp_path), redis_url=server.url, redis_provider="external")
    lane = RagworkerLane(info, "guest", settings={}, redis_url=None)
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.set(f"{{rag:{lane.queue}}}:stats", 1)
        client.set("{rag:somebody-else}:stats", 1)
        client.set("other", 1)
        lane.close()
        assert sorted(client.keys()) == ["other", "{rag:somebody-else}:stats"]
    server.stop()


class StartedAtOnce:
    """What stands in for a process: ready at once, and nothing to end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = 0

    def wait_event(self, message: str, seconds: float) -> dict[str, object]:
        """The event, without fields."""
        return {"message": message}

    def terminate(self) -> None:
        """Nothing runs."""

    def await_end(self, deadline: float) -> None:
        """Nothing runs."""


def test_workers_started_at_once_have_logs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers that start at the same moment take different names, and so different logs."""
    both_spawn = threading.Barrier(2)

    def spawn(run_dir: Path, name: str, argv: Sequence[str], **_: object) -> StartedAtOnce:
        both_spawn.wait(timeout=10)
        return StartedAtOnce(name)

    monkeypatch.setattr(ragworker, "spawn", spawn)
    lane = RagworkerLane(stack_info(tmp_path), "crowd", settings={}, redis_url=None)
    with ThreadPoolExecutor(2) as pool:
        names = [start.result().name for start in [pool.submit(lane.start_worker) for _ in range(2)]]
    assert sorted(names) == ["crowd-worker-1", "crowd-worker-2"]
    assert sorted(worker.name for worker in lane.workers) == sorted(names)
    lane.close()


def test_asking_before_the_api_runs_is_said(tmp_path: Path) -> None:
    """Without an API the lane says what to call."""
    lane = RagworkerLane(stack_info(tmp_path), "early", settings={}, redis_url=None)
    with pytest.raises(
        TargetError, match=r"lane early: expected a started API, found none\. Call start_api\(\)"
    ):
        lane.status("j")
    lane.close()
