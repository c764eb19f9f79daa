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
    job_id = json.loads(run("jobs", "submit", str(file), "--json").stdout)["job_id"]
    assert json.loads(run("jobs", "submit", str(file), "--json").stdout) == {
        "job_id": job_id,
        "state": "queued",
        "duplicate": True,
    }
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
