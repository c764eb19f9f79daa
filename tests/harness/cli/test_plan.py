"""The plan keeps what repeats a run, and no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from readiness.plan import Choices, create_run_dir, make_plan

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("redis://:hush@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
        ("--redis=rediss://user:hush@host/1", "--redis=rediss://user:***@host/1"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("A5.kill", "A5.kill"),
    ],
)
def test_passwords_of_the_command_line_are_not_kept(tmp_path: Path, word: str, kept: str) -> None:
    """A Redis URL stands in plan.json, scorecard and page without its password."""
    choices = Choices(root=REPOSITORY, reports=tmp_path, redis="fakeredis", seed=1)
    plan = make_plan(choices, argv=("readiness", "run", word))
    run_dir = create_run_dir(plan)
    assert json.loads((run_dir / "plan.json").read_text(encoding="utf-8"))["argv"][-1] == kept
    assert plan.argv[-1] == kept
    assert all("hush" not in path.read_text(encoding="utf-8") for path in run_dir.rglob("*.json"))
