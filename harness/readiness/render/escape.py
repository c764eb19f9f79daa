"""Make hostile text harmless to look at: control characters and bidirectional overrides become visible codes.

A job's name or an error text is chosen by somebody else. Autoescaping keeps it from being markup; this keeps
it from reordering the line around it, ringing the terminal, or being invalid in XML. Length is bounded too.
"""

from __future__ import annotations

import re
from typing import Final

#: Longest piece of foreign text on a page; the whole of it is in the evidence.
CLIP_CHARACTERS: Final = 1200

# C0 and C1 controls except tab and newline, bidirectional controls and isolates, zero-width characters,
# surrogates,
# non-characters: none of them belongs into a report.
_INVISIBLE: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff"
    "\\ufff9-\\uffff\\ud800-\\udfff\\U000e0000-\\U000e007f]"
)


def visible(text: str) -> str:
    """Return `text` with every invisible or reordering character written as `\\u{…}`."""
    return _INVISIBLE.sub(lambda match: f"\\u{{{ord(match.group()):x}}}", text)


def one_line(text: str) -> str:
    """Return `text` visible and on one line."""
    return visible(" ".join(text.split()))


def clip(text: str, limit: int = CLIP_CHARACTERS) -> tuple[str, int]:
    """Return at most `limit` characters of `text`, and how many were left out."""
    return (text, 0) if len(text) <= limit else (text[:limit], len(text) - limit)
