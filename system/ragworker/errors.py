"""Name every way in which a job can fail, and what each means for the job (spec C4).

19 codes, each with one policy. `classify` maps a real exception to its code; the arithmetic of delays is left
to `retry.py`. An unknown exception is TEMPORARY_FAILURE: retries are bounded, so the worst case of a wrong
guess is four wasted attempts, while giving up at once would lose work to a passing fault.

    JobFailedError               raised by our own code with its code
    WorkerCancellationError      a person ended the job (spec D2); not a failure, has no code
    LeaseLostError               this worker no longer owns the job: drop it, report nothing
"""

from __future__ import annotations

import errno
import sqlite3
from enum import StrEnum
from types import MappingProxyType
from typing import Final

#: One line for a person; more belongs into the log.
MESSAGE_LIMIT: Final = 300


class Policy(StrEnum):
    """What happens after a failure."""

    EXPONENTIAL_BACKOFF = "EXPONENTIAL_BACKOFF"
    DELAYED_RETRY = "DELAYED_RETRY"
    NO_RETRY = "NO_RETRY"


_BACKOFF, _DELAYED, _NEVER = Policy.EXPONENTIAL_BACKOFF, Policy.DELAYED_RETRY, Policy.NO_RETRY


class ErrorCode(StrEnum):
    """The 19 worker error codes, each with its policy."""

    policy: Policy

    def __new__(cls, value: str, policy: Policy) -> ErrorCode:
        """A text with a policy."""
        code = str.__new__(cls, value)
        code._value_, code.policy = value, policy
        return code

    TEMPORARY_FAILURE = "TEMPORARY_FAILURE", _BACKOFF  # given; also every exception that nobody foresaw
    RATE_LIMITED = "RATE_LIMITED", _DELAYED  # given; 429, or too long a line before our own limit
    VALIDATION_ERROR = "VALIDATION_ERROR", _NEVER  # given; no words, bad encoding declared
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE", _NEVER
    DOCUMENT_UNREADABLE = "DOCUMENT_UNREADABLE", _NEVER  # broken or encrypted: the same bytes fail again
    DOCUMENT_TOO_LARGE = "DOCUMENT_TOO_LARGE", _NEVER  # beyond a bound on pages, characters or time
    PAYLOAD_MISSING = "PAYLOAD_MISSING", _NEVER  # the bytes are gone, or are not those that were submitted
    EMBEDDING_TIMEOUT = "EMBEDDING_TIMEOUT", _BACKOFF
    EMBEDDING_UNREACHABLE = "EMBEDDING_UNREACHABLE", _BACKOFF
    EMBEDDING_SERVER_ERROR = "EMBEDDING_SERVER_ERROR", _BACKOFF  # 5xx
    EMBEDDING_OVERLOADED = "EMBEDDING_OVERLOADED", _DELAYED  # 503 that says when to come back
    EMBEDDING_BAD_RESPONSE = "EMBEDDING_BAD_RESPONSE", _BACKOFF  # 200 with garbage
    EMBEDDING_AUTH_FAILED = "EMBEDDING_AUTH_FAILED", _NEVER  # a person has to change the key, then requeue
    EMBEDDING_REJECTED = "EMBEDDING_REJECTED", _NEVER  # another 4xx: the request itself is wrong
    QUEUE_UNAVAILABLE = "QUEUE_UNAVAILABLE", _BACKOFF  # Redis is away, loading, full, busy or read-only
    STORE_UNAVAILABLE = (
        "STORE_UNAVAILABLE",
        _BACKOFF,
    )  # the database is away, locked, lost a race, has no schema
    STORE_REJECTED = "STORE_REJECTED", _NEVER  # the database refuses this very row
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED", _BACKOFF  # memory, disk, file handles, threads
    WORKER_CRASHED = "WORKER_CRASHED", _NEVER  # it outlived RAG_MAX_DELIVERIES workers: it kills them


POLICIES: Final = MappingProxyType({code: code.policy for code in ErrorCode})


class JobFailedError(Exception):
    """An attempt failed for a known reason. `retry_after_seconds` is the other side's own wish, if any."""

    def __init__(self, code: ErrorCode, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message[:MESSAGE_LIMIT]
        self.retry_after_seconds = retry_after_seconds


class WorkerCancellationError(Exception):
    """Raised inside a job that somebody cancelled (spec D2); the message is the reason given."""


class LeaseLostError(Exception):
    """This delivery is no longer ours: another worker holds the job, or will. Drop it without a trace."""


def classify(error: BaseException) -> JobFailedError:
    """The failure that stands for `error`; itself when it is one already.

    Messages of foreign exceptions are not kept: they may quote document text or a connection string. The
    class name is.
    """
    if isinstance(error, JobFailedError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return classify(error.exceptions[0])
    name = f"{type(error).__module__.partition('.')[0]}.{type(error).__qualname__}"
    code = _code_of(error)
    return JobFailedError(code, f"{_MEANINGS.get(code, 'unexpected')}: {name}; see the worker's log")


_MEANINGS: Final = {
    ErrorCode.QUEUE_UNAVAILABLE: "Redis did not answer",
    ErrorCode.STORE_UNAVAILABLE: "the database did not answer",
    ErrorCode.STORE_REJECTED: "the database refused the rows",
    ErrorCode.RESOURCE_EXHAUSTED: "memory, disk, threads or file handles ran out",
    ErrorCode.TEMPORARY_FAILURE: "unexpected failure",
}

#: Out of space, quota, handles, memory; a file beyond a limit of the process.
_EXHAUSTED: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG}
)

#: What the database says when its own machine has run out: https://www.sqlite.org/rescode.html#full and nomem,
#: https://www.postgresql.org/docs/current/errcodes-appendix.html disk_full and out_of_memory.
_STORE_EXHAUSTED: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, "53100", "53200"})

#: Exceptions by the package and class that raise them, so that this module imports no client. The first
#: class of the exception's ancestry that is listed decides.
_BY_CLASS: Final = MappingProxyType(
    {
        "redis.RedisError": ErrorCode.QUEUE_UNAVAILABLE,
        "sqlalchemy.IntegrityError": ErrorCode.STORE_REJECTED,
        "sqlalchemy.DataError": ErrorCode.STORE_REJECTED,
        "sqlalchemy.SQLAlchemyError": ErrorCode.STORE_UNAVAILABLE,
        # Bare, where SQLAlchemy does not wrap: in what prepares a new connection.
        "sqlite3.Error": ErrorCode.STORE_UNAVAILABLE,
        "psycopg.Error": ErrorCode.STORE_UNAVAILABLE,
        "httpx.TimeoutException": ErrorCode.EMBEDDING_TIMEOUT,
        "httpx.TransportError": ErrorCode.EMBEDDING_UNREACHABLE,
    }
)


def _code_of(error: BaseException) -> ErrorCode:
    if _is_exhausted(getattr(error, "orig", None) or error):
        return ErrorCode.RESOURCE_EXHAUSTED
    names = (f"{one.__module__.partition('.')[0]}.{one.__name__}" for one in type(error).__mro__)
    return next((_BY_CLASS[name] for name in names if name in _BY_CLASS), ErrorCode.TEMPORARY_FAILURE)


def _is_exhausted(error: BaseException) -> bool:
    match error:
        case MemoryError():
            return True
        case OSError():
            return error.errno in _EXHAUSTED
        case RuntimeError():  # as _thread.start_new_thread words it
            return error.args == ("can't start new thread",)
    return bool({getattr(error, name, None) for name in ("sqlstate", "sqlite_errorcode")} & _STORE_EXHAUSTED)
