"""Turn a document's file into a stream of words, by the public rule below. Chunking is left to `chunking.py`.

    txt, rst   bytes as UTF-8 (BOM dropped), else UTF-16 if it has a BOM, else cp949, else latin-1; text.split()
    html       the words of each text node in document order, so a tag ends a word; script and style left out
    md         rendered by markdown-it-py (preset commonmark, tables on), then as html
    pdf        page by page by pypdf; page_text.split()

Words come in lists, one a piece of the document, and nothing here knows the whole text, Markdown and PDF apart, whose
libraries do. What would make a piece large all the same is refused: a word or a tag without end.
Heavy and synchronous: call it in a thread. Libraries are imported when first needed, to keep idle workers small.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ragworker.errors import ErrorCode, JobFailedError, classify

#: Small enough that no single call into C holds Python's lock for long: a worker must renew its lease meanwhile.
PIECE_BYTES: Final = 1 << 16

#: No language has such words, and no embedding model reads as many characters at once: 8,192 tokens are about 32,000.
LONGEST_WORD_CHARS: Final = 1 << 16

#: A tag, comment or script whose end is not in sight. Data that pages carry along is in scripts of a few megabytes.
LONGEST_TAG_CHARS: Final = 1 << 23

#: markdown-it holds all blocks of a document, and all marks of the paragraph at hand, at about 400 bytes each.
LONGEST_MARKDOWN_BYTES: Final = 1 << 25
MOST_MARKDOWN_TOKENS: Final = 1_000_000

#: What a PDF unpacks to beyond this is an attack.
LONGEST_TEXT_CHARS: Final = 60_000_000
MOST_PAGES: Final = 10_000

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


def read_words(
    path: Path, media_type: str, *, stopped: Callable[[], bool] = lambda: False
) -> Iterator[list[str]]:
    """The words of the document at `path`, in lists, some of which may be empty.

    `stopped` is asked between any two, because a thread cannot be stopped from outside; InterruptedError if so.

    JobFailedError with VALIDATION_ERROR (no words), UNSUPPORTED_MEDIA_TYPE, DOCUMENT_UNREADABLE or
    DOCUMENT_TOO_LARGE.
    """
    reader = _READERS.get(media_type)
    if reader is None:
        raise JobFailedError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"expected one of {', '.join(sorted(SUPPORTED_MEDIA_TYPES))}, got: {media_type[:60]}",
        )
    is_empty = True
    for words in reader(path):
        if stopped():
            raise InterruptedError("nobody waits for these words any more")
        is_empty = is_empty and not words
        yield words
    if is_empty:
        raise JobFailedError(
            ErrorCode.VALIDATION_ERROR, "expected a document with text, got one without a word"
        )


class _Splitter:
    """Text comes in pieces, words go out: as ''.join(pieces).split(), without joining."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, piece: str) -> list[str]:
        """The words that are whole by now."""
        text = self._rest + piece
        words = text.split()
        if max(map(len, words), default=0) > LONGEST_WORD_CHARS:
            raise _too_large(f"words of at most {LONGEST_WORD_CHARS} characters")
        self._rest = words.pop() if words and not text[-1].isspace() else ""
        return words

    def end(self) -> list[str]:
        """The last word, if there is one; what comes next begins another."""
        return self.feed(" ")


def split_words(pieces: Iterable[str]) -> Iterator[list[str]]:
    """The words of a text that comes in pieces."""
    splitter = _Splitter()
    for piece in pieces:
        # NUL would be refused by one database or the other.
        yield splitter.feed(piece.replace("\0", "\ufffd"))
    yield splitter.end()


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


def _text_words(path: Path) -> Iterator[list[str]]:
    return split_words(decode_pieces(path))


def _html_words(path: Path) -> Iterator[list[str]]:
    return html_words(decode_pieces(path))


def _markdown_words(path: Path) -> Iterator[list[str]]:
    if path.stat().st_size > LONGEST_MARKDOWN_BYTES:
        raise _too_large(f"Markdown of at most {LONGEST_MARKDOWN_BYTES} bytes")
    return html_words(rendered("".join(decode_pieces(path))))


def rendered(text: str) -> Iterator[str]:
    """The HTML of a Markdown text, block by block: what is inside a block is parsed when its turn comes."""
    from markdown_it import MarkdownIt  # noqa: PLC0415  only workers that meet Markdown pay for it
    from markdown_it.rules_core import StateCore  # noqa: PLC0415  the same

    env: dict[str, Any] = {}
    parser = MarkdownIt("commonmark").enable("table")
    normalize, block, *inline = parser.core.ruler.getRules("")
    state = StateCore(text, parser, env)
    state.tokens = _Tokens()
    normalize(state)
    block(state)
    for token in state.tokens:
        token.children = _Tokens()
        one = StateCore("", parser, env, [token])
        for rule in inline:
            rule(one)
        yield parser.renderer.render([token], parser.options, env)
        token.children = None


class _Tokens(list[Any]):
    """What markdown-it appends to, with a bound."""

    def append(self, token: Any) -> None:
        if len(self) >= MOST_MARKDOWN_TOKENS:
            raise _too_large(f"Markdown of at most {MOST_MARKDOWN_TOKENS} blocks, and marks in a paragraph")
        super().append(token)


def html_words(pieces: Iterable[str]) -> Iterator[list[str]]:
    """The words of the text nodes of an HTML text that comes in pieces."""
    parser = _TextNodes()
    try:
        for piece in pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                parser.feed(piece[start : start + PIECE_BYTES])
                if len(parser.rawdata) > LONGEST_TAG_CHARS:
                    raise _too_large(f"tags and scripts of at most {LONGEST_TAG_CHARS} characters")
                yield parser.take()
        parser.close()
    except AssertionError:
        # The only way in which the standard library's parser gives up: a malformed <![ section.
        raise JobFailedError(ErrorCode.DOCUMENT_UNREADABLE, "the HTML has a malformed <![ section") from None
    yield parser.take(at_end=True)


class _TextNodes(HTMLParser):
    """Collects words; a text node ends at whatever is not text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._node = _Splitter()
        self._words: list[str] = []
        self._silent: str | None = None

    def take(self, *, at_end: bool = False) -> list[str]:
        """The words that are whole since the last call."""
        if at_end:
            self._end_node()
        words, self._words = self._words, []
        return words

    def handle_data(self, data: str) -> None:
        if self._silent is None:
            self._words += self._node.feed(data.replace("\0", "\ufffd"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_node()
        if tag in ("script", "style"):
            self._silent = tag

    def handle_endtag(self, tag: str) -> None:
        self._end_node()
        if tag == self._silent:
            self._silent = None

    def _end_node(self, *_: object) -> None:
        self._words += self._node.end()

    handle_comment = handle_decl = handle_pi = unknown_decl = handle_startendtag = _end_node  # type: ignore[assignment]  # any argument


def _pdf_words(path: Path) -> Iterator[list[str]]:
    try:
        yield from _pages(path)
    except Exception as error:
        if classify(error).code is not ErrorCode.TEMPORARY_FAILURE:
            raise  # not the file's fault, or said already
        what = f"the PDF cannot be read ({type(error).__name__})"
        raise JobFailedError(ErrorCode.DOCUMENT_UNREADABLE, what) from error


def _pages(path: Path) -> Iterator[list[str]]:
    from pypdf import PdfReader  # noqa: PLC0415  a large library, needed for PDF alone

    # It warns about every oddity of every file; what matters comes as an exception.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reader = PdfReader(path)
    if reader.is_encrypted and not reader.decrypt(""):
        raise JobFailedError(ErrorCode.DOCUMENT_UNREADABLE, "expected a PDF without password")
    if len(reader.pages) > MOST_PAGES:
        raise _too_large(f"at most {MOST_PAGES} pages")
    length = 0
    for page in reader.pages:
        text = page.extract_text()
        length += len(text)
        if length > LONGEST_TEXT_CHARS:
            raise _too_large(f"at most {LONGEST_TEXT_CHARS} characters of text")
        yield from split_words([text])


def _too_large(expected: str) -> JobFailedError:
    return JobFailedError(ErrorCode.DOCUMENT_TOO_LARGE, f"expected {expected}")


_READERS: Final[MappingProxyType[str, Callable[[Path], Iterator[list[str]]]]] = MappingProxyType(
    {
        "text/plain": _text_words,
        "text/x-rst": _text_words,
        "text/markdown": _markdown_words,
        "text/html": _html_words,
        "application/pdf": _pdf_words,
    }
)
