"""The independent recount follows the written rule: words, chunks, tokens, texts, and what has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readiness.documents import Document
from readiness.recount import Recount, Unreadable, chunk_count, decode, html_words, recount

SAMPLES = Path(__file__).resolve().parents[3] / "loadtests" / "samples"


def text(content: bytes, media_type: str = "text/plain") -> Document:
    return Document("x", media_type, content)


def counted(content: bytes, media_type: str = "text/plain") -> Recount:
    result = recount(text(content, media_type))
    assert isinstance(result, Recount), result
    return result


@pytest.mark.parametrize(
    ("words", "chunks"),
    [(1, 1), (180, 1), (181, 2), (330, 2), (331, 3), (480, 3), (481, 4), (6000, 40)],
)
def test_chunk_count_at_its_edges(words: int, chunks: int) -> None:
    """A new chunk begins exactly where the last one no longer holds the last word."""
    result = counted(b"w " * words)
    assert (result.words, result.chunks, len(result.texts)) == (words, chunks, chunks)
    assert chunk_count(words) == chunks


@pytest.mark.parametrize(("words", "tokens"), [(1, 2), (10, 13), (11, 15), (180, 234), (181, 234 + 41)])
def test_tokens_are_words_times_thirteen_tenths_rounded_up(words: int, tokens: int) -> None:
    """Integer arithmetic: no float decides whether 13 or 14; the overlap is counted in both chunks."""
    assert counted(b"w " * words).tokens == tokens


@given(
    words=st.integers(1, 700),
    chunk_words=st.integers(1, 60),
    overlap_share=st.floats(0, 0.99),
)
def test_chunks_cover_every_word_in_order_for_any_setting(
    words: int, chunk_words: int, overlap_share: float
) -> None:
    """For any sizes: dropping each chunk's overlap and joining the rest gives the text again, and no chunk is spare."""
    overlap = min(chunk_words - 1, int(chunk_words * overlap_share))
    source = [f"w{n}" for n in range(words)]
    result = recount(text(" ".join(source).encode()), chunk_words=chunk_words, overlap=overlap)
    assert isinstance(result, Recount)
    chunks = [chunk.split() for chunk in result.texts]
    joined = chunks[0] + [word for chunk in chunks[1:] for word in chunk[overlap:]]
    assert joined == source
    assert all(len(chunk) == chunk_words for chunk in chunks[:-1])
    assert len(chunks) == 1 or len(chunks[-1]) > overlap  # the last chunk holds a word that no other has


@pytest.mark.parametrize(("chunk_words", "overlap"), [(10, 10), (10, 11), (10, -1), (0, 0)])
def test_settings_without_progress_are_refused(chunk_words: int, overlap: int) -> None:
    """An overlap as large as the chunk would never reach the end."""
    with pytest.raises(ValueError, match="overlap < chunk_words"):
        recount(text(b"w"), chunk_words=chunk_words, overlap=overlap)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufeff안녕 hi".encode(), "안녕 hi"),
        ("안녕 hi".encode("utf-16"), "안녕 hi"),
        ("\ufeff안녕".encode("utf-16-be"), "안녕"),
        ("작업 대기열".encode("cp949"), "작업 대기열"),
        ("café".encode("latin-1") + b"\xff", "café\xff"),
        (b"", ""),
    ],
    ids=["utf-8 with mark", "utf-16", "utf-16 big endian", "cp949", "latin-1", "empty"],
)
def test_text_is_decoded_by_the_first_encoding_that_fits(content: bytes, expected: str) -> None:
    """UTF-8, else UTF-16 with its mark, else cp949, else latin-1."""
    assert decode(content) == expected


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        ("<p>one <b>two</b>three</p>", "one two three"),
        ("un<b>believ</b>able", "un believ able"),
        ("a<script>var b = '<p>no</p>'</script>c", "a c"),
        ("a<STYLE>p{}</STYLE>c", "a c"),
        ("a<script>never closed", "a"),
        ("a<script/>b", "a b"),
        ("<!doctype html><!-- no --><?php no ?>a<![CDATA[no]]>b", "a b"),
        ("one&nbsp;two&#8195;three", "one two three"),
        ("R&amp;D &lt;b&gt; &#xD55C;&#44544;", "R&D <b> 한글"),
        ("a < b && c > d", "a < b && c > d"),
        ("x<3", "x<3"),
        ("tail & more &am", "tail & more &am"),
        ("<title>t</title><textarea>u</textarea><noscript>v</noscript><template>w</template>", "t u v w"),
        ("<p>open <li>lists <td>cells", "open lists cells"),
        ("a<br/>b<hr>c", "a b c"),
        ("attr <a title='no words'>yes</a>", "attr yes"),
        ("", ""),
    ],
)
def test_html_words_of_nasty_markup(markup: str, words: str) -> None:
    """Text nodes outside script and style, each split at whitespace; tags, comments and entities by the rule."""
    assert html_words(markup) == words.split()


@given(
    st.lists(st.sampled_from(["a", " ", "\n", "<b>", "</b>", "<!-- c -->", "&nbsp;", "&amp;", "<br>", "한"]))
)
def test_html_words_do_not_depend_on_how_the_parser_cuts_its_input(pieces: list[str]) -> None:
    """A tag and a space separate, letters and `&amp;` join: the words equal those of a text built beside it."""
    flat = "".join(
        {"<b>": " ", "</b>": " ", "<br>": " ", "<!-- c -->": " ", "&nbsp;": "\xa0", "&amp;": "&"}.get(
            piece, piece
        )
        for piece in pieces
    )
    assert html_words("".join(pieces)) == flat.split()


def test_markdown_is_rendered_with_tables_before_it_is_read() -> None:
    """Marks are no words: headings, emphasis, table bars and link targets are gone, cells and inline HTML count."""
    source = (
        b"# Head\n\n**bold**text [link](http://x.invalid)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<b>raw</b>\n"
    )
    assert counted(source, "text/markdown").texts == ("Head bold text link a b 1 2 raw",)
    assert counted(source, "text/plain").words == len(source.split())


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b" \n\t ", "text/plain"),
        (b"<script>only code</script>", "text/html"),
        (b"%PDF-1.7 broken", "application/pdf"),
        (b"not a pdf at all", "application/pdf"),
        (b"", "application/pdf"),
        (b"words", "image/png"),
    ],
)
def test_a_document_without_words_is_unreadable(content: bytes, media_type: str) -> None:
    """No words, a broken PDF, a type without a rule: a reason, never a count and never an exception."""
    result = recount(text(content, media_type))
    assert isinstance(result, Unreadable)
    assert result.reason
    assert "\n" not in result.reason


@given(
    st.binary(max_size=300), st.sampled_from(["text/plain", "text/html", "text/markdown", "application/pdf"])
)
def test_any_bytes_give_a_count_or_a_reason(content: bytes, media_type: str) -> None:
    """Garbage of any kind is counted or refused; nothing escapes as an exception."""
    assert isinstance(recount(text(content, media_type)), Recount | Unreadable)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.pdf")), ids=lambda path: path.name)
def test_sample_pdfs_give_clean_text(path: Path) -> None:
    """Every sample PDF is below 300 kB, several pages long, and its text comes out without a broken character."""
    content = path.read_bytes()
    result = counted(content, "application/pdf")
    assert len(content) < 300_000
    assert result.words > 500
    whole = " ".join(result.texts)
    assert "\ufffd" not in whole
    korean = sum("가" <= sign <= "힣" for sign in whole) / len(whole)
    assert korean > 0.5 if ".ko." in path.name else korean == 0


def test_sample_pages_keep_script_style_and_comments_out() -> None:
    """The sample pages plant sentences that are no text; none of them is in a chunk."""
    for path in SAMPLES.glob("*.html"):
        whole = " ".join(counted(path.read_bytes(), "text/html").texts)
        for planted in (
            "the extractor is wrong",
            "written by a script",
            "not words of",
            "추출기가",
            "console.log",
        ):
            assert planted not in whole, f"{path.name}: {planted}"
