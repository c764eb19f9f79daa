"""The plugin gives each claim the outcome that its check had, and never a pass for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from readiness.evidence import read_claim

pytest_plugins = ["pytester"]

CLAIMS = ("A.one", "A.two", "B.one")
# One test of every kind that pytest knows; the name says what its claim has to be told.
CHECKS = """
import pytest
from readiness.errors import HarnessFailure

@pytest.fixture
def broken_setup():
    raise RuntimeError("no stack")

@pytest.fixture
def broken_teardown():
    yield
    raise RuntimeError("left a process behind")

@pytest.mark.claim("A.one")
def test_it(evidence{fixtures}):
    {body}
"""


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder as `readiness run` leaves it before the checks start."""
    folder = tmp_path / "run"
    folder.mkdir()
    plan = {"seed": 8231, "profile": "quick", "target": "ragworker", "knobs": {"kills": 3}}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    profile = {"claims": [{"id": claim} for claim in CLAIMS]}
    (folder / "profile.json").write_text(json.dumps(profile), encoding="utf-8")
    monkeypatch.setenv("READINESS_RUN", str(folder))
    return folder


def outcomes(folder: Path, claim: str = "A.one") -> list[dict[str, Any]]:
    """The outcome records of a claim, oldest first."""
    return [dict(record.data) for record in read_claim(folder, claim) if record.kind == "outcome"]


@pytest.mark.parametrize(
    ("body", "fixtures", "outcome", "reason"),
    [
        ("evidence.cases(1)", "", "passed", ""),
        ("evidence.cases(1, 1); assert 2 + 2 == 5, 'arithmetic'", "", "failed", "arithmetic"),
        ("evidence.cases(1); raise ValueError('surprise')", "", "failed", "ValueError: surprise"),
        ("pytest.skip('needs prometheus')", "", "skipped", "needs prometheus"),
        ("pytest.xfail('known bug 12')", "", "xfailed", "known bug 12"),
        ("evidence.cases(1)", ", broken_setup", "error", "no stack"),
        ("evidence.cases(1)", ", broken_teardown", "error", "left a process behind"),
        ("evidence.cases(1); assert False, 'lost'", ", broken_teardown", "failed", "lost"),
        ("raise HarnessFailure('the simulator died')", "", "error", "the simulator died"),
        ("pass", "", "error", "recorded no measurement for A.one"),
        ("evidence.trials(0, 0, 'jobs')", "", "error", "recorded no measurement for A.one"),
        ("evidence.samples([], 's', 'nothing')", "", "error", "recorded no measurement for A.one"),
        ("evidence.exposure(0)", "", "error", "recorded no measurement for A.one"),
        ("evidence.facts(seen=1)", "", "error", "recorded no measurement for A.one"),
    ],
)
def test_each_end_of_a_check_is_told_to_its_claim(
    pytester: pytest.Pytester, run_folder: Path, *, body: str, fixtures: str, outcome: str, reason: str
) -> None:
    """Passing, failing, skipped, expected failures and broken checks leave the record that says so, once."""
    pytester.makepyfile(test_check=CHECKS.format(body=body, fixtures=fixtures))
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    [record] = outcomes(run_folder)
    assert record["outcome"] == outcome
    assert reason in record["reason"]
    assert record["duration_seconds"] >= 0


def test_an_unexpected_pass_is_no_pass(pytester: pytest.Pytester, run_folder: Path) -> None:
    """A check that is expected to fail and passes is xfailed, and failed when it is strict about it."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.xfail(reason="known bug 12")
        @pytest.mark.claim("A.one")
        def test_loose(evidence):
            evidence.cases(1)

        @pytest.mark.xfail(reason="known bug 12", strict=True)
        @pytest.mark.claim("A.two")
        def test_strict(evidence):
            evidence.cases(1)
        """
    )
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    assert [one["outcome"] for one in outcomes(run_folder)] == ["xfailed"]
    assert [one["outcome"] for one in outcomes(run_folder, "A.two")] == ["failed"]


def test_a_claim_that_the_profile_does_not_have_is_an_error(
    pytester: pytest.Pytester, run_folder: Path
) -> None:
    """A misspelt id stops its test before it starts, names the nearest id, and is written nowhere."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.claim("A.one", "A.tvo")
        def test_it(evidence):
            evidence.cases(1, claim="A.one")
            raise AssertionError("must not run")
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*claim 'A.tvo'*did you mean 'A.two'*"])
    assert [one["outcome"] for one in outcomes(run_folder)] == ["error"]
    assert not (run_folder / "evidence" / "A.tvo.jsonl").exists()


def test_each_of_several_claims_needs_its_own_measurement(
    pytester: pytest.Pytester, run_folder: Path
) -> None:
    """A check with two claims that measures only one is an error for both: half a proof is none."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.claim("A.one", "B.one")
        def test_it(evidence):
            evidence.cases(3, claim="A.one")
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(failed=1)
    for claim in ("A.one", "B.one"):
        [record] = outcomes(run_folder, claim)
        assert record["outcome"] == "error"
        assert "no measurement for B.one" in record["reason"]


def test_a_failure_prints_seed_and_repeat_command(pytester: pytest.Pytester, run_folder: Path) -> None:
    """Whoever reads the log of a failed check can repeat it with the same seed."""
    pytester.makepyfile(test_check=CHECKS.format(body="assert not 1", fixtures=""))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.stdout.fnmatch_lines(["seed 8231; repeat: readiness run --profile quick --only A.one --seed 8231"])


def test_outside_of_a_run_what_needs_its_stack_is_skipped(
    pytester: pytest.Pytester, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without READINESS_RUN no check reaches for a target, and the reason says how to run it; other tests do run."""
    monkeypatch.delenv("READINESS_RUN")
    pytester.makepyfile(
        test_check=CHECKS.format(body="raise AssertionError('must not run')", fixtures=", stack"),
        test_plain="def test_plain(): pass",
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-rs")
    result.assert_outcomes(skipped=1, passed=1)
    result.stdout.fnmatch_lines(["*run them through readiness run*"])
    assert not (run_folder / "evidence").exists()


def test_a_missing_run_folder_is_one_clear_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A READINESS_RUN that is no run folder stops the session with a sentence, not with a traceback."""
    monkeypatch.setenv("READINESS_RUN", "nowhere")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*READINESS_RUN: expected a run folder, got: nowhere*"])
    result.stderr.no_fnmatch_line("*Traceback*")


def test_claim_option_selects_checks(pytester: pytest.Pytester, run_folder: Path) -> None:
    """--claim runs the checks of that claim and no other."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.claim("A.one")
        def test_one(evidence):
            evidence.cases(1)

        @pytest.mark.claim("A.two")
        def test_two(evidence):
            evidence.cases(1)

        def test_without_a_claim():
            pass
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", "--claim", "A.two")
    result.assert_outcomes(passed=1, deselected=2)
    assert outcomes(run_folder) == []
    assert [one["outcome"] for one in outcomes(run_folder, "A.two")] == ["passed"]


def test_two_processes_write_each_outcome_once(pytester: pytest.Pytester, run_folder: Path) -> None:
    """Under xdist measurements come from the workers and each outcome once from the controller, also for a
    crash.
    """
    pytester.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.claim("A.one")
        @pytest.mark.parametrize("number", range(6))
        def test_many(evidence, number):
            evidence.trials(10, 0, "jobs")

        @pytest.mark.claim("A.two")
        @pytest.mark.xdist_group("shared")
        def test_crash(evidence):
            evidence.cases(1)
            os._exit(1)
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup")
    records = read_claim(run_folder, "A.one")
    assert [one["outcome"] for one in outcomes(run_folder)] == ["passed"] * 6
    assert sum(1 for record in records if record.kind == "trials") == 6
    [crashed] = outcomes(run_folder, "A.two")
    assert crashed["outcome"] == "error"
    assert "crashed" in crashed["reason"]


def test_checks_of_the_main_lane_share_one_process(pytester: pytest.Pytester, run_folder: Path) -> None:
    """Tests that look at the ingested corpus are put in one xdist group, so that it is ingested once."""
    pytester.makeconftest(
        """
        import os
        import pytest

        @pytest.fixture(scope="session")
        def main_lane():
            return os.environ["PYTEST_XDIST_WORKER"]

        @pytest.fixture(scope="session")
        def ingested(main_lane):
            return main_lane
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.claim("A.one")
        @pytest.mark.parametrize("number", range(8))
        def test_many(ingested, evidence, number):
            evidence.cases(1)
            evidence.facts(process=ingested)
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup")
    records = read_claim(run_folder, "A.one")
    processes = {record.data["process"] for record in records if record.kind == "facts"}
    assert len(processes) == 1
    checks = {record.check for record in records if record.kind == "outcome"}
    assert len(checks) == 8
    assert all(check and "@" not in check for check in checks)
