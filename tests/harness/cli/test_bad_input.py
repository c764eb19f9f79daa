"""What a person sees when the input cannot be used: one clear line, status 4, nothing started, nothing written."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from readiness.cli import main

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """A content root of its own: the repository's rooms, to be broken by the test."""
    root = tmp_path / "rooms"
    for room in ("checks", "loadtests", "rules", "dashboards"):
        shutil.copytree(REPOSITORY / room, root / room)
    (root / "reports").mkdir()
    shutil.copy(REPOSITORY / "reports" / "scorecard.yaml", root / "reports" / "scorecard.yaml")
    shutil.copytree(REPOSITORY / "reports" / "slo", root / "reports" / "slo")
    return root


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command, demand status 4 and a single line on stderr, and return that line."""
    try:
        status = main(list(words))
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr()
    assert status == 4, said.err
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    return lines[0]


def run_in(rooms: Path, *words: str) -> list[str]:
    """The words of a run on ``rooms``."""
    return ["run", "--root", str(rooms), *words]


def nothing_was_written(rooms: Path) -> bool:
    """True when the run left no run folder behind."""
    return not (rooms / "reports" / "runs").exists() and not (rooms / "reports" / "latest").exists()


def test_unknown_profile_names_the_known_ones(rooms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--profile nosuch` says which profiles there are."""
    line = refused(capsys, *run_in(rooms, "--profile", "nosuch"))
    assert "nosuch" in line
    assert "quick" in line
    assert "release" in line
    assert nothing_was_written(rooms)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("    weight: 4\n", "    weight: heavy\n", ("weight", "heavy")),
        ("    weight: 4\n", "    wieght: 4\n", ("wieght", "weight")),
        ("    weight: 4\n", "\tweight: 4\n", ("tab",)),
        ("version: 1\n", "version: [1\n", ("scorecard.yaml",)),
    ],
    ids=["wrong type", "unknown key", "tab", "unclosed list"],
)
def test_malformed_profile_names_file_and_line(
    rooms: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, named: tuple[str, ...]
) -> None:
    """A mistake in the YAML is named with its file and line, and what was expected."""
    file = rooms / "reports" / "scorecard.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    line_number = text[: text.index(old)].count("\n") + 1
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    line = refused(capsys, *run_in(rooms))
    assert "scorecard.yaml:" in line
    for word in named:
        assert word in line.lower()
    if "unclosed" not in new and new != "version: [1\n":
        assert f"scorecard.yaml:{line_number}" in line
    assert nothing_was_written(rooms)


@pytest.mark.parametrize(
    "content", ["", "just words", "- a\n- b\n", "\x00\x01"], ids=["empty", "text", "list", "binary"]
)
def test_a_file_that_is_no_profile(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """A YAML file that holds something else than a profile is refused by name."""
    file = tmp_path / "mine.yaml"
    file.write_text(content, encoding="utf-8")
    assert "mine.yaml" in refused(capsys, *run_in(rooms, "--profile", str(file)))
    assert nothing_was_written(rooms)


def test_missing_documents_folder(rooms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of documents that is not there is named."""
    assert "no-such-folder" in refused(capsys, *run_in(rooms, "--documents", "no-such-folder"))
    assert nothing_was_written(rooms)


def test_documents_folder_without_documents(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in which nothing can be ingested is refused, and the line says which files would do."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert ".pdf" in refused(capsys, *run_in(rooms, "--documents", str(empty)))


def test_root_without_the_rooms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A root that lacks a room is refused, and the line says which."""
    line = refused(capsys, "run", "--root", str(tmp_path))
    assert "checks" in line
    assert "scorecard.yaml" in line


def test_port_in_use(rooms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that somebody listens on is named before anything starts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(capsys, *run_in(rooms, "--api-port", str(port)))
    assert str(port) in line
    assert nothing_was_written(rooms)


def test_redis_that_refuses_connections(rooms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Redis URL where nobody answers is refused in one line, without its password, and leaves no run behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = refused(capsys, *run_in(rooms, "--redis", f"redis://:hush@127.0.0.1:{port}/0"))
    assert str(port) in line
    assert "hush" not in line
    assert nothing_was_written(rooms)


def test_unknown_redis_provider(rooms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A provider that does not exist is refused with the ones that do."""
    line = refused(capsys, *run_in(rooms, "--redis", "memcached"))
    assert "embedded" in line
    assert nothing_was_written(rooms)


def test_reports_folder_that_cannot_be_written(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reports folder that cannot be made (a file is in its place) is named, with the flag that helps."""
    blocked = tmp_path / "a-file"
    blocked.write_text("not a folder", encoding="utf-8")
    line = refused(capsys, *run_in(rooms, "--reports", str(blocked)))
    assert "--reports" in line


def test_unknown_claim(rooms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` with a claim that the profile lacks lists the claims."""
    assert "A5.kill" in refused(capsys, *run_in(rooms, "--only", "A5.nosuch"))
    assert nothing_was_written(rooms)


@pytest.mark.parametrize("words", [["run", "--nosuch"], ["nosuch"], ["verify"], ["run", "--seed", "x"]])
def test_usage_errors_are_status_4(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """A word that the command does not know is one line with status 4, not argparse's 2 (which means open)."""
    assert "--help" in refused(capsys, *words)


@pytest.mark.parametrize("verb", ["verify", "report"])
def test_a_run_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """A run that cannot be found, and a folder that is no run, are named."""
    assert "nowhere" in refused(capsys, verb, "nowhere")
    assert "plan.json" in refused(capsys, verb, str(tmp_path))
