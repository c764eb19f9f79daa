"""Read request bodies: bounded in bytes, in time and in number at once; one document from a submission's body.

A body is counted while it streams in, so an upload that is too large is refused at the first byte too many,
whatever its Content-Length says. Documents stay in memory (they go on to Redis from there); nothing is
spooled to disk, where it would have to be wiped (spec D4). What the bytes mean is left to
`ragworker.extract`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from ragworker.api.problems import Problem, invalid_request
from ragworker.api.submissions import media_type_of
from ragworker.extract import SUPPORTED_MEDIA_TYPES
from ragworker.job import Priority

#: The one route that takes documents; every other body is a JSON object with one or two short fields.
UPLOAD_PATH: Final = "/rag/jobs"
MAX_SMALL_BODY_BYTES: Final = 4 * 1024

#: What a multipart body may add to its file: boundaries, part headers and the small fields.
FRAMING_BYTES: Final = 64 * 1024

#: A small form field such as `priority`.
MAX_FIELD_BYTES: Final = 4 * 1024

#: A body of the largest size takes 60 s on a line of 3.5 Mbit/s; slower senders hold memory for too long.
BODY_SECONDS: Final = 60.0

#: Uploads read at the same time; with the default size limit at most 1.6 GB could be held, in practice far
#: less.
MAX_UPLOADS_AT_ONCE: Final = 64

MAX_NAME_CHARS: Final = 255

#: What clients send when they do not know the type.
_NO_TYPE: Final = ("", "application/octet-stream")


def _bare_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _clean_name(name: str) -> str:
    """Printable and short. A name is a label, shown and stored; no file is ever opened by it."""
    return "".join(sign for sign in name if sign.isprintable())[:MAX_NAME_CHARS].strip() or "document"


class Upload(BaseModel):
    """A submission in its JSON form; unknown keys are refused, because they are misspelt ones."""

    model_config = ConfigDict(extra="forbid", strict=True)

    content: Annotated[bytes, Field(alias="text")]
    name: Annotated[str, AfterValidator(_clean_name)] = "document.txt"
    media_type: Annotated[str, AfterValidator(_bare_type)] = "text/plain"
    priority: Annotated[Priority, Field(strict=False)] = Priority.NORMAL


def bounded_body(scope: Scope, receive: Receive, *, max_upload_bytes: int) -> Receive:
    """`receive`, made to end a body that is too large or too slow. Problem: 408, 413."""
    upload = scope["path"] == UPLOAD_PATH
    most = max_upload_bytes + FRAMING_BYTES if upload else MAX_SMALL_BODY_BYTES
    declared = Headers(scope=scope).get("content-length", "")
    refusal = too_large(max_upload_bytes if upload else MAX_SMALL_BODY_BYTES)
    if scope["method"] != "POST":
        return receive
    if declared.isdecimal() and int(declared) > most:
        raise refusal
    deadline, received, complete = asyncio.get_running_loop().time() + BODY_SECONDS, 0, False

    async def bounded() -> Message:
        nonlocal received, complete
        try:
            async with asyncio.timeout_at(None if complete else deadline):
                message = await receive()
        except TimeoutError:
            detail = f"expected the whole body within {BODY_SECONDS:g} s, it did not arrive"
            raise Problem("upload-too-slow", detail) from None
        complete = not message.get("more_body")
        received += len(message.get("body", b""))
        if received > most:
            raise refusal
        return message

    return bounded


def too_large(most: int) -> Problem:
    """413 for a body or document of more than `most` bytes."""
    advice = "split the document, or raise RAG_MAX_UPLOAD_BYTES"
    return Problem("payload-too-large", f"expected at most {most} bytes, came more; {advice}")


class UploadReader:
    """Reads submissions for one app; holds the bound on how many are read at once."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(MAX_UPLOADS_AT_ONCE)

    async def read(self, request: Request) -> Upload:
        """The document of a submission. Raises Problem: 408, 413, 415 or 422."""
        kind = _bare_type(request.headers.get("content-type", ""))
        read = {"application/json": _json, "multipart/form-data": self._form}.get(kind)
        if read is None:
            wish = "expected multipart/form-data (field file) or application/json"
            raise Problem("unsupported-media-type", f"{wish}, came {kind[:100] or 'no type'!r}")
        try:
            # Whoever waits for its turn is bounded like its body: the time runs since the request came.
            async with self._turns:
                upload = await read(request)
        except ValidationError as error:
            raise invalid_request(error.errors(include_input=False, include_url=False)) from None
        except (MultiPartException, MultipartParseError) as error:
            raise Problem("invalid-request", f"expected a multipart body with one file: {error}") from None
        if len(upload.content) > self._max_bytes:
            raise too_large(self._max_bytes)
        if upload.media_type not in SUPPORTED_MEDIA_TYPES:
            wish = f"expected a document of type {', '.join(sorted(SUPPORTED_MEDIA_TYPES))}"
            raise Problem("unsupported-media-type", f"{wish}, came {upload.media_type[:100]!r}")
        return upload

    async def _form(self, request: Request) -> Upload:
        bounds: Any = {"max_files": 1, "max_fields": 8, "max_part_size": MAX_FIELD_BYTES}
        parser = MultiPartParser(request.headers, request.stream(), **bounds)
        parser.spool_max_size = self._max_bytes + FRAMING_BYTES + 1
        fields = dict(await parser.parse())
        file = fields.pop("file", None)
        if not isinstance(file, UploadFile):
            raise Problem("invalid-request", "expected the multipart field file with a name, came none")
        name, given = file.filename or "document", _bare_type(file.content_type or "")
        # The type that the client gave; where it gave none that means anything, the one of the ending.
        media_type = media_type_of(name) if given in _NO_TYPE else given
        about = {"text": await file.read(), "name": name, "media_type": media_type}
        return Upload.model_validate({**fields, **about})


async def _json(request: Request) -> Upload:
    return Upload.model_validate_json(await request.body())
