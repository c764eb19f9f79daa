"""The copy that is broken and mended, and the catalogue's files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from readiness.errors import BadInput, HarnessFailure
from readiness.sabotage.catalogue import Edit, Sabotage, choose, load_catalogue, parse_sabotage
from readiness.sabotage.tree import ROOMS, Tree, check_applies, require_checkout

GOOD = """\
id: R1
title: backoff doubled
symptom: delays 2, 10, 50
expect: {claim: C1.backoff, reason: "expected .*1"}
edits:
  - {file: system/retry.py, old: "base * 5", new: "base * 25"}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The smallest folder that counts as a checkout."""
    top = tmp_path / "checkout"
    for room in ROOMS:
        (top / room / "__pycache__").mkdir(parents=True)
        (top / room / "__pycache__" / "old.pyc").write_bytes(b"compiled")
    (top / "reports" / "runs").mkdir(parents=True)
    (top / "reports" / "slo").mkdir()
    (top / "reports" / "slo" / "ragworker.yaml").write_text("kind: SLO\n", encoding="utf-8")
    (top / "checks" / "faults").mkdir()
    (top / "reports" / "scorecard.yaml").write_text("version: 1\n", encoding="utf-8")
    (top / "system" / "retry.py").write_text("delay = base * 5 ** (retry - 1)\ncap = 125\n", encoding="utf-8")
    return top


def sabotage(*edits: Edit) -> Sabotage:
    return Sabotage("R1", "t", "s", "C1.backoff", re.compile("x"), "quick", edits)


def test_a_sabotage_is_put_in_and_taken_back(checkout: Path, tmp_path: Path) -> None:
    """Several edits of one file apply in turn; afterwards the copy is byte for byte the clean one."""
    tree = Tree.copy(checkout, tmp_path / "copy")
    assert not list(tree.path.rglob("*.pyc"))
    assert not (tree.path / "reports" / "runs").exists()
    # Whatever else the profile names travels with it.
    assert (tree.path / "reports" / "slo" / "ragworker.yaml").is_file()
    assert (tree.path / "checks" / "faults").is_dir()
    file = tree.path / "system" / "retry.py"
    clean_second = int(file.stat().st_mtime)
    broken = sabotage(Edit("system/retry.py", "* 5", "* 25"), Edit("system/retry.py", "* 25 **", "* 10 **"))
    tree.apply(broken)
    assert file.read_text(encoding="utf-8") == "delay = base * 10 ** (retry - 1)\ncap = 125\n"
    assert tree.digest() != tree.clean_digest
    broken_second = int(file.stat().st_mtime)
    tree.revert()
    assert tree.digest() == tree.clean_digest
    # Python tells compiled code of one state from that of another by whole seconds.
    assert len({clean_second, broken_second, int(file.stat().st_mtime)}) == 3
    assert "* 5" in (checkout / "system" / "retry.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (Edit("system/retry.py", "nowhere", "x"), "exactly once, got it 0 times"),
        (Edit("system/retry.py", "a", "x"), "exactly once, got it"),
        (Edit("system/gone.py", "a", "x"), "expected a file to edit"),
    ],
)
def test_an_edit_that_does_not_fit_changes_nothing(
    checkout: Path, tmp_path: Path, edit: Edit, complaint: str
) -> None:
    """Text that is not there exactly once is a mistake in the catalogue; earlier edits are not left behind."""
    tree = Tree.copy(checkout, tmp_path / "copy")
    broken = sabotage(Edit("system/retry.py", "cap = 125", "cap = 5"), edit)
    for attempt in (lambda: tree.apply(broken), lambda: check_applies(broken, checkout)):
        with pytest.raises(BadInput, match=complaint):
            attempt()
    assert tree.digest() == tree.clean_digest


def test_a_copy_that_a_run_wrote_into_is_noticed(checkout: Path, tmp_path: Path) -> None:
    """Whatever is left in the copy would falsify the next trial."""
    tree = Tree.copy(checkout, tmp_path / "copy")
    tree.apply(sabotage(Edit("system/retry.py", "cap = 125", "cap = 5")))
    (tree.path / "rules" / "left.yml").write_text("x", encoding="utf-8")
    with pytest.raises(HarnessFailure, match="written into it"):
        tree.revert()


def test_a_wheel_is_told_that_a_checkout_is_needed(tmp_path: Path) -> None:
    """Without the system's source there is nothing to break; the message says what to do."""
    (tmp_path / "checks").mkdir()
    with pytest.raises(BadInput, match=r"expected a checkout .*system.*is missing.*--root"):
        require_checkout(tmp_path)


def test_a_sabotage_is_read() -> None:
    """The file of the contract becomes a value; the profile is quick unless said."""
    found = parse_sabotage(GOOD.encode(), file="R1.yaml")
    assert (found.id, found.claim, found.profile, found.of_the_harness) == (
        "R1",
        "C1.backoff",
        "quick",
        False,
    )
    assert found.reason.search("EXPECTED a delay of 1 s")
    assert found.edits == (Edit("system/retry.py", "base * 5", "base * 25"),)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("id: R1", "id: retry", r"R1.yaml:1: id: expected an id like R1"),
        ("title: backoff doubled\n", "", "expected the key 'title'"),
        ("expected .*1", "(", "expected a regular expression"),
        ("expected .*1", ".*", "does not match everything"),
        ("system/retry.py", "../retry.py", "expected a path from the top"),
        ("system/retry.py", "/etc/passwd", "expected a path from the top"),
        ("base * 25", "base * 5", "changes nothing is no sabotage"),
        ("edits:\n", "profile: slow\nedits:\n", "profile: expected a profile"),
        ("symptom:", "symptoms:", "unknown key 'symptoms'"),
    ],
)
def test_a_mistake_in_the_catalogue_is_named(old: str, new: str, complaint: str) -> None:
    """File, line and key; never a traceback."""
    with pytest.raises(BadInput, match=complaint):
        parse_sabotage(GOOD.replace(old, new).encode(), file="R1.yaml")


def test_choosing_names_what_is_not_there(tmp_path: Path) -> None:
    """Ids and claims that nobody knows are bad input; file names and ids agree."""
    (tmp_path / "R1.yaml").write_text(GOOD, encoding="utf-8")
    catalogue = load_catalogue(tmp_path)
    assert choose(catalogue, ["R1"], claim="C1.backoff") == catalogue
    for ids, claim in ((["R9"], ""), ([], "C2.limit")):
        with pytest.raises(BadInput, match=r"no (such id|sabotage expects it)"):
            choose(catalogue, ids, claim=claim)
    (tmp_path / "R2.yaml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(BadInput, match="Rename one"):
        load_catalogue(tmp_path)
    with pytest.raises(BadInput, match="got none"):
        load_catalogue(tmp_path / "empty")
