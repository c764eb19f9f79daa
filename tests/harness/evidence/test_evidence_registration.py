"""The profile was fixed before the run: one that was exchanged afterwards is found, even under a new seal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.sample_run import write_json, write_run

from readiness.evidence.sealing import seal
from readiness.evidence.verify import judge_run, verify_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run."""
    write_run(tmp_path / "run")
    return tmp_path / "run"


def reseal(run: Path) -> None:
    """What a forger does last: seal, judge and write the scorecard anew."""
    seal(run)
    write_json(run / "scorecard.json", judge_run(run))


def words(run: Path) -> str:
    return " | ".join(map(str, verify_run(run)))


def edit(run: Path, name: str, key: tuple[str, ...], value: object) -> None:
    path = run / name
    body = json.loads(path.read_text(encoding="utf-8"))
    place = body
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    path.write_text(json.dumps(body), encoding="utf-8")


def test_an_untouched_run_and_a_resealed_one_hold(run: Path) -> None:
    """The silent case."""
    assert words(run) == ""
    reseal(run)
    assert words(run) == ""


def test_a_profile_that_was_loosened_after_the_run_is_found(run: Path) -> None:
    """A weight or target in profile.json that is not the registered one is named, though seal and scorecard agree."""
    profile = json.loads((run / "profile.json").read_text(encoding="utf-8"))
    profile["claims"][0]["weight"] = 1
    write_json(run / "profile.json", profile)
    reseal(run)
    assert "profile.json: is not the profile that was registered before the run" in words(run)
    assert "plan.json says" in words(run)
    assert "context.json says" in words(run)


def test_a_plan_without_a_hash_registers_nothing(run: Path) -> None:
    """The hash in plan.json has to be there, and to be that one."""
    for value in (None, "0" * 64):
        edit(run, "plan.json", ("profile_hash",), value)
        reseal(run)
        assert "plan.json says" in words(run)


def test_the_profiles_title_is_not_registered(run: Path) -> None:
    """What does not change what a score means may be reworded."""
    edit(run, "profile.json", ("title", "en"), "Quick, reworded")
    reseal(run)
    assert words(run) == ""
