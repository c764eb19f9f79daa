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
from traceback import format_exception
from types import TracebackType
from typing import Any, Final, Protocol, TextIO

#: The ids that every line carries, present null or not (spec G5): a log store can index them.
CONTEXT_FIELDS: Final = ("request_id", "trace_id", "correlation_id", "user_id", "job_id")

#: A traceback is kept whole up to this length; longer ones lose their middle, because one line must stay one
#: line that a log shipper accepts.
MAX_TRACEBACK_CHARS: Final = 16_000

#: One field's text beyond this is cut: log lines are facts about a document, never the document.
MAX_FIELD_CHARS: Final = 2_000

#: Fields whose very name says that the value is nobody's business.
_SECRET_NAMES: Final = re.compile(r"authorization|password|passwd|secret|api_?key|(?:^|_)jwt$|bearer", re.I)

#: Secrets known by shape, wherever they are: bearer credentials, JWTs, OpenAI-style keys, passwords in URLs.
_SECRET_SHAPES: Final = (
    (re.compile(r"(?i)\bbearer\s+[a-z0-9._~+/=-]{8,}"), "Bearer [redacted]"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"), "[redacted]"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "[redacted]"),
    (re.compile(r"(?<=://)([^:/?#@\s\"]*):[^@/\s\"]+@"), r"\1:[redacted]@"),
)

_context: ContextVar[Mapping[str, str]] = ContextVar("ragworker_log_context", default={})  # noqa: B039  read only


class LogSettings(Protocol):
    """What logging needs to know of the settings."""

    @property
    def log_format(self) -> str:
        """`json` or `text`."""
        ...

    @property
    def log_level(self) -> str:
        """A level name of the standard library, such as `INFO`."""
        ...


def current_context() -> Mapping[str, str]:
    """The ids bound in this task or thread."""
    return _context.get()


@contextmanager
def bind_context(**ids: str | None) -> Iterator[None]:
    """Add ids to every line logged inside the block; None or empty leaves the outer id in place."""
    token = _context.set({**_context.get(), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _context.reset(token)


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
    settings: LogSettings, *, service: str, secrets: Sequence[str] = (), stream: TextIO | None = None
) -> None:
    """Send everything this process says on stderr through one handler; call once, first thing in `main`.

    `service` is `ragworker-api` or `ragworker-worker`. `secrets` are values (keys, signing secrets) that must
    never appear in a line; they are replaced wherever they occur.
    """
    handler = OneLineHandler(stream or sys.stderr)
    redact = _redactor(secrets)
    handler.setFormatter(
        TextFormatter(service=service, redact=redact)
        if settings.log_format == "text"
        else JsonFormatter(service=service, redact=redact)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn.error", "uvicorn.access", "sse_starlette"):
        # A line per outgoing request at INFO repeats our own events, and DEBUG would carry document text.
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    for adopted in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(adopted).handlers.clear()
        logging.getLogger(adopted).propagate = True
    logging.captureWarnings(True)
    _log_uncaught_exceptions()


class OneLineHandler(logging.StreamHandler[TextIO]):
    """Writes lines; a record that cannot be formatted becomes a line that says so, not a plain traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the standard library's name
        """Replace a faulty record by its format string; a closed stream ends the story silently."""
        failure = sys.exc_info()[1]
        substitute = logging.LogRecord(
            record.name, logging.ERROR, record.pathname, record.lineno, "log.line_lost", None, None
        )
        substitute.fields = {"lost": str(record.msg), "reason": repr(failure)}
        with suppress(OSError, ValueError):
            self.stream.write(self.format(substitute) + self.terminator)
            self.flush()


class JsonFormatter(logging.Formatter):
    """One record, one line: the fields of spec G5 first, the event's own fields after them."""

    def __init__(self, *, service: str, redact: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self._service = service
        self._redact = redact or _redactor(())

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON text without line breaks."""
        line = describe(record, service=self._service)
        # ASCII only: a Unicode line separator inside a name would cut the line in two for many readers.
        return self._redact(json.dumps(line, default=str))


class TextFormatter(logging.Formatter):
    """The same facts for a person at a terminal (`LOG_FORMAT=text`)."""

    def __init__(self, *, service: str, redact: Callable[[str], str] | None = None) -> None:
        super().__init__()
        self._service = service
        self._redact = redact or _redactor(())

    def format(self, record: logging.LogRecord) -> str:
        """`time LEVEL event key=value ...`, with a traceback below it when there is one."""
        line = describe(record, service=self._service)
        head = f"{line.pop('timestamp')} {line.pop('level'):<8} {line.pop('message')}"
        traceback = line.pop("traceback", None)
        pairs = " ".join(f"{name}={value}" for name, value in line.items() if value is not None)
        return self._redact("\n".join(part for part in (f"{head} {pairs}", traceback) if part))


def describe(record: logging.LogRecord, *, service: str) -> dict[str, Any]:
    """The facts of one record, in the order in which they are written. `message` is the event's name."""
    context: Mapping[str, str] = getattr(record, "context", None) or current_context()
    fields: dict[str, Any] = dict(getattr(record, "fields", None) or {})
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
    for name, value in {**{k: v for k, v in context.items() if k not in line}, **fields}.items():
        line.setdefault(name, "[redacted]" if _SECRET_NAMES.search(name) else _shortened(value))
    if record.exc_info and record.exc_info[1] is not None:
        line.setdefault("error", type(record.exc_info[1]).__name__)
        line["traceback"] = _traceback_text(record.exc_info[1])
    return line


def utc_timestamp(epoch_seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds and `Z` (spec G5)."""
    moment = datetime.fromtimestamp(epoch_seconds, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _traceback_text(error: BaseException) -> str:
    text = "".join(format_exception(error)).rstrip()
    if len(text) <= MAX_TRACEBACK_CHARS:
        return text
    half = MAX_TRACEBACK_CHARS // 2
    return f"{text[:half]}\n... cut {len(text) - 2 * half} characters ...\n{text[-half:]}"


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_FIELD_CHARS:
        return f"{value[:MAX_FIELD_CHARS]}... (cut, {len(value)} characters)"
    return value


def _redactor(secrets: Sequence[str]) -> Callable[[str], str]:
    # Longest first, so that a secret that contains another leaves no tail; very short values would blank half
    # the log. Each is also looked for as JSON spells it, because the line is redacted after it was encoded.
    spelled = {form for value in secrets if len(value) >= 6 for form in (value, json.dumps(value)[1:-1])}
    known = sorted(spelled, key=len, reverse=True)

    def redact(text: str) -> str:
        for value in known:
            text = text.replace(value, "[redacted]")
        for shape, instead in _SECRET_SHAPES:
            text = shape.sub(instead, text)
        return text

    return redact


def _log_uncaught_exceptions() -> None:
    """Route the three hooks by which Python prints a traceback past logging through our handler."""
    logger = get_logger("ragworker.process")

    def crashed(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            logger.info("process.interrupted")
        else:
            logger.critical("process.crashed", exc_info=(kind, error, traceback))

    def thread_crashed(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None:
            name = failure.thread.name if failure.thread else None
            logger.error("thread.crashed", exc_info=failure.exc_value, extra={"fields": {"thread": name}})

    def unraisable(failure: sys.UnraisableHookArgs) -> None:
        what = {"what": failure.err_msg or "exception ignored", "object": repr(failure.object)}
        logger.error("exception.ignored", exc_info=failure.exc_value, extra={"fields": what})

    sys.excepthook = crashed
    threading.excepthook = thread_crashed
    sys.unraisablehook = unraisable
