"""Count the words, chunks and tokens of a document from its file alone, as a second opinion on a target.

It follows the written chunking rule and shares no code with the system under test; both stand on the same parsers
(html.parser, markdown-it-py, pypdf), so a defect of those would not be seen here. Comparing is left to the checks.

The rule. Text files: UTF-8 (byte order mark dropped), else UTF-16 if it has a byte order mark, else cp949, else
latin-1. Markdown is rendered by CommonMark with tables and then read as HTML. HTML: every text node outside script
and style, in document order; a tag, comment or declaration ends a text node. PDF: the text of each page as pypdf
gives it. Words are what whitespace separates within a text node (a page, a text file); in them NUL becomes U+FFFD
and a lone surrogate "?", because no database stores either. Chunk k holds the words [k * step, k * step +
chunk_words) with step = chunk_words - overlap, until one holds the last word. A chunk of w words has (13 w + 9) //
10 tokens: w times 1.3, rounded up.
"""

from __future__ import annotations

import codecs
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser

from readiness.documents import Document

CHUNK_WORDS = 180
OVERLAP_WORDS = 30


@dataclass(frozen=True, slots=True)
class Recount:
    """What the rule makes of a document: the number of words, chunks and tokens, and the text of each
    chunk.
    """

    words: int
    chunks: int
    tokens: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The document has no text by the rule, so a target has to refuse it."""

    reason: str


def recount(
    document: Document, *, chunk_words: int = CHUNK_WORDS, overlap: int = OVERLAP_WORDS
) -> Recount | Unreadable:
    """Apply the rule to one document. ValueError unless 0 <= overlap < chunk_words."""
    if not 0 <= overlap < chunk_words:
        raise ValueError(f"recount: expected 0 <= overlap < chunk_words, got {overlap} and {chunk_words}")
    found = document_words(document)
    if isinstance(found, Unreadable):
        return found
    if not found:
        return Unreadable("no words")
    words = [word.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8") for word in found]
    chunks = chunk_count(len(words), chunk_words=chunk_words, overlap=overlap)
    step = chunk_words - overlap
    parts = [words[k * step : k * step + chunk_words] for k in range(chunks)]
    return Recount(
        words=len(words),
        chunks=chunks,
        tokens=sum((13 * len(part) + 9) // 10 for part in parts),
        texts=tuple(" ".join(part) for part in parts),
    )


def chunk_count(words: int, *, chunk_words: int = CHUNK_WORDS, overlap: int = OVERLAP_WORDS) -> int:
    """How many chunks that many words make: 1 up to `chunk_words`, else (words - overlap) / step, rounded
    up.
    """
    if words <= chunk_words:
        return int(words > 0)
    return -(-(words - overlap) // (chunk_words - overlap))


def document_words(document: Document) -> list[str] | Unreadable:
    """A document's words in order, by its media type; Unreadable for a type without rule or a broken file."""
    media_type = document.media_type.partition(";")[0].strip().lower()
    reader = _READERS.get(media_type)
    if reader is None:
        return Unreadable(f"media type {media_type!r} has no rule")
    try:
        return reader(document.content)
    except AssertionError:
        # How html.parser of some Python versions gives up on an unknown <![ section, also one inside Markdown.
        return Unreadable("the HTML has a malformed <![ section")


def html_words(markup: str) -> list[str]:
    """The words of an HTML text."""
    reader = _TextNodes()
    reader.feed(markup)
    reader.close()
    return reader.words()


def decode(content: bytes) -> str:
    """The text of a text file."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        pass
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError:
            pass
    try:
        return content.decode("cp949")
    except UnicodeDecodeError:
        return content.decode("latin-1")


class _TextNodes(HTMLParser):
    """Collects the words of text nodes. The parser may hand over one node in pieces, so pieces are joined
    first.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._words: list[str] = []
        self._node: list[str] = []
        self._inside = ""  # "script" or "style" while in one: their content has no tags, so they cannot nest

    def words(self) -> list[str]:
        self._end_node()
        return self._words

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self._node.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_node()
        if tag in ("script", "style"):
            self._inside = tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_node()  # <script/> has no content

    def handle_endtag(self, tag: str) -> None:
        self._end_node()
        if tag == self._inside:
            self._inside = ""

    def handle_comment(self, data: str) -> None:
        self._end_node()

    def handle_decl(self, decl: str) -> None:
        self._end_node()

    def handle_pi(self, data: str) -> None:
        self._end_node()

    def unknown_decl(self, data: str) -> None:
        self._end_node()

    def _end_node(self) -> None:
        if self._node:
            self._words.extend("".join(self._node).split())
            self._node.clear()


def _words_of_text(content: bytes) -> list[str]:
    return decode(content).split()


def _words_of_html(content: bytes) -> list[str]:
    return html_words(decode(content))


def _words_of_markdown(content: bytes) -> list[str]:
    from markdown_it import MarkdownIt  # noqa: PLC0415 - the load generator needs no Markdown and starts sooner

    return html_words(MarkdownIt("commonmark").enable("table").render(decode(content)))


def _words_of_pdf(content: bytes) -> list[str] | Unreadable:
    from pypdf import PdfReader  # noqa: PLC0415 - half a second that only a corpus with PDFs pays

    words: list[str] = []
    try:
        with _quiet("pypdf"):
            for page in PdfReader(io.BytesIO(content)).pages:
                words.extend(page.extract_text().split())
    except Exception as error:
        # pypdf meets broken files with errors of many kinds; all mean that no text comes out.
        return Unreadable(f"not a readable PDF: {type(error).__name__}: {str(error)[:120]}")
    return words


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library's warnings on odd files out of the run's output; its errors still reach us."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


_READERS: dict[str, Callable[[bytes], list[str] | Unreadable]] = {
    "text/plain": _words_of_text,
    "text/x-rst": _words_of_text,
    "text/markdown": _words_of_markdown,
    "text/html": _words_of_html,
    "application/pdf": _words_of_pdf,
}
