"""Write every log line as one JSON object, with the ids of the request or job that caused it.

Ids travel by one context variable: `bind_context(job_id=...)` sets them for a block (and for the tasks
started in it), the logger adapter reads them. Libraries' own log lines, Python warnings and crashes
go the same way, so that stderr never carries a bare traceback. What to log is left to the callers.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from traceback import format_exception
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from ragworker.settings import Settings

#: The ids that every line carries, present null or not (spec G5): a log store can index them.
CONTEXT_FIELDS: Final = ("request_id", "trace_id", "correlation_id", "user_id", "job_id")

#: A traceback is kept whole up to this length; longer ones lose their middle, because one line must stay one
#: line that a log shipper accepts.
MAX_TRACEBACK_CHARS: Final = 16_000

#: The same of one field's text: log lines are facts about a document, never the document.
MAX_FIELD_CHARS: Final = 2_000

#: Fields whose very name says that the value is nobody's business.
_SECRET_NAMES: Final = re.compile(r"authorization|password|passwd|secret|api_?key|(?:^|_)jwt$|bearer", re.I)

#: Secrets known by shape, wherever they are: bearer credentials, JWTs, OpenAI-style keys, passwords in URLs. A
#: line is searched only when it has the first word in it, in any case: nearly none has.
_SECRET_SHAPES: Final = (
    ("bearer", re.compile(r"(?i)\bbearer\s+[a-z0-9._~+/=-]{8,}"), "Bearer [redacted]"),
    ("eyj", re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"), "[redacted]"),
    ("sk-", re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "[redacted]"),
    ("://", re.compile(r"(?<=://)([^:/?#@\s\"]*):[^@/\s\"]+@"), r"\1:[redacted]@"),
)

#: A line per outgoing request at INFO would repeat our own events, and DEBUG would carry document text.
_NOISY: Final = ("httpx", "httpcore", "asyncio", "uvicorn", "sse_starlette", "urllib3")

#: ASCII only: a Unicode line separator inside a name would cut the line in two for many readers.
_JSON: Final = json.JSONEncoder(default=str)

_context: ContextVar[Mapping[str, str] | LateIds] = ContextVar("ragworker_log_context", default={})  # noqa: B039  read only


def current_context() -> Mapping[str, str]:
    """The ids bound in this task or thread."""
    bound = _context.get()
    return bound.all() if isinstance(bound, LateIds) else bound


@contextmanager
def bind_context(**ids: str | None) -> Iterator[None]:
    """Add ids to every line logged inside the block; None or empty leaves the outer id in place."""
    token = _context.set({**current_context(), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _context.reset(token)


class LateIds:
    """Binds ids for a block like `bind_context`, but asks for them when a line is written: most jobs write none."""

    __slots__ = ("_ids", "_outer", "_token")

    def __init__(self, ids: Callable[[], Mapping[str, str]]) -> None:
        self._ids = ids

    def __enter__(self) -> None:
        self._outer = _context.get()
        self._token = _context.set(self)

    def __exit__(self, *_: object) -> None:
        _context.reset(self._token)

    def all(self) -> Mapping[str, str]:
        """These ids and those of the block around."""
        outer = self._outer.all() if isinstance(self._outer, LateIds) else self._outer
        return {**outer, **self._ids()}


class ContextAdapter(logging.LoggerAdapter[logging.Logger]):
    """Adds the bound ids to each record: `logger.info("job.claimed", extra={"fields": {"attempt": 0}})`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Attach the context of the caller, keeping the caller's own `extra`."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "context": current_context()}
        return msg, kwargs


def get_logger(name: str) -> ContextAdapter:
    """The logger of one module; events are past-tense facts, figures go into `extra={"fields": {...}}`."""
    return ContextAdapter(logging.getLogger(name), {})


def configure_logging(
    settings: Settings, *, service: str, secrets: Sequence[str] = (), stream: TextIO | None = None
) -> None:
    """Send everything this process says on stderr through one handler; call once, first thing in `main`.

    `service` is `ragworker-api` or `ragworker-worker`. `secrets` are values (keys, signing secrets) that must
    never appear in a line; they are replaced wherever they occur.
    """
    render, redact = _text if settings.log_format == "text" else _JSON.encode, _redactor(secrets)
    root = logging.getLogger()
    root.handlers[:] = [
        OneLineHandler(stream or sys.stderr, lambda record: redact(render(describe(record, service=service))))
    ]
    root.setLevel(settings.log_level.upper())
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # No line shows them, and finding them out costs more than writing the line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    _log_uncaught_exceptions()


class OneLineHandler(logging.StreamHandler[TextIO]):
    """Writes lines; a record that cannot be formatted becomes a line that says so, not a plain traceback."""

    def __init__(self, stream: TextIO, line_of: Callable[[logging.LogRecord], str]) -> None:
        super().__init__(stream)
        self._line_of = line_of

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record; a formatter would do no more."""
        return self._line_of(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the standard library's name
        """Replace a faulty record by its format string; a closed stream ends the story silently."""
        lost = {"fields": {"lost": str(record.msg), "reason": repr(sys.exc_info()[1])}}
        line = logging.makeLogRecord(
            {"name": record.name, "levelname": "ERROR", "msg": "log.line_lost", **lost}
        )
        with suppress(OSError, ValueError):
            self.stream.write(self.format(line) + self.terminator)
            self.flush()


def _text(line: dict[str, Any]) -> str:
    """`time LEVEL event key=value ...` for a person at a terminal, with a traceback below it when there is one."""
    head = f"{line.pop('timestamp')} {line.pop('level'):<8} {line.pop('message')}"
    traceback = line.pop("traceback", None)
    pairs = " ".join(f"{name}={value}" for name, value in line.items() if value is not None)
    return "\n".join(part for part in (f"{head} {pairs}", traceback) if part)


def describe(record: logging.LogRecord, *, service: str) -> dict[str, Any]:
    """The facts of one record, the fields of spec G5 first. `message` is the event's name."""
    context: Mapping[str, str] = getattr(record, "context", None) or current_context()
    fields: dict[str, Any] = dict(getattr(record, "fields", None) or ())
    line: dict[str, Any] = {
        "timestamp": utc_timestamp(record.created),
        "level": record.levelname,
        "message": _shortened(record.getMessage()),
        "service": service,
    }
    for name in CONTEXT_FIELDS:
        line[name] = fields.pop(name, None) or context.get(name)
    line["duration_ms"] = fields.pop("duration_ms", None)
    line["logger"] = record.name
    for name, value in {**context, **fields}.items():
        if name not in line:
            line[name] = "[redacted]" if _is_secret(name) else _shortened(value)
    if record.exc_info and record.exc_info[1] is not None:
        line.setdefault("error", type(record.exc_info[1]).__name__)
        line["traceback"] = _shortened(
            "".join(format_exception(record.exc_info[1])).rstrip(), MAX_TRACEBACK_CHARS
        )
    return line


def utc_timestamp(epoch_seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds and `Z` (spec G5)."""
    return datetime.fromtimestamp(epoch_seconds, tz=UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


@lru_cache(1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAMES.search(name) is not None


def _shortened(value: Any, limit: int = MAX_FIELD_CHARS) -> Any:
    if not isinstance(value, str) or len(value) <= limit:
        return value
    return f"{value[: limit // 2]}\n... {len(value) - limit} of {len(value)} characters cut ...\n{value[-limit // 2 :]}"


def _redactor(secrets: Sequence[str]) -> Callable[[str], str]:
    # Longest first, so that a secret that contains another leaves no tail; very short values would blank half
    # the log. Each is also looked for as JSON spells it, because the line is redacted after it was encoded.
    spelled = {form for value in secrets if len(value) >= 6 for form in (value, json.dumps(value)[1:-1])}
    known = sorted(spelled, key=len, reverse=True)

    def redact(text: str) -> str:
        for value in known:
            text = text.replace(value, "[redacted]")
        lower = text.lower()
        for word, shape, instead in _SECRET_SHAPES:
            if word in lower:
                text = shape.sub(instead, text)
        return text

    return redact


def _log_uncaught_exceptions() -> None:
    """Route the three hooks by which Python prints a traceback past logging through our handler."""
    logger = get_logger("ragworker.process")

    def crashed(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            logger.info("process.interrupted")
        else:
            logger.critical("process.crashed", exc_info=error)

    def thread_crashed(failure: threading.ExceptHookArgs) -> None:
        name = failure.thread.name if failure.thread else None
        logger.error("thread.crashed", exc_info=failure.exc_value, extra={"fields": {"thread": name}})

    def unraisable(failure: sys.UnraisableHookArgs) -> None:
        what = {"what": failure.err_msg or "exception ignored", "object": repr(failure.object)}
        logger.error("exception.ignored", exc_info=failure.exc_value, extra={"fields": what})

    sys.excepthook, threading.excepthook, sys.unraisablehook = crashed, thread_crashed, unraisable
