"""Documents become words by the public rule, private files leave nothing behind."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, NavigableString
from bs4.element import PreformattedString
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ragworker import extract
from ragworker.errors import ErrorCode, JobFailedError
from ragworker.extract import (
    LONGEST_TAG_CHARS,
    LONGEST_WORD_CHARS,
    html_words,
    read_words,
    rendered,
    split_words,
)
from ragworker.tempfiles import PrivateFiles, overwriting_proves


def words_of(tmp_path: Path, content: bytes, media_type: str) -> list[str]:
    path = tmp_path / "document"
    path.write_bytes(content)
    return [*chain.from_iterable(read_words(path, media_type))]


def soup_words(html: str) -> list[str]:
    """The same rule through another library."""
    found: list[str] = []
    for node in BeautifulSoup(html, "html.parser").descendants:
        is_text = isinstance(node, NavigableString) and not isinstance(node, PreformattedString)
        if is_text and node.parent is not None and node.parent.name not in ("script", "style"):
            found += str(node).split()
    return found


@given(st.text(), st.integers(1, 10))
def test_text_in_pieces_has_the_same_words(text: str, size: int) -> None:
    """Splitting a text that comes in pieces gives what splitting it whole gives."""
    pieces = (text[i : i + size] for i in range(0, len(text), size))
    assert [*chain.from_iterable(split_words(pieces))] == text.replace("\0", "\ufffd").split()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("한국어 문서 ok".encode(), ["한국어", "문서", "ok"]),
        (b"\xef\xbb\xbfwith mark", ["with", "mark"]),
        ("de\u0301ja vu".encode("utf-16"), ["de\u0301ja", "vu"]),
        ("한국어 문서".encode("cp949"), ["한국어", "문서"]),
        (b"caf\xe9 \xff\xfe\xfd end", ["caf\xe9", "\xff\xfe\xfd", "end"]),
        (b"nul\0inside", ["nul\ufffdinside"]),
    ],
)
def test_encodings_are_tried_in_the_published_order(tmp_path: Path, content: bytes, words: list[str]) -> None:
    """UTF-8, UTF-16 with its mark, cp949, latin-1."""
    assert words_of(tmp_path, content, "text/plain") == words


def test_html_is_its_text_nodes(tmp_path: Path) -> None:
    """Tags and comments end a word; script, style, comments and the doctype are not text."""
    html = b"""<!DOCTYPE html><title>One&nbsp;two</title><style>no{}</style><script>if (a<b) no()</script>
    <p>th<b>ree</b> four<!-- no -->five &amp; &lt;six&gt;</p><script src=x /> seven"""
    assert words_of(tmp_path, html, "text/html") == [
        "One",
        "two",
        "th",
        "ree",
        "four",
        "five",
        "&",
        "<six>",
        "seven",
    ]


def test_markdown_is_read_as_the_html_that_it_makes(tmp_path: Path) -> None:
    """Links, tables and inline HTML count by what a reader would see."""
    text = b"# Head\n\n[link](http://no) *two*\n\n| a | b |\n|---|---|\n| c | d |\n\n<i>raw</i>\n"
    assert words_of(tmp_path, text, "text/markdown") == ["Head", "link", "two", "a", "b", "c", "d", "raw"]


def test_words_of_real_descriptions_equal_those_of_another_parser(tmp_path: Path) -> None:
    """On the descriptions of installed distributions our stream parser and BeautifulSoup agree."""
    compared = 0
    for distribution in distributions():
        text = str(distribution.metadata.get_payload() or "")
        if not text.strip() or compared > 12:
            continue
        html = MarkdownIt("commonmark").enable("table").render(text)
        pieces = (html[i : i + 1000] for i in range(0, len(html), 1000))
        assert [*chain.from_iterable(html_words(pieces))] == soup_words(html)
        path = tmp_path / "document"
        path.write_bytes(text.encode("utf-8", "replace"))
        by_block = [*chain.from_iterable(read_words(path, "text/markdown"))]
        assert by_block == soup_words(
            MarkdownIt("commonmark").enable("table").render(path.read_text("utf-8"))
        )
        compared += 1
    assert compared > 10


@given(st.text(alphabet="<>/!-[]abp &;\"'= \n", max_size=60))
def test_any_markup_is_survived(html: str) -> None:
    """Whatever comes, the parser gives words or the one documented failure."""
    try:
        words = [*chain.from_iterable(html_words([html]))]
    except JobFailedError as failure:
        assert failure.code is ErrorCode.DOCUMENT_UNREADABLE  # noqa: PT017  both ends are fine
    else:
        assert all(word == "".join(word.split()) for word in words)


def small_pdf(text: str) -> bytes:
    stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        out
        + b"xref\n0 5\n0000000000 65535 f \n%strailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF"
        % (
            table,
            len(out),
        )
    )


def test_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    """The words of a PDF are those of its pages."""
    assert words_of(tmp_path, small_pdf("Hello portable world"), "application/pdf") == [
        "Hello",
        "portable",
        "world",
    ]


@pytest.mark.parametrize(
    ("content", "media_type", "code"),
    [
        (b"", "text/plain", ErrorCode.VALIDATION_ERROR),
        (b" \n\t ", "text/plain", ErrorCode.VALIDATION_ERROR),
        (b"<p> </p><script>x</script>", "text/html", ErrorCode.VALIDATION_ERROR),
        (b"not a pdf", "application/pdf", ErrorCode.DOCUMENT_UNREADABLE),
        (small_pdf("x")[:200], "application/pdf", ErrorCode.DOCUMENT_UNREADABLE),
        (b"x", "image/png", ErrorCode.UNSUPPORTED_MEDIA_TYPE),
    ],
)
def test_unusable_document_has_its_code(
    tmp_path: Path, content: bytes, media_type: str, code: ErrorCode
) -> None:
    """Empty, broken and foreign documents fail for good, each by its own code."""
    with pytest.raises(JobFailedError) as caught:
        words_of(tmp_path, content, media_type)
    assert caught.value.code is code


def test_abandoned_reading_stops(tmp_path: Path) -> None:
    """A reader that nobody waits for ends itself at the next piece, also when it meets no words at all."""
    path = tmp_path / "document"
    for content in (b"w " * 500_000, b" " * 1_000_000):
        path.write_bytes(content)
        looks = iter([False, False, True])
        lists = read_words(path, "text/plain", stopped=lambda looks=looks: next(looks))
        assert len([next(lists), next(lists)]) == 2
        with pytest.raises(InterruptedError):
            next(lists)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"a " * 10 + b"x" * (LONGEST_WORD_CHARS + 1) + b" b", "text/plain"),
        (b"x" * 10 * LONGEST_WORD_CHARS, "text/plain"),
        (b"<p>" + b"x" * (LONGEST_WORD_CHARS + 1), "text/html"),
        (b"text <!-- " + b"x " * (LONGEST_TAG_CHARS // 2 + 40_000), "text/html"),
        (b"x " * ((1 << 24) + 1), "text/markdown"),
        (b"*a* " * 4_000, "text/markdown"),
        (b"- a\n" * 4_000, "text/markdown"),
    ],
    ids=["word", "only a word", "word in a tag", "comment", "large Markdown", "marks", "blocks"],
)
def test_what_has_no_end_is_refused(
    tmp_path: Path, content: bytes, media_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word, a tag or a parse tree that would have to be held whole is refused by its code, for good."""
    monkeypatch.setattr(extract, "MOST_MARKDOWN_TOKENS", 10_000)
    with pytest.raises(JobFailedError) as caught:
        words_of(tmp_path, content, media_type)
    assert caught.value.code is ErrorCode.DOCUMENT_TOO_LARGE
    assert "expected" in caught.value.message


def test_longest_word_is_a_word(tmp_path: Path) -> None:
    """One of exactly the limit passes, wherever the pieces end."""
    for before in (0, 1, 1000, LONGEST_WORD_CHARS - 1):
        content = b"y " * before + b"x" * LONGEST_WORD_CHARS + b" z"
        assert len(words_of(tmp_path, content, "text/plain")) == before + 2


MARKS = "a *** ** _ ` [x](y) ![i*j*](k) [r] [r]:http://z \\* &amp; &#35; <b> </b> <!--c--> <script> </script> ``` ---"
MARKDOWN = st.lists(
    st.sampled_from(
        [*MARKS.split(), "b c", " ", "|", "\n", "\n\n", "- ", "1. ", "> ", "# ", "    ", "|-|-|", "  \n"]
    ),
    max_size=40,
)


@given(MARKDOWN)
def test_markdown_block_by_block_is_markdown(parts: list[str]) -> None:
    """Parsing what is inside a block when its turn comes gives the words of rendering it all at once."""
    text = "".join(parts)
    whole = MarkdownIt("commonmark").enable("table").render(text)
    assert [*chain.from_iterable(html_words(rendered(text)))] == [*chain.from_iterable(html_words([whole]))]


def test_private_file_is_private_and_wiped(tmp_path: Path) -> None:
    """The file is 0600 in a 0700 folder, named by its owner; afterwards it is gone and its bytes are random."""
    files = PrivateFiles(tmp_path / "private", owner="w1")
    with files.hold() as (path, file), path.open("rb") as still_open:
        file.write(b"secret text" * 1000)
        file.flush()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert path.name.startswith("w1.")
        assert PrivateFiles(tmp_path / "private", owner="w2").sweep() == 0
        kept = os.dup(still_open.fileno())
    assert list((tmp_path / "private").iterdir()) == []
    with os.fdopen(kept, "rb") as leftover:
        leftover.seek(0)
        assert b"secret" not in leftover.read()


def test_files_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    """kill -9 leaves the file; the next sweep wipes it; while its owner lives it is left alone."""
    program = """
import sys, time
from pathlib import Path
from ragworker.tempfiles import PrivateFiles
with PrivateFiles(Path(sys.argv[1]), owner="w1").hold() as (path, file):
    file.write(b"text")
    file.flush()
    print(path, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        path = Path(owner.stdout.readline().decode().strip())
        files = PrivateFiles(tmp_path, owner="w2")
        assert (files.sweep(), path.exists()) == (0, True)
        owner.kill()
        owner.wait(10)
    assert path.exists()
    assert (files.sweep(), path.exists()) == (1, False)


def test_file_caught_before_its_lock_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that catches a new file in the instant before it is locked costs its owner nothing but a second try."""
    real, caught = fcntl.flock, []

    def flock_after_a_sweep(file: object, operation: int) -> None:
        if not caught:
            caught.append(next(tmp_path.glob("w1.*")))
            caught[0].unlink()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_a_sweep)
    with PrivateFiles(tmp_path, owner="w1").hold() as (path, _):
        assert path != caught[0]
        assert path.is_file()


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:25 / /data rw,relatime - btrfs /dev/vdb rw,subvol=/
24 22 0:26 / /data/my\\040disk rw shared:3 master:4 - xfs /dev/vdc rw
25 22 0:27 / /run rw - tmpfs tmpfs rw
26 22 0:28 / /image rw - overlay overlay rw
27 26 0:29 / /image rw - zfs pool rw
28 22 0:30 / /net rw - nfs4 host:/x rw
"""


@pytest.mark.parametrize(
    ("folder", "kind", "proves"),
    [
        ("/tmp/x", "ext4", "written over"),
        ("/database", "ext4", "written over"),
        ("/data/x", "btrfs", "nothing"),
        ("/data/my disk/x", "xfs", "written over"),
        ("/run/x/y", "tmpfs", "memory"),
        ("/image/x", "zfs", "nothing"),
        ("/net/x", "nfs4", "nothing is known"),
    ],
)
def test_overwriting_is_said_by_the_file_system(tmp_path: Path, folder: str, kind: str, proves: str) -> None:
    """The mount with the longest path that holds the folder decides, the last one of several on one point."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    found = overwriting_proves(Path(folder), mounts=mounts)
    assert found[0] == kind
    assert proves in found[1]


def test_overwriting_is_unknown_where_there_is_no_table(tmp_path: Path) -> None:
    """Off Linux nothing is claimed; on Linux this very folder has a file system."""
    assert overwriting_proves(tmp_path, mounts=tmp_path / "none")[0] == "unknown"
    if sys.platform == "linux":
        assert overwriting_proves(tmp_path)[0] != "unknown"
