"""Which files become documents, which are skipped with a reason, and which folders are refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from readiness import documents as module
from readiness.documents import Corpus, load_documents, printable
from readiness.errors import BadInput

SAMPLES = Path(__file__).resolve().parents[3] / "loadtests" / "samples"


def load(folder: Path) -> Corpus:
    return load_documents(folder, samples=SAMPLES)


def names(corpus: Corpus) -> list[str]:
    return [document.name for document in corpus.documents]


def reasons(corpus: Corpus) -> dict[str, str]:
    return dict(corpus.skipped)


def test_default_corpus_is_large_enough_and_the_same_each_time() -> None:
    """The locked environment gives at least 60 documents and 500 kB, twice the same in the same order."""
    corpus = load_documents(None, samples=SAMPLES)
    assert len(corpus.documents) >= 60
    assert corpus.total_bytes >= 500_000
    assert corpus == load_documents(None, samples=SAMPLES)
    assert len({document.content for document in corpus.documents}) == len(corpus.documents)
    assert all(document.content.strip() for document in corpus.documents)


def test_default_corpus_holds_every_format_in_both_languages() -> None:
    """Markdown and reStructuredText from distributions, HTML and PDF in English and Korean from the samples."""
    corpus = load_documents(None, samples=SAMPLES)
    assert {"text/markdown", "text/x-rst", "text/html", "application/pdf"} <= {
        d.media_type for d in corpus.documents
    }
    for ending in (".en.html", ".ko.html", ".en.pdf", ".ko.pdf"):
        assert any(name.endswith(ending) for name in names(corpus)), ending
    assert not any("sources" in name for name in names(corpus))


def test_default_corpus_without_samples_says_so(tmp_path: Path) -> None:
    """A content root without samples still gives the descriptions, and names what was missing."""
    corpus = load_documents(None, samples=tmp_path / "samples")
    assert len(corpus.documents) > 20
    assert "0 samples" in corpus.origin
    assert "no such folder" in reasons(corpus)["samples"]


def test_folder_gives_documents_by_ending_in_any_case_and_depth(tmp_path: Path) -> None:
    """All six endings count, in capitals too, at any depth, sorted folder by folder; others are skipped by name."""
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for name in (
        "Z.TXT",
        "a.md",
        "c.rst",
        "d.HtMl",
        "e.htm",
        "b/f.pdf",
        "b/deep/g.txt",
        "picture.png",
        "no_ending",
    ):
        (tmp_path / name).write_bytes(b"words")
    corpus = load(tmp_path)
    assert names(corpus) == ["Z.TXT", "a.md", "c.rst", "d.HtMl", "e.htm", "b/f.pdf", "b/deep/g.txt"]
    assert [d.media_type for d in corpus.documents[:4]] == [
        "text/plain",
        "text/markdown",
        "text/x-rst",
        "text/html",
    ]
    assert corpus.documents[5].path == tmp_path / "b" / "f.pdf"
    assert set(reasons(corpus)) == {"picture.png", "no_ending"}
    assert "not a .txt" in reasons(corpus)["picture.png"]


def test_hidden_empty_large_and_unusual_files_are_skipped_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be a document is named with its reason; a pipe is not opened, so nothing waits for ever."""
    monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 100)
    (tmp_path / "good.txt").write_bytes(b"x" * 100)
    (tmp_path / "large.txt").write_bytes(b"x" * 101)
    (tmp_path / "empty.txt").touch()
    (tmp_path / ".hidden.txt").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "inside.txt").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.txt").symlink_to(tmp_path / "itself.txt")
    corpus = load(tmp_path)
    assert names(corpus) == ["good.txt"]
    found = reasons(corpus)
    assert set(found) == {
        "large.txt",
        "empty.txt",
        ".hidden.txt",
        ".git",
        "pipe.txt",
        "dangling.txt",
        "itself.txt",
    }
    assert "above the bound" in found["large.txt"]
    assert found["empty.txt"] == "empty"
    assert found[".git"] == "hidden"
    assert found["pipe.txt"] == "not a regular file"
    assert found["dangling.txt"].startswith("cannot be read")
    assert found["itself.txt"].startswith("cannot be read")


def test_loops_of_links_end_and_each_folder_is_read_once(tmp_path: Path) -> None:
    """Links between folders are followed, but a folder is entered once, however many links lead to it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_bytes(b"x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    corpus = load(tmp_path)
    assert names(corpus) == ["a/one.txt"]
    assert reasons(corpus) == {
        "a/up": "a link to a folder that was read already",
        "b": "a link to a folder that was read already",
    }


@pytest.mark.parametrize(
    "name",
    [
        "two words.txt",
        "한글 문서.txt",
        "line\nbreak.txt",
        "tab\t.txt",
        "back\\slash.txt",
        'quote".txt',
        "\udcff.txt",
    ],
    ids=ascii,
)
def test_hostile_names_give_a_printable_name_and_the_true_path(tmp_path: Path, name: str) -> None:
    """Spaces, Korean, newlines, quotes and bytes that are no UTF-8: read from the true path, shown on one line."""
    (tmp_path / name).write_bytes(b"words")
    (document,) = load(tmp_path).documents
    assert document.name.isprintable()
    assert document.name.encode("utf-8")
    assert document.path is not None
    assert document.path.name == name
    assert document.content == b"words"


def test_printable_keeps_different_names_different() -> None:
    """Escaping is unambiguous: a newline and the two characters that stand for it do not become the same name."""
    assert printable("a\nb") != printable("a\\nb")
    assert printable("한글 é") == "한글 é"


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "only_others", "nul"])
def test_a_folder_that_gives_nothing_is_bad_input_in_one_line(tmp_path: Path, kind: str) -> None:
    """Missing, a file, empty, without a document: one line that says what was expected, what came, what to do."""
    folder = tmp_path / "docs"
    if kind == "file":
        folder.write_bytes(b"x")
    elif kind != "missing":
        folder.mkdir()
    if kind == "only_others":
        (folder / "picture.png").write_bytes(b"x")
    if kind == "nul":
        folder = Path(f"{folder}\0x")
    with pytest.raises(BadInput) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert "got" in message
    assert "documents folder" in message
    if kind == "only_others":
        assert "picture.png" in message


def test_an_unreadable_folder_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission is refused in one line (the refusal is staged: root may read everything)."""

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module.os, "scandir", refuse)
    with pytest.raises(BadInput, match=r"readable folder, got: Permission denied"):
        load(tmp_path)


def test_an_unreadable_file_and_subfolder_are_skipped_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder or file without permission does not hide the others (staged: root may read everything)."""
    (tmp_path / "good.txt").write_bytes(b"x")
    (tmp_path / "locked.txt").write_bytes(b"x")
    (tmp_path / "locked").mkdir()
    true_listdir, true_open = os.listdir, Path.open

    def listdir(path: Path) -> list[str]:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return true_listdir(path)

    def opened(self: Path, *args: object, **options: object) -> object:
        if self.name == "locked.txt":
            raise PermissionError(13, "Permission denied")
        return true_open(self, *args, **options)

    monkeypatch.setattr(module.os, "listdir", listdir)
    monkeypatch.setattr(Path, "open", opened)
    corpus = load(tmp_path)
    assert names(corpus) == ["good.txt"]
    assert reasons(corpus) == {
        "locked.txt": "cannot be read: Permission denied",
        "locked": "this folder cannot be read: Permission denied",
    }


def test_bounds_on_entries_and_total_size_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with too many entries is refused; documents beyond the total size are skipped by name."""
    for number in range(5):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * 10)
    monkeypatch.setattr(module, "MAX_CORPUS_BYTES", 35)
    corpus = load(tmp_path)
    assert names(corpus) == ["0.txt", "1.txt", "2.txt"]
    assert "fill the bound" in reasons(corpus)["3.txt"]
    monkeypatch.setattr(module, "MAX_ENTRIES", 4)
    with pytest.raises(BadInput, match="at most 4 entries"):
        load(tmp_path)
