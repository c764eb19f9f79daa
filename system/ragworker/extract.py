"""Turn a document's file into a stream of words, by the public rule below. Chunking is left to `chunking.py`.

    txt, rst   bytes as UTF-8 (BOM dropped), else UTF-16 if it has a BOM, else cp949, else latin-1; text.split()
    html       the words of each text node in document order, so a tag ends a word; script and style left out
    md         rendered by markdown-it-py (preset commonmark, tables on), then as html
    pdf        page by page by pypdf; page_text.split()

Everything is read in pieces and nothing here knows the whole text, Markdown and PDF apart, whose libraries do.
Heavy and synchronous: call it in a thread. Libraries are imported when first needed, to keep idle workers small.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final

from ragworker.errors import ErrorCode, JobFailedError

#: Small enough that no single call into C holds Python's lock for long: a worker must renew its lease meanwhile.
PIECE_BYTES: Final = 1 << 18

#: A 25 MiB upload holds at most 26 million characters of text; what unpacks to much more is an attack.
LONGEST_TEXT_CHARS: Final = 60_000_000
MOST_PAGES: Final = 10_000

#: How many words are written between two looks at whether anybody still wants them.
STOP_WORDS: Final = 4096

#: Media type by the ending of a file's name.
MEDIA_TYPES: Final = MappingProxyType(
    {
        ".txt": "text/plain",
        ".text": "text/plain",
        ".md": "text/markdown",
        ".markdown": "text/markdown",
        ".rst": "text/x-rst",
        ".html": "text/html",
        ".htm": "text/html",
        ".pdf": "application/pdf",
    }
)
SUPPORTED_MEDIA_TYPES: Final = frozenset(MEDIA_TYPES.values())


def media_type_of(name: str, declared: str = "") -> str | None:
    """The media type of a document: by its name's ending, else as declared; None when it is not supported."""
    by_name = MEDIA_TYPES.get(Path(name).suffix.lower())
    plain = declared.partition(";")[0].strip().lower()
    return by_name or (plain if plain in SUPPORTED_MEDIA_TYPES else None)


def write_words(
    path: Path, media_type: str, into: IO[bytes], *, stopped: Callable[[], bool] = lambda: False
) -> int:
    """Write the words of the document at `path` into `into`, one a line in UTF-8; how many there were.

    `stopped` is asked now and then, because a thread cannot be stopped from outside; InterruptedError if so.

    JobFailedError with VALIDATION_ERROR (no words), UNSUPPORTED_MEDIA_TYPE, DOCUMENT_UNREADABLE or
    DOCUMENT_TOO_LARGE.
    """
    reader = _READERS.get(media_type)
    if reader is None:
        raise JobFailedError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"expected one of {', '.join(sorted(SUPPORTED_MEDIA_TYPES))}, got: {media_type[:60]}",
        )
    count = 0
    for word in reader(path):
        # Lone surrogates (some PDFs) and NUL would be refused by one database or the other.
        into.write(word.replace("\0", "\ufffd").encode("utf-8", "replace") + b"\n")
        count += 1
        if count % STOP_WORDS == 0 and stopped():
            raise InterruptedError("nobody waits for these words any more")
    if count == 0:
        raise JobFailedError(
            ErrorCode.VALIDATION_ERROR, "expected a document with text, got one without a word"
        )
    return count


def read_words(stored: IO[bytes]) -> Iterator[str]:
    """The words that `write_words` wrote, from the start."""
    stored.seek(0)
    for line in stored:
        yield line[:-1].decode("utf-8")


def split_words(pieces: Iterable[str]) -> Iterator[str]:
    """The words of a text that comes in pieces: as ''.join(pieces).split(), without joining."""
    rest = ""
    for piece in pieces:
        text = rest + piece
        words = text.split()
        rest = words.pop() if words and not text[-1].isspace() else ""
        yield from words
    if rest:
        yield rest


def decode_pieces(path: Path) -> Iterator[str]:
    """The text of a file, in pieces, by the first encoding of the rule that fits all of it."""
    with path.open("rb") as file:
        start = file.read(3)
    has_utf16_mark = start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    # utf-8-sig alone would read a file that is only the beginning of its mark as an empty text.
    utf8 = "utf-8-sig" if start == codecs.BOM_UTF8 else "utf-8"
    for encoding in (utf8, *(["utf-16"] if has_utf16_mark else []), "cp949"):
        if _fits(path, encoding):
            return _decoded(path, encoding)
    return _decoded(path, "latin-1")


def _fits(path: Path, encoding: str) -> bool:
    try:
        for _ in _decoded(path, encoding):
            pass
    except UnicodeDecodeError:
        return False
    return True


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _text_words(path: Path) -> Iterator[str]:
    return split_words(decode_pieces(path))


def _html_words(path: Path) -> Iterator[str]:
    return html_words(decode_pieces(path))


def _markdown_words(path: Path) -> Iterator[str]:
    from markdown_it import MarkdownIt  # noqa: PLC0415  only workers that meet Markdown pay for it

    renderer = MarkdownIt("commonmark").enable("table")
    return html_words([renderer.render("".join(decode_pieces(path)))])


def html_words(pieces: Iterable[str]) -> Iterator[str]:
    """The words of the text nodes of an HTML text that comes in pieces."""
    parser = _TextNodes()
    try:
        for piece in pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                parser.feed(piece[start : start + PIECE_BYTES])
                yield from parser.take()
        parser.close()
    except AssertionError:
        # The only way in which the standard library's parser gives up: a malformed <![ section.
        raise JobFailedError(ErrorCode.DOCUMENT_UNREADABLE, "the HTML has a malformed <![ section") from None
    yield from parser.take(at_end=True)


class _TextNodes(HTMLParser):
    """Collects words; a text node ends at whatever is not text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._node: list[str] = []
        self._words: list[str] = []
        self._silent: str | None = None

    def take(self, *, at_end: bool = False) -> list[str]:
        """The words of finished text nodes since the last call."""
        if at_end:
            self._end_node()
        words, self._words = self._words, []
        return words

    def handle_data(self, data: str) -> None:
        if self._silent is None:
            self._node.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_node()
        if tag in ("script", "style"):
            self._silent = tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_node()

    def handle_endtag(self, tag: str) -> None:
        self._end_node()
        if tag == self._silent:
            self._silent = None

    def handle_comment(self, data: str) -> None:
        self._end_node()

    def handle_decl(self, decl: str) -> None:
        self._end_node()

    def handle_pi(self, data: str) -> None:
        self._end_node()

    def unknown_decl(self, data: str) -> None:
        self._end_node()

    def _end_node(self) -> None:
        self._words.extend("".join(self._node).split())
        self._node.clear()


def _pdf_words(path: Path) -> Iterator[str]:
    from pypdf import PdfReader  # noqa: PLC0415  a large library, needed for PDF alone

    # It warns about every oddity of every file; what matters comes as an exception.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise JobFailedError(ErrorCode.DOCUMENT_UNREADABLE, "expected a PDF without password")
        pages = len(reader.pages)
    except JobFailedError:
        raise
    except Exception as error:
        raise _unreadable(error) from error
    if pages > MOST_PAGES:
        raise JobFailedError(
            ErrorCode.DOCUMENT_TOO_LARGE, f"expected at most {MOST_PAGES} pages, got: {pages}"
        )
    length = 0
    for number in range(pages):
        try:
            text = reader.pages[number].extract_text()
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(error) from error
        length += len(text)
        if length > LONGEST_TEXT_CHARS:
            raise JobFailedError(
                ErrorCode.DOCUMENT_TOO_LARGE, f"expected at most {LONGEST_TEXT_CHARS} characters of text"
            )
        yield from text.split()


def _unreadable(error: Exception) -> JobFailedError:
    return JobFailedError(ErrorCode.DOCUMENT_UNREADABLE, f"the PDF cannot be read ({type(error).__name__})")


_READERS: Final[MappingProxyType[str, Callable[[Path], Iterator[str]]]] = MappingProxyType(
    {
        "text/plain": _text_words,
        "text/x-rst": _text_words,
        "text/markdown": _markdown_words,
        "text/html": _html_words,
        "application/pdf": _pdf_words,
    }
)
