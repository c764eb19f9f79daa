"""Read one document from the body of a request: bounded in bytes, in time and in number at once.

A body is counted while it streams in, so an upload that is too large is refused at the first byte too many,
whatever its Content-Length says. Documents stay in memory (they go on to Redis from there); nothing is
spooled to disk, where it would have to be wiped (spec D4). What the bytes mean is left to
`ragworker.extract`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ragworker.api.problems import Problem
from ragworker.api.submissions import media_type_of
from ragworker.extract import SUPPORTED_MEDIA_TYPES

PRIORITIES: Final = ("normal", "high")

#: What clients send when they do not know.
_NO_TYPE: Final = frozenset({"", "application/octet-stream"})

#: What a multipart body may add to its file: boundaries, part headers and the small fields.
FRAMING_BYTES: Final = 64 * 1024

#: A small form field such as `priority`.
MAX_FIELD_BYTES: Final = 4 * 1024

#: A JSON body with one or two short fields.
MAX_SMALL_BODY_BYTES: Final = 4 * 1024

#: A body of the largest size takes 60 s on a line of 3.5 Mbit/s; slower senders hold memory for too long.
UPLOAD_SECONDS: Final = 60.0

#: Uploads read at the same time; with the default size limit at most 1.6 GB could be held, in practice far
#: less.
MAX_UPLOADS_AT_ONCE: Final = 64

#: How long a request waits for its turn to upload before it is told to come back.
UPLOAD_TURN_SECONDS: Final = 5.0

MAX_NAME_CHARS: Final = 255


@dataclass(frozen=True, slots=True)
class Upload:
    """A document as it was submitted."""

    name: str
    media_type: str
    priority: str
    content: bytes


class _JsonDocument(BaseModel):
    """The JSON form of a submission; unknown keys are refused, because they are misspelt ones."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    name: str = "document.txt"
    media_type: str = "text/plain"
    priority: str = "normal"


class UploadReader:
    """Reads submissions for one app; holds the bound on how many are read at once."""

    def __init__(self, *, max_bytes: int, seconds: float = UPLOAD_SECONDS) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._turns = asyncio.Semaphore(MAX_UPLOADS_AT_ONCE)

    async def read(self, request: Request) -> Upload:
        """The document of a submission. Raises Problem: 408, 413, 415, 422 or 503."""
        kind = _bare_type(request.headers.get("content-type", ""))
        if kind not in ("application/json", "multipart/form-data"):
            raise Problem(
                "unsupported-media-type",
                f"expected multipart/form-data (field file) or application/json, came {kind or 'no type'!r}",
            )
        self._refuse_declared_size(request)
        async with self._turn():
            try:
                async with asyncio.timeout(self._seconds):
                    return await (self._json(request) if kind == "application/json" else self._form(request))
            except TimeoutError:
                raise Problem(
                    "upload-too-slow",
                    f"expected the whole body within {self._seconds:g} s, it did not arrive",
                ) from None
            except ClientDisconnect:
                raise Problem(
                    "upload-too-slow", "the connection closed before the body was complete"
                ) from None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(UPLOAD_TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            detail = f"{MAX_UPLOADS_AT_ONCE} uploads are being read; try again in a few seconds"
            raise Problem("too-many-uploads", detail, headers={"Retry-After": "5"}) from None
        try:
            yield
        finally:
            self._turns.release()

    def _refuse_declared_size(self, request: Request) -> None:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes + FRAMING_BYTES:
            raise self._too_large()

    def _too_large(self) -> Problem:
        return Problem(
            "payload-too-large",
            f"expected a document of at most {self._max_bytes} bytes (RAG_MAX_UPLOAD_BYTES), came more; "
            "split it, or raise the limit",
        )

    async def _counted(self, request: Request) -> AsyncGenerator[bytes, None]:
        received = 0
        async for part in request.stream():
            received += len(part)
            if received > self._max_bytes + FRAMING_BYTES:
                raise self._too_large()
            yield part

    async def _json(self, request: Request) -> Upload:
        body = b"".join([part async for part in self._counted(request)])
        try:
            fields = _JsonDocument.model_validate(json.loads(body))
            content = fields.text.encode("utf-8")
        except ValidationError as error:
            raise _invalid_fields(error) from None
        except UnicodeEncodeError:
            raise Problem("invalid-request", "text: expected Unicode text, came a lone surrogate") from None
        except (ValueError, RecursionError):
            raise Problem("invalid-request", "expected a JSON object with the key text") from None
        return self._checked(fields.name, fields.media_type, fields.priority, content)

    async def _form(self, request: Request) -> Upload:
        parser = MultiPartParser(
            request.headers, self._counted(request), max_files=1, max_fields=8, max_part_size=MAX_FIELD_BYTES
        )
        parser.spool_max_size = self._max_bytes + FRAMING_BYTES + 1
        try:
            form = await parser.parse()
        except (MultiPartException, MultipartParseError) as error:
            raise Problem("invalid-request", f"expected a multipart body with one file: {error}") from None
        try:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Problem("invalid-request", "expected the multipart field file with a name, came none")
            unknown = sorted(set(form) - {"file", "priority"})
            if unknown:
                raise Problem(
                    "invalid-request", f"expected the fields file, priority; came also {unknown[0]!r}"
                )
            name = file.filename or "document"
            media_type = _named_type(file.content_type or "", name)
            return self._checked(name, media_type, str(form.get("priority", "normal")), await file.read())
        finally:
            await form.close()

    def _checked(self, name: str, media_type: str, priority: str, content: bytes) -> Upload:
        if len(content) > self._max_bytes:
            raise self._too_large()
        bare = _bare_type(media_type)
        if bare not in SUPPORTED_MEDIA_TYPES:
            raise Problem(
                "unsupported-media-type",
                f"expected a document of type {', '.join(sorted(SUPPORTED_MEDIA_TYPES))}, came {media_type[:100]!r}",
            )
        if priority not in PRIORITIES:
            raise Problem("invalid-request", f"priority: expected normal or high, came {priority[:50]!r}")
        return Upload(name=_clean_name(name), media_type=bare, priority=priority, content=content)


async def read_small_json(request: Request) -> dict[str, object]:
    """A small JSON object, or {} for an empty body. Raises Problem: 413 or 422."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_SMALL_BODY_BYTES:
            raise Problem("payload-too-large", f"expected a body of at most {MAX_SMALL_BODY_BYTES} bytes")
    try:
        value = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Problem("invalid-request", "expected a JSON object as the body, or none")
    return value


def _bare_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _named_type(content_type: str, name: str) -> str:
    """The type that the client gave; where it gave none that means anything, the one of the ending."""
    return content_type if _bare_type(content_type) not in _NO_TYPE else media_type_of(name)


def _clean_name(name: str) -> str:
    """Printable and short. A name is a label, shown and stored; no file is ever opened by it."""
    return "".join(sign for sign in name if sign.isprintable())[:MAX_NAME_CHARS].strip() or "document"


def _invalid_fields(error: ValidationError) -> Problem:
    errors = [
        {"at": ".".join(str(step) for step in found["loc"]) or "body", "message": found["msg"]}
        for found in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    detail = "; ".join(f"{found['at']}: {found['message']}" for found in errors)
    return Problem("invalid-request", detail, errors=errors)
