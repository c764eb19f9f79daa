"""The worker's extraction and chunking and the harness's recount, written apart, agree on every document."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ragworker import extract
from ragworker.chunking import ChunkPlan
from ragworker.errors import JobFailedError
from readiness.documents import Document, load_documents
from readiness.recount import Recount, Unreadable, recount

SAMPLES = Path(__file__).resolve().parents[3] / "loadtests" / "samples"
CORPUS = load_documents(None, samples=SAMPLES)
TEXT_TYPES = st.sampled_from(["text/plain", "text/markdown", "text/html", "text/x-rst"])
CUT_MARKS = (b"\xef", b"\xef\xbb")
PIECES = [
    *(
        "a",
        "한글",
        " ",
        "\n",
        "\t",
        "\0",
        "&",
        ";",
        "<",
        ">",
        "/",
        "=",
        '"',
        "'",
        "-",
        "!",
        "?",
        "[",
        "]",
        "\ufeff",
    ),
    *(
        "&nbsp;",
        "&amp;",
        "&#0;",
        "&#xD800;",
        "&#128;",
        "&notit;",
        "&unknown;",
        "&am",
        "&#",
        "\u2003",
        "\x1c",
        "\x85",
    ),
    *(
        "<b>",
        "</b>",
        "<br/>",
        "<script>",
        "</script>",
        "<STYLE>",
        "</style>",
        "<script/>",
        "<title>",
        "</title>",
    ),
    *(
        "<!--",
        "-->",
        "<!-- c -->",
        "<!doctype html>",
        "<?php ?>",
        "<![CDATA[x]]>",
        "<![if x]>",
        "</>",
        "</ b>",
    ),
    *(
        "<textarea>",
        "<template>",
        "<p title='>'>",
        "# ",
        "**",
        "| a | b |\n|---|---|\n",
        "`",
        "[x](y)",
        "\n\n",
    ),
]


def by_worker(document: Document) -> Recount | Unreadable:
    """What the worker makes of a document, in the harness's words."""
    plan = ChunkPlan()
    with tempfile.NamedTemporaryFile(suffix=".upload") as file:
        file.write(document.content)
        file.flush()
        try:
            read = [*chain.from_iterable(extract.read_words(Path(file.name), document.media_type))]
        except JobFailedError as error:
            return Unreadable(str(error))
    words, chunks = len(read), list(plan.cut(read))
    assert plan.count(words) == len(chunks)
    assert plan.document_tokens(words) == sum(chunk.tokens for chunk in chunks)
    return Recount(
        words=words,
        chunks=len(chunks),
        tokens=sum(chunk.tokens for chunk in chunks),
        # As ingest.py stores them: a lone surrogate becomes a question mark.
        texts=tuple(chunk.text.encode("utf-8", "replace").decode() for chunk in chunks),
    )


def assert_agree(document: Document) -> None:
    ours, theirs = recount(document), by_worker(document)
    if isinstance(ours, Unreadable):
        assert isinstance(theirs, Unreadable), f"{document.name}: only the recount refuses it: {ours.reason}"
    else:
        assert theirs == ours, document.name


@pytest.mark.parametrize("document", CORPUS.documents, ids=lambda document: document.name)
def test_worker_and_recount_agree_on_the_default_corpus(document: Document) -> None:
    """Words, chunks, tokens and every chunk's text are the same for each document of the default corpus."""
    assert isinstance(recount(document), Recount)
    assert_agree(document)


@given(
    st.lists(st.sampled_from(PIECES), max_size=40), TEXT_TYPES, st.sampled_from(["utf-8", "utf-16", "cp949"])
)
@example(["<![", "x"], "text/html", "utf-8")
@example(["a", "<![foo[x]]>", "b"], "text/html", "utf-8")
def test_worker_and_recount_agree_on_nasty_text(pieces: list[str], media_type: str, encoding: str) -> None:
    """Broken markup, odd entities, control characters and encodings: both count the same or both refuse."""
    content = "".join(pieces).encode(encoding, "replace")
    assert_agree(Document("nasty", media_type, content))


@given(
    st.binary(max_size=200), st.sampled_from(["text/plain", "text/markdown", "text/html", "application/pdf"])
)
@example(b"\xff\xfea", "text/plain")
@example(b"\xef\xbb\xbf\xef\xbb\xbfx y", "text/plain")
def test_worker_and_recount_agree_on_any_bytes(content: bytes, media_type: str) -> None:
    """Bytes of no encoding at all: both count the same or both refuse."""
    assume(content not in CUT_MARKS)
    assert_agree(Document("bytes", media_type, content))


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.integers(1, 7), TEXT_TYPES)
def test_the_worker_reads_the_same_words_in_small_pieces(
    pieces: list[str], size: int, media_type: str
) -> None:
    """The worker reads files in pieces; where they are cut changes nothing, in the middle of a tag or a letter."""
    document = Document("pieces", media_type, "".join(pieces).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "PIECE_BYTES", size)
        assert_agree(document)


@pytest.mark.parametrize("content", CUT_MARKS)
def test_worker_and_recount_agree_on_a_cut_byte_order_mark(content: bytes) -> None:
    """A file of one or two bytes that begin a byte order mark is latin-1 by the rule, not an empty text."""
    assert_agree(Document("cut", "text/plain", content))
