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


class ErrorCode(StrEnum):
    """The 19 worker error codes."""

    TEMPORARY_FAILURE = "TEMPORARY_FAILURE"
    RATE_LIMITED = "RATE_LIMITED"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    DOCUMENT_UNREADABLE = "DOCUMENT_UNREADABLE"
    DOCUMENT_TOO_LARGE = "DOCUMENT_TOO_LARGE"
    PAYLOAD_MISSING = "PAYLOAD_MISSING"
    EMBEDDING_TIMEOUT = "EMBEDDING_TIMEOUT"
    EMBEDDING_UNREACHABLE = "EMBEDDING_UNREACHABLE"
    EMBEDDING_SERVER_ERROR = "EMBEDDING_SERVER_ERROR"
    EMBEDDING_OVERLOADED = "EMBEDDING_OVERLOADED"
    EMBEDDING_BAD_RESPONSE = "EMBEDDING_BAD_RESPONSE"
    EMBEDDING_AUTH_FAILED = "EMBEDDING_AUTH_FAILED"
    EMBEDDING_REJECTED = "EMBEDDING_REJECTED"
    QUEUE_UNAVAILABLE = "QUEUE_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_REJECTED = "STORE_REJECTED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    WORKER_CRASHED = "WORKER_CRASHED"


_BACKOFF, _DELAYED, _NEVER = Policy.EXPONENTIAL_BACKOFF, Policy.DELAYED_RETRY, Policy.NO_RETRY

POLICIES: Final = MappingProxyType(
    {
        ErrorCode.TEMPORARY_FAILURE: _BACKOFF,  # given; also every exception that nobody foresaw
        ErrorCode.RATE_LIMITED: _DELAYED,  # given; 429
        ErrorCode.VALIDATION_ERROR: _NEVER,  # given; no words, bad encoding declared
        ErrorCode.UNSUPPORTED_MEDIA_TYPE: _NEVER,
        ErrorCode.DOCUMENT_UNREADABLE: _NEVER,  # broken or encrypted file: the same bytes fail again
        ErrorCode.DOCUMENT_TOO_LARGE: _NEVER,  # beyond a bound on pages, characters or time
        ErrorCode.PAYLOAD_MISSING: _NEVER,  # the bytes are gone or are not those that were submitted
        ErrorCode.EMBEDDING_TIMEOUT: _BACKOFF,
        ErrorCode.EMBEDDING_UNREACHABLE: _BACKOFF,
        ErrorCode.EMBEDDING_SERVER_ERROR: _BACKOFF,  # 5xx
        ErrorCode.EMBEDDING_OVERLOADED: _DELAYED,  # 503 that says when to come back
        ErrorCode.EMBEDDING_BAD_RESPONSE: _BACKOFF,  # 200 with garbage
        ErrorCode.EMBEDDING_AUTH_FAILED: _NEVER,  # a person has to change the key, then requeue
        ErrorCode.EMBEDDING_REJECTED: _NEVER,  # another 4xx: the request itself is wrong
        ErrorCode.QUEUE_UNAVAILABLE: _BACKOFF,
        ErrorCode.STORE_UNAVAILABLE: _BACKOFF,
        ErrorCode.STORE_REJECTED: _NEVER,  # the database refuses this very row
        ErrorCode.RESOURCE_EXHAUSTED: _BACKOFF,  # memory, disk, file handles
        ErrorCode.WORKER_CRASHED: _NEVER,  # it outlived RAG_MAX_DELIVERIES workers: it kills them
    }
)


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
    ErrorCode.RESOURCE_EXHAUSTED: "memory, disk or file handles ran out",
    ErrorCode.TEMPORARY_FAILURE: "unexpected failure",
}

#: Out of space, quota, handles, memory.
_EXHAUSTED: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})

#: Exceptions by the package and class that raise them, so that this module imports no client. The first
#: class of the exception's ancestry that is listed decides.
_BY_CLASS: Final = MappingProxyType(
    {
        ("redis", "RedisError"): ErrorCode.QUEUE_UNAVAILABLE,
        ("sqlalchemy", "OperationalError"): ErrorCode.STORE_UNAVAILABLE,
        ("sqlalchemy", "InterfaceError"): ErrorCode.STORE_UNAVAILABLE,
        ("sqlalchemy", "TimeoutError"): ErrorCode.STORE_UNAVAILABLE,
        ("sqlalchemy", "InternalError"): ErrorCode.STORE_UNAVAILABLE,
        ("sqlalchemy", "IntegrityError"): ErrorCode.STORE_REJECTED,
        ("sqlalchemy", "DataError"): ErrorCode.STORE_REJECTED,
        ("sqlalchemy", "ProgrammingError"): ErrorCode.STORE_REJECTED,
        ("sqlalchemy", "DBAPIError"): ErrorCode.STORE_UNAVAILABLE,
        ("httpx", "TimeoutException"): ErrorCode.EMBEDDING_TIMEOUT,
        ("httpx", "TransportError"): ErrorCode.EMBEDDING_UNREACHABLE,
    }
)


def _code_of(error: BaseException) -> ErrorCode:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _EXHAUSTED):
        return ErrorCode.RESOURCE_EXHAUSTED
    for ancestor in type(error).__mro__:
        code = _BY_CLASS.get((ancestor.__module__.partition(".")[0], ancestor.__name__))
        if code is not None:
            return code
    return ErrorCode.TEMPORARY_FAILURE
