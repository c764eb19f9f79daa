"""Find the documents that a run feeds to the system: a folder of the user's, or the default corpus.

The default corpus is the long descriptions of all installed distributions (real Markdown and
reStructuredText that every machine has, licence in each distribution) and the samples of the repository.
Nothing is read from the network, nothing is extracted or judged here: what is in a document is left to the
target and to `recount`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from readiness.errors import BadInput

MEDIA_TYPES = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
}
"""Which files are documents, by the lower-case end of their name."""

MAX_DOCUMENT_BYTES = 25 * 1024 * 1024
"""The upload bound of the API (RAG_MAX_UPLOAD_BYTES): a larger file could only be refused."""

MAX_CORPUS_BYTES = 512 * 1024 * 1024
"""Documents are held in memory for the whole run; beyond this the rest of a folder is skipped, by name."""

MAX_ENTRIES = 50_000
"""Entries of a folder that are looked at. A folder above it is most likely not the one that was meant."""

_ENDINGS = {media_type: ending for ending, media_type in reversed(MEDIA_TYPES.items())}


@dataclass(frozen=True, slots=True)
class Document:
    """One document. `name` is printable and has no newline; `path` is None when it is no file of its own."""

    name: str
    media_type: str
    content: bytes
    path: Path | None = None

    @property
    def sha256(self) -> str:
        """The digest of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()


class Skipped(NamedTuple):
    """Something that was looked at and is no document of the corpus. `path` is printable, relative to the
    folder.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """The documents of a run in a fixed order, what was left out and why, and where they come from."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]
    origin: str

    @property
    def total_bytes(self) -> int:
        """The sizes of all documents added up."""
        return sum(len(document.content) for document in self.documents)


def load_documents(folder: Path | None, *, samples: Path) -> Corpus:
    """Read the documents below `folder`, or the default corpus (installed descriptions, `samples`) when it
    is None.

    BadInput when there is no such folder, it cannot be read, or no document is in it.
    """
    return _default_corpus(samples) if folder is None else _folder_corpus(folder)


def _folder_corpus(folder: Path) -> Corpus:
    _require_folder(folder)
    documents, skipped = _read_folder(folder, recursive=True)
    if not documents:
        raise BadInput(
            f"documents folder {printable(str(folder))}: expected at least one {_endings()} file, got"
            f" {_skipped_in_words(skipped)}. Name another folder, or leave --documents out."
        )
    return Corpus(tuple(documents), tuple(skipped), origin=f"folder {printable(folder.name or str(folder))}")


def _default_corpus(samples: Path) -> Corpus:
    described, skipped = _installed_descriptions()
    shipped: list[Document] = []
    if samples.is_dir():
        # Only what lies directly in the folder: below it are the sources of the samples, not samples.
        shipped, skipped_samples = _read_folder(samples, recursive=False)
        skipped += skipped_samples
    else:
        skipped.append(Skipped(printable(samples.name), "the content root has no such folder of samples"))
    if not described and not shipped:
        raise BadInput(
            "default corpus: expected descriptions of installed distributions or sample files, got neither."
            " Name a folder with --documents."
        )
    origin = f"default: descriptions of {len(described)} installed distributions and {len(shipped)} samples"
    return Corpus((*described, *shipped), tuple(skipped), origin)


def _installed_descriptions() -> tuple[list[Document], list[Skipped]]:
    """One document a distribution, sorted by name; the first of a name on the path counts, as it does for
    import.
    """
    found: dict[str, Document] = {}
    skipped: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if not name or name.lower() in found or name.lower() in skipped:
            continue
        content = _header(distribution, "Description").encode("utf-8", "replace")
        if not content.strip() or content.strip() == b"UNKNOWN":  # setuptools once wrote that for "none"
            skipped[name.lower()] = "the distribution has no long description"
            continue
        media_type = _description_type(_header(distribution, "Description-Content-Type"))
        label = printable(f"{name}-{distribution.version}{_ENDINGS[media_type]}")
        found[name.lower()] = Document(label, media_type, content)
    documents: list[Document] = []
    seen: dict[bytes, str] = {}
    for key in sorted(found):
        document = found[key]
        if (twin := seen.get(document.content)) is not None:
            skipped[key] = f"the same text as {twin}"
            continue
        seen[document.content] = document.name
        documents.append(document)
    return documents, [Skipped(printable(name), reason) for name, reason in sorted(skipped.items())]


def _header(distribution: metadata.Distribution, name: str) -> str:
    found = distribution.metadata.get_all(name)
    return str(found[0]) if found else ""


def _description_type(header: str) -> str:
    """The media type of a description; reStructuredText when unsaid, as the metadata specification has it.

    Source: https://packaging.python.org/en/latest/specifications/core-metadata/#description-content-type
    """
    declared = (header or "text/x-rst").partition(";")[0].strip().lower()
    return declared if declared in _ENDINGS and declared.startswith("text/") else "text/plain"


def _require_folder(folder: Path) -> None:
    shown = printable(str(folder))
    hint = "Name a folder with documents, or leave --documents out for the default corpus."
    try:
        mode = folder.stat().st_mode
        if not stat.S_ISDIR(mode):
            raise BadInput(f"documents folder {shown}: expected a folder, got a file. {hint}")
        with os.scandir(folder):
            pass
    except FileNotFoundError:
        raise BadInput(
            f"documents folder {shown}: expected a folder, got nothing of that name. {hint}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        words = getattr(error, "strerror", None) or str(error)
        raise BadInput(
            f"documents folder {shown}: expected a readable folder, got: {printable(words)}. {hint}"
        ) from None


def _read_folder(folder: Path, *, recursive: bool) -> tuple[list[Document], list[Skipped]]:
    documents: list[Document] = []
    skipped: list[Skipped] = []
    room = MAX_CORPUS_BYTES
    for path, reason in _walk(folder, recursive=recursive):
        label = printable(path.relative_to(folder).as_posix())
        content, problem = (b"", reason) if reason else _content(path, room=room)
        if problem:
            skipped.append(Skipped(label, problem))
            continue
        room -= len(content)
        documents.append(Document(label, MEDIA_TYPES[path.suffix.lower()], content, path))
    return documents, skipped


def _walk(folder: Path, *, recursive: bool) -> Iterator[tuple[Path, str]]:
    """Yield each entry with why it is no document ("" for a candidate), folder by folder, sorted by name.

    Links are followed, a folder is entered once however many links lead to it.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    looked_at = 0
    while waiting:
        current = waiting.pop()
        try:
            facts = current.stat()
            names = sorted(os.listdir(current))
        except OSError as error:
            yield current, f"this folder cannot be read: {error.strerror}"
            continue
        if (facts.st_dev, facts.st_ino) in entered:
            yield current, "a link to a folder that was read already"
            continue
        entered.add((facts.st_dev, facts.st_ino))
        looked_at += len(names)
        if looked_at > MAX_ENTRIES:
            raise BadInput(
                f"documents folder {printable(str(folder))}: expected at most {MAX_ENTRIES} entries, got"
                " more. Name a smaller folder."
            )
        below: list[Path] = []
        for name in names:
            path = current / name
            reason = _why_no_document(path)
            if reason != _IS_FOLDER:
                yield path, reason
            elif recursive:
                below.append(path)
        waiting.extend(reversed(below))


_IS_FOLDER = "a folder"


def _why_no_document(path: Path) -> str:
    """Why an entry is no document: "" for a candidate, `_IS_FOLDER` for one to enter. Opens nothing."""
    if path.name.startswith("."):
        return "hidden"
    try:
        facts = path.stat()
    except OSError as error:  # a link to nowhere or to itself, a folder without permission
        return f"cannot be read: {error.strerror}"
    return _IS_FOLDER if stat.S_ISDIR(facts.st_mode) else _why_file_is_none(path, facts)


def _why_file_is_none(path: Path, facts: os.stat_result) -> str:
    if not stat.S_ISREG(facts.st_mode):
        return "not a regular file"  # opening a pipe or a device could wait for ever
    if path.suffix.lower() not in MEDIA_TYPES:
        return f"not a {_endings()} file"
    if facts.st_size > MAX_DOCUMENT_BYTES:
        return f"{facts.st_size / 1e6:.1f} MB, above the bound of {MAX_DOCUMENT_BYTES // 1024**2} MiB"
    return "empty" if facts.st_size == 0 else ""


def _content(path: Path, *, room: int) -> tuple[bytes, str]:
    """The bytes of a file, or why not."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_DOCUMENT_BYTES + 1)  # it may have grown since it was measured
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"
    if len(content) > MAX_DOCUMENT_BYTES:
        return b"", f"above the bound of {MAX_DOCUMENT_BYTES // 1024**2} MiB"
    if len(content) > room:
        return b"", f"the documents before it fill the bound of {MAX_CORPUS_BYTES // 1024**2} MiB"
    return content, "" if content else "empty"


def printable(text: str) -> str:
    r"""Return `text` on one line and encodable: what cannot be printed becomes an escape, a backslash two.

    File names may hold newlines, control characters and bytes that are no UTF-8; names go into logs and
    reports.
    """
    return "".join(
        "\\\\"
        if sign == "\\"
        else sign
        if sign.isprintable()
        else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def _endings() -> str:
    *most, last = MEDIA_TYPES
    return f"{', '.join(most)} or {last}"


def _skipped_in_words(skipped: list[Skipped]) -> str:
    if not skipped:
        return "an empty folder"
    first = skipped[0]
    more = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
    return f"none among {len(skipped)} entries ({first.path}: {first.reason}{more})"
