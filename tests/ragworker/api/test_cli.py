"""The command line: help that teaches, one line for bad input, and statuses that mean the same everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from api_process import Api, RedisServer, passed_on

from ragworker.cli import main
from ragworker.errors import ErrorCode
from ragworker.job import JobError, OutcomeKind
from ragworker.store import CommitResult, DocumentRow, Store


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(
    redis_server: RedisServer, api: Api, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run `ragworker` in this process on the queue of the API under test: a process each would take minutes."""

    def call(*arguments: str, **environ: str) -> Done:
        settings = {"REDIS_URL": redis_server.url, "RAG_QUEUE": api.queue_name, **environ}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(str(end.code))
        return Done(status, *capfd.readouterr())

    return call


def test_help_shows_examples(run: Run) -> None:
    """--help names the verbs and shows commands to copy."""
    done = run("--help")
    assert done.returncode == 0
    for words in ("examples:", "ragworker jobs submit", "ragworker dlq requeue", "RAG_ENV_FILE"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (["queue", "stats"], {"RAG_MAX_RETRIES": "many"}, "RAG_MAX_RETRIES"),
        (["api"], {"RAG_API_PORT": "99999"}, "RAG_API_PORT"),
        (["worker"], {"RAG_EMBEDDING_BATCH_SIZE": "0"}, "RAG_EMBEDDING_BATCH_SIZE"),
        (["api"], {"RAG_ENV_FILE": "/no/such/file"}, "RAG_ENV_FILE"),
        (["jobs"], {}, "COMMAND"),
        (["jobs", "frobnicate"], {}, "frobnicate"),
        (["jobs", "list", "--limit", "0"], {}, "1 to 1000"),
        (["jobs", "submit", "/no/such/file.txt"], {}, "/no/such/file.txt"),
    ],
)
def test_bad_input_is_one_line_and_status_4(
    run: Run, arguments: list[str], environ: dict[str, str], says: str
) -> None:
    """Bad settings and arguments end with status 4 and one line that names what is wrong; nothing is started."""
    done = run(*arguments, **environ)
    assert (done.returncode, done.stdout) == (4, "")
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_taken_port_is_one_line_and_status_4(api: Api) -> None:
    """An address that is taken is said in one line, with what to do; the module runs like the command."""
    environ = {**passed_on(), "RAG_API_PORT": str(api.client.base_url.port)}
    command = [sys.executable, "-m", "ragworker", "api"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert "RAG_API_PORT=0" in done.stderr


def test_unreachable_redis_is_one_line_and_status_3(run: Run) -> None:
    """Without Redis a verb says so in one line, with status 3."""
    done = run("queue", "stats", REDIS_URL="redis://127.0.0.1:9/0")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "REDIS_URL" in done.stderr


def test_document_is_submitted_listed_shown_and_cancelled(run: Run, tmp_path: Path) -> None:
    """An operator can queue a file, find it, look at it and cancel it; the same file is the same job."""
    file = tmp_path / "handbook.md"
    file.write_text("# A handbook\n\nwith some words", "utf-8")
    (job_id,) = [job["job_id"] for job in json.loads(run("jobs", "submit", str(file), "--json").stdout)]
    known = {"job_id": job_id, "state": "queued", "duplicate": True, "name": "handbook.md"}
    assert json.loads(run("jobs", "submit", str(file), "--json").stdout) == [known]
    assert job_id in run("jobs", "list", "--limit", "1000").stdout
    shown = json.loads(run("jobs", "show", job_id, "--json").stdout)
    assert (shown["name"], shown["media_type"], shown["state"]) == ("handbook.md", "text/markdown", "queued")
    assert (
        run("jobs", "cancel", job_id).stdout.splitlines()[-1]
        == f"{job_id}: cancellation asked for, now cancelled"
    )
    refused = run("jobs", "cancel", job_id)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cancelled" in refused.stderr


def test_dead_letters_are_looked_after(run: Run, api: Api) -> None:
    """list, show, requeue and purge do what they say, and refuse with status 1 what is not dead."""
    job_id = api.submit("a text for the operator", priority="high").json()["job_id"]
    assert run("dlq", "show", job_id).returncode == 1
    api.settle(api.claim(), OutcomeKind.DEAD, error=JobError(ErrorCode.DOCUMENT_UNREADABLE, "broken file"))
    assert job_id in run("dlq", "list").stdout
    shown = run("dlq", "show", job_id).stdout
    assert "DOCUMENT_UNREADABLE" in shown
    assert "broken file" in shown
    assert run("dlq", "requeue", job_id).returncode == 0
    assert run("dlq", "requeue", job_id).returncode == 1
    api.settle(api.claim(), OutcomeKind.DEAD, error=JobError(ErrorCode.DOCUMENT_UNREADABLE, "broken file"))
    assert run("dlq", "purge", job_id).returncode == 0
    assert run("jobs", "show", job_id).returncode == 1


def test_folder_is_submitted_whole_and_only_once(run: Run, tmp_path: Path) -> None:
    """Files and folders in one command: every document of a known kind, each once, whatever is given twice."""
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.md", "deep/c.html", "picture.png"):
        (tmp_path / "docs" / name).write_text(f"the words of {name}", "utf-8")
    (tmp_path / "one.rst").write_text("one more", "utf-8")
    arguments = ("jobs", "submit", str(tmp_path / "one.rst"), str(tmp_path / "docs"))
    jobs = json.loads(run(*arguments, "--json").stdout)
    assert [job["name"] for job in jobs] == ["one.rst", "a.txt", "b.md", "c.html"]
    assert len({job["job_id"] for job in jobs}) == 4
    assert run(*arguments).stdout.splitlines()[-1] == "0 queued, 4 known already"
    refused = run(*arguments, "--key", "k")
    assert (refused.returncode, refused.stdout) == (4, "")
    too_large = run(*arguments, RAG_MAX_UPLOAD_BYTES="5")
    assert (too_large.returncode, "RAG_MAX_UPLOAD_BYTES" in too_large.stderr) == (4, True)


def test_queue_is_paused_drained_and_resumed(run: Run, api: Api) -> None:
    """A paused queue gives nothing out and says so; drain waits, tells how far it is, and gives up in time."""
    api.submit("a text to drain", priority="high")
    assert run("queue", "pause").returncode == 0
    assert json.loads(run("queue", "stats", "--json").stdout)["paused"] is True
    assert run("queue", "stats").stdout.splitlines()[-1].endswith(", paused")
    stuck = run("queue", "drain")
    assert (stuck.returncode, "queue resume" in stuck.stderr) == (1, True)
    assert run("queue", "resume").returncode == 0
    late = run("queue", "drain", "--seconds", "1")
    assert (late.returncode, late.stdout) == (1, "")
    assert len(late.stderr.splitlines()) == 2
    while json.loads(run("queue", "stats", "--json").stdout)["unfinished"]:
        api.settle(api.claim(), OutcomeKind.DONE)
    assert run("queue", "drain").stdout.splitlines()[-1] == f"queue {api.queue_name}: nothing is unfinished"


def test_commit_is_rolled_back_within_its_window(run: Run, api: Api, tmp_path: Path) -> None:
    """What a job committed is undone, once or more; too late or without an effect it is refused with status 1."""
    database = {"DATABASE_URL": f"sqlite:///{tmp_path / 'rag.db'}", "RAG_ROLLBACK_SECONDS": "60"}
    store = Store(database["DATABASE_URL"])
    store.create_schema()
    job_id = api.submit("a text that was wrong").json()["job_id"]
    assert run("jobs", "rollback", job_id, **database).returncode == 1
    job = api.claim()
    store.raise_fences([(job_id, job.fence)])
    row = DocumentRow(
        job_id, job.name, job.media_type, job.sha256, job.bytes, 1, 0, 0, job.user_id, job.fence, "w1"
    )
    assert store.commit(row, [], []) is CommitResult.COMMITTED
    api.settle(job, OutcomeKind.DONE)
    late = run("jobs", "rollback", job_id, **(database | {"RAG_ROLLBACK_SECONDS": "0"}))
    assert (late.returncode, "RAG_ROLLBACK_SECONDS" in late.stderr) == (1, True)
    for _ in range(2):
        assert run("jobs", "rollback", job_id, **database).returncode == 0
    assert store.committed(job_id) is None
    assert json.loads(run("jobs", "show", job_id, "--json").stdout)["state"] == "cancelled"
    store.close()
    away = run("jobs", "rollback", job_id, DATABASE_URL="postgresql+psycopg://127.0.0.1:9/none")
    assert (away.returncode, "DATABASE_URL" in away.stderr) == (3, True)


def test_retry_table_is_the_one_of_the_specification(run: Run) -> None:
    """The four delays are 1, 5, 25, 125 s, and 19 codes have a policy (spec C1, C2, C4)."""
    table = json.loads(run("retry-table", "--json").stdout)
    assert table["delays_seconds"] == [1, 5, 25, 125]
    assert len(table["policies"]) == 19
    assert run("retry-table").stdout.splitlines()[-1] == "4 retries, then the dead-letter queue; 19 codes"


def test_queue_stats_end_with_a_summary(run: Run, api: Api) -> None:
    """The last line of the figures is the summary."""
    last = run("queue", "stats").stdout.splitlines()[-1]
    assert last.startswith(f"queue {api.queue_name}: ")
    assert "waiting" in last


@pytest.mark.parametrize("module", ["ragworker.cli", "ragworker.worker", "ragworker.operator_verbs"])
def test_only_the_api_loads_the_web_framework(module: str) -> None:
    """The command line and the worker start without FastAPI, Starlette and uvicorn."""
    program = (
        f"import sys, {module}; print([m for m in ('fastapi', 'starlette', 'uvicorn') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_reader_that_stops_early_is_no_error() -> None:
    """Output cut off by `head` ends the command with status 0 and no traceback."""
    command = [sys.executable, "-m", "ragworker", "retry-table"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 0
