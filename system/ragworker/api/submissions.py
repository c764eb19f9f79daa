"""What may be submitted, and how the work is named when the client does not name it. Knows no web framework."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

#: The types that `ragworker.extract` reads, with the file endings that stand for them when no type is given.
MEDIA_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "text/plain": (".txt", ".text", ".log"),
    "text/markdown": (".md", ".markdown"),
    "text/html": (".html", ".htm"),
    "text/x-rst": (".rst",),
    "application/pdf": (".pdf",),
}


def media_type_of(name: str) -> str:
    """The media type of a file by its ending; `application/octet-stream` when the ending says nothing."""
    ending = PurePosixPath(name.lower()).suffix
    return next(
        (kind for kind, endings in MEDIA_TYPES.items() if ending in endings), "application/octet-stream"
    )


def content_key(user_id: str, name: str, media_type: str, content: bytes) -> str:
    """The name of the work when none is given: the same document of the same user is the same job (spec A4)."""
    digest = hashlib.sha256()
    for part in (user_id.encode(), name.encode(), media_type.encode(), content):
        # The length before each part keeps two different splits of the same bytes apart.
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
