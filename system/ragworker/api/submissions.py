"""What may be submitted, and how the work is named when the client does not name it. Knows no web framework."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from ragworker.extract import MEDIA_TYPES


def media_type_of(name: str) -> str:
    """The media type of a file by its ending; `application/octet-stream` when the ending says nothing."""
    return MEDIA_TYPES.get(PurePosixPath(name.lower()).suffix, "application/octet-stream")


def content_key(user_id: str, name: str, media_type: str, content: bytes) -> str:
    """The name of the work when none is given: the same document of the same user is the same job (spec A4)."""
    digest = hashlib.sha256()
    for part in (user_id.encode(), name.encode(), media_type.encode(), content):
        # The length before each part keeps two different splits of the same bytes apart.
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
