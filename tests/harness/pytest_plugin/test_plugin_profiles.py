"""Checks of claims that the run's profile leaves out have nothing to do; the others go on as ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from readiness.errors import BadInput
from readiness.evidence import read_claim
from readiness.plan import Choices, make_plan

pytest_plugins = ["pytester"]

CHECKS = """
import pytest

@pytest.mark.claim("A.slow")
def test_only_elsewhere(evidence):
    raise AssertionError("must not run")

@pytest.mark.claim("A.slow", "A.one")
def test_both(evidence):
    evidence.cases(1, claim="A.slow")
    evidence.cases(1, claim="A.one")

@pytest.mark.claim("A.nosuch")
def test_of_no_profile(evidence):
    evidence.cases(1)
"""


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder whose profile has A.one and leaves A.slow to another profile."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "plan.json").write_text(
        json.dumps({"seed": 1, "profile": "quick", "knobs": {}}), encoding="utf-8"
    )
    profile = {"claims": [{"id": "A.one"}], "elsewhere": ["A.slow"]}
    (folder / "profile.json").write_text(json.dumps(profile), encoding="utf-8")
    monkeypatch.setenv("READINESS_RUN", str(folder))
    return folder


def test_a_check_of_another_profile_is_not_run(pytester: pytest.Pytester, run_folder: Path) -> None:
    """A check for claims elsewhere only is deselected, one for both records the profile's claim, one of no profile is
    an error."""
    pytester.makepyfile(test_check=CHECKS)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=1, errors=1, deselected=1)
    assert [record.kind for record in read_claim(run_folder, "A.one")] == ["cases", "outcome"]
    assert [record.kind for record in read_claim(run_folder, "A.slow") if record.kind == "outcome"] == []


def test_asking_for_a_claim_of_another_profile_says_where_it_is(tmp_path: Path, repository: Path) -> None:
    """`--only` with a claim that the profile leaves out names the profile and the flag, not a list of claims."""
    for room in ("checks", "loadtests", "rules", "dashboards", "reports"):
        (tmp_path / room).mkdir()
    source = (repository / "reports" / "scorecard.yaml").read_text(encoding="utf-8")
    head = "  H10.recount:\n    section: durable_worker\n"
    assert source.count(head) == 1
    changed = source.replace(head, head + "    profiles: [release]\n")
    (tmp_path / "reports" / "scorecard.yaml").write_text(changed, encoding="utf-8")
    shutil.copytree(repository / "reports" / "slo", tmp_path / "reports" / "slo")
    with pytest.raises(
        BadInput, match=r"--only H10\.recount: the profile quick leaves this claim out.*--profile"
    ):
        make_plan(Choices(root=tmp_path, only=("H10.recount",)), argv=())
