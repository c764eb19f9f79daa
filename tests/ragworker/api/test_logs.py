"""Every line is one JSON object with the ids of its cause, and carries no secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import timeit
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ragworker.logs import ContextAdapter, bind_context, configure_logging, get_logger

REQUIRED = {
    "timestamp",
    "level",
    "message",
    "service",
    "request_id",
    "trace_id",
    "correlation_id",
    "user_id",
    "job_id",
    "duration_ms",
}


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The stream that logging writes to; what pytest and Python had set up comes back afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, sys.unraisablehook)
    stream = io.StringIO()
    settings = SimpleNamespace(log_format="json", log_level="INFO")
    configure_logging(settings, service="ragworker-api", secrets=["hunter2-hunter2"], stream=stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:], root.level, sys.excepthook, sys.unraisablehook = before


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_has_all_fields_of_the_specification(written: io.StringIO) -> None:
    """A line carries the ten fields of spec G5 and the event's own; ids are the context's, time is UTC."""
    with bind_context(request_id="req-1", job_id="job-1"), bind_context(user_id="alice", job_id=None):
        get_logger("t").info("job.finished", extra={"fields": {"duration_ms": 12, "outcome": "done"}})
    (line,) = lines_of(written)
    assert set(line) >= REQUIRED
    assert (line["message"], line["service"], line["level"]) == ("job.finished", "ragworker-api", "INFO")
    assert (line["request_id"], line["user_id"], line["job_id"]) == ("req-1", "alice", "job-1")
    assert (line["duration_ms"], line["outcome"], line["trace_id"]) == (12, "done", None)
    assert line["timestamp"][10] == "T"
    assert line["timestamp"][19] == "."
    assert len(line["timestamp"]) == len("2026-01-01T00:00:00.000Z")
    assert line["timestamp"].endswith("Z")


def test_context_does_not_leak_between_tasks(written: io.StringIO) -> None:
    """Two tasks at the same time each log their own job id, and nothing is left over afterwards."""

    async def work(name: str, turn: asyncio.Event, other: asyncio.Event) -> None:
        with bind_context(job_id=name):
            other.set()
            await asyncio.wait_for(turn.wait(), 2)
            get_logger("t").info("seen", extra={"fields": {"expected": name}})

    async def both() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work("a", first, second), work("b", second, first))
        get_logger("t").info("after", extra={"fields": {"expected": None}})

    asyncio.run(both())
    found = lines_of(written)
    assert len(found) == 3
    assert all(line["job_id"] == line["expected"] for line in found)


def test_library_lines_are_json_too(written: io.StringIO) -> None:
    """What does not come from our loggers, and text with strange characters, is still one JSON line each."""
    with bind_context(request_id="req-1"):
        logging.getLogger("some.library").error("failed %s", "badly")
        # Straight to the handler: pytest would keep the text for its report, which xdist cannot send.
        (handler,) = (one for one in logging.getLogger().handlers if getattr(one, "stream", None) is written)
        strange = "name with \u2028 separator \ud800 and surrogate"
        handler.handle(logging.LogRecord("t", logging.INFO, __file__, 1, strange, None, None))
        try:
            raise ValueError("two\nlines")
        except ValueError:
            get_logger("t").exception("job.failed")
    found = lines_of(written)
    assert [line["message"].split(" ")[0] for line in found] == [
        "failed",
        "name",
        "job.failed",
    ]
    assert found[-1]["error"] == "ValueError"
    assert "two\nlines" in found[-1]["traceback"]
    assert all(line["request_id"] == "req-1" for line in found)


@pytest.mark.parametrize(
    "fields",
    [
        {"note": "key is hunter2-hunter2 indeed"},
        {"api_key": "hunter3"},
        {"header": "Bearer abcdefghijklmnop.hunter3"},
        {"url": "redis://:hunter3@127.0.0.1/0"},
        {"token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIzIn0.hunter3"},
        {"key": "sk-hunter3hunter3"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_secret_is_redacted(written: io.StringIO, fields: dict[str, str]) -> None:
    """Known secrets, telling names, bearer tokens, JWTs, keys and passwords in URLs never reach a line."""
    get_logger("t").info("event", extra={"fields": {**fields, "harmless": "stays"}})
    assert "hunter" not in written.getvalue()
    assert lines_of(written)[0]["harmless"] == "stays"


def test_uncaught_exception_of_a_process_is_one_json_line() -> None:
    """A warning, a bad format string and exceptions in two threads leave only JSON on stderr."""
    program = (
        "import logging, threading, warnings; from types import SimpleNamespace as N; from ragworker import logs\n"
        "logs.configure_logging(N(log_format='json', log_level='INFO'), service='ragworker-worker')\n"
        "logging.getLogger('some.library').error('failed %d', 'badly')\n"
        "warnings.warn('old way')\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
        "raise RuntimeError('the end')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert "old way" in found.pop(1)["message"]
    assert [line["message"] for line in found] == ["log.line_lost", "thread.crashed", "process.crashed"]
    assert "the end" in found[2]["traceback"]


def test_text_format_is_for_people(written: io.StringIO) -> None:
    """LOG_FORMAT=text writes time, level, event and key=value pairs."""
    configure_logging(
        SimpleNamespace(log_format="text", log_level="INFO"), service="ragworker-api", stream=written
    )
    with bind_context(job_id="job-1"):
        get_logger("t").info("job.claimed", extra={"fields": {"attempt": 0}})
    assert "INFO     job.claimed service=ragworker-api job_id=job-1 logger=t attempt=0" in written.getvalue()


def test_line_below_the_level_costs_next_to_nothing(
    monkeypatch: pytest.MonkeyPatch, written: io.StringIO
) -> None:
    """A line that nobody wants reads no context and makes no record: the hot path may log as it likes."""

    def must_not_run(*_: object, **__: object) -> None:
        raise AssertionError("expected no work for a line below the level")

    logger = get_logger("t")
    monkeypatch.setattr(ContextAdapter, "process", must_not_run)
    monkeypatch.setattr(logger.logger, "makeRecord", must_not_run)
    logger.debug("job.settled", extra={"fields": {"fence": 1}})
    assert written.getvalue() == ""
    calls = 2_000
    assert min(timeit.repeat(lambda: logger.debug("job.settled"), number=calls, repeat=20)) / calls < 5e-6


@pytest.mark.parametrize("form", ["json", "text"])
def test_long_text_loses_its_middle(written: io.StringIO, form: str) -> None:
    """A field far too long is cut and says so; head and tail stay, the line stays a line."""
    configure_logging(SimpleNamespace(log_format=form, log_level="INFO"), service="s", stream=written)
    get_logger("t").info("event", extra={"fields": {"long": "a" * 5_000 + "end"}})
    assert "3003 of 5003 characters cut" in written.getvalue()
    assert "aend" in written.getvalue()
    assert len(written.getvalue()) < 3_000
