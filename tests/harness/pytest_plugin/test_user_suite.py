"""A repository that knows nothing of ours: `pytest --readiness` makes a scorecard of its marked tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from readiness.cli import main
from readiness.cli.init import SCORECARD
from readiness.evidence.verify import verify_run

pytest_plugins = ["pytester"]

SUITE = """
import pytest

@pytest.mark.claim("A.done")
def test_done(evidence):
    evidence.trials({jobs}, {lost}, "jobs", examples=["job 7"] * {lost})
    assert not {lost}, "{lost} jobs lost"

@pytest.mark.claim("A.p95")
@pytest.mark.parametrize("number", range(59))
def test_fast(evidence, number):
    with evidence.duration("one job"):
        pass

{more}
"""


@pytest.fixture
def repository(pytester: pytest.Pytester) -> Path:
    """An unrelated repository with a scorecard and a suite whose claims hold."""
    assert main(["init", str(pytester.path)]) == 0
    pytester.makepyfile(test_jobs=SUITE.format(jobs=100, lost=0, more=""))
    return pytester.path


def card(repository: Path) -> dict[str, Any]:
    """The newest run's scorecard."""
    found: dict[str, Any] = json.loads((repository / "reports/latest/scorecard.json").read_text("utf-8"))
    return found


def verdicts(repository: Path) -> dict[str, str]:
    """Verdicts of the newest run by claim."""
    return {claim["id"]: claim["verdict"] for claim in card(repository)["claims"]}


@pytest.mark.parametrize("processes", ["0", "2"])
def test_marked_tests_earn_a_scorecard(
    pytester: pytest.Pytester, repository: Path, *, processes: str
) -> None:
    """One run folder that verifies, with and without xdist; what no test claims is not run."""
    result = pytester.runpytest_subprocess("--readiness", "-n", processes)
    assert result.ret == 0
    assert verdicts(repository) == {"A.done": "PROVEN", "A.p95": "PROVEN", "E.metrics": "NOT_RUN"}
    result.stdout.fnmatch_lines(["*Durability*100 proven*", "*2 of 3 claims proven*"])
    assert not verify_run((repository / "reports/latest").resolve())
    assert (repository / "reports/latest/index.html").is_file()
    assert len(list((repository / "reports/runs").iterdir())) == 1


def test_a_failed_claim_is_the_session_s_exit_status(pytester: pytest.Pytester, repository: Path) -> None:
    """A test that passes while its evidence says otherwise fails the session, and the report names the example."""
    suite = SUITE.format(jobs=100, lost=1, more="").replace('assert not 1, "1 jobs lost"', "")
    pytester.makepyfile(test_jobs=suite)
    result = pytester.runpytest_subprocess("--readiness")
    assert verdicts(repository)["A.done"] == "FAILED"
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*FAILED*A.done*", "*repeat*pytest --readiness --readiness-seed=*"])


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ("@pytest.mark.skip(reason='no metrics')", "NOT_RUN"),
        ("@pytest.mark.xfail(reason='known')", "NOT_RUN"),
        ("@pytest.mark.usefixtures('nothing_of_that_name')", "NOT_RUN"),
        ("@pytest.mark.slow", "NOT_RUN"),
        ("@pytest.mark.other", "PROVEN"),
    ],
)
def test_what_did_not_run_earns_nothing(
    pytester: pytest.Pytester, repository: Path, *, more: str, verdict: str
) -> None:
    """Skipped, expected to fail, broken set-up, deselected: none of them proves a claim."""
    body = "    evidence.cases(3)\n    assert 'xfail' not in " + repr(more)
    pytester.makepyfile(
        test_more=f"import pytest\n{more}\n@pytest.mark.claim('E.metrics')\ndef test_it(evidence):\n{body}\n"
    )
    pytester.runpytest_subprocess("--readiness", "-m", "not slow")
    assert verdicts(repository)["E.metrics"] == verdict


def test_one_claim_again(pytester: pytest.Pytester, repository: Path) -> None:
    """--claim leaves the others out and says so; an unknown one is named before anything is written."""
    assert pytester.runpytest_subprocess("--readiness", "--claim", "A.done").ret == 0
    assert verdicts(repository)["A.p95"] == "NOT_RUN"
    wrong = pytester.runpytest_subprocess("--readiness", "--claim", "A.dune")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.fnmatch_lines(["*--claim A.dune: the scorecard has no such claim. It has: A.done, *"])
    assert len(list((repository / "reports/runs").iterdir())) == 1


def test_without_the_option_the_suite_is_any_suite(pytester: pytest.Pytester, repository: Path) -> None:
    """Marked tests run and pass, impossible figures still fail, and nothing is written."""
    pytester.makepyfile(
        test_more="""
        import pytest

        @pytest.mark.claim("E.metrics")
        def test_impossible(evidence):
            evidence.cases(1, failures=2)
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=60, failed=1)
    assert not (repository / "reports/runs").exists()


def test_without_a_scorecard_it_says_what_to_do(pytester: pytest.Pytester) -> None:
    """One line that names the file and the command that writes it."""
    result = pytester.runpytest_subprocess("--readiness")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*scorecard.yaml: expected the scorecard*`readiness init` writes one*"])


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--dry-run writes nothing; a second call leaves the first one's file alone and says so."""
    assert main(["init", str(tmp_path), "--dry-run"]) == 0
    assert not list(tmp_path.iterdir())
    assert main(["init", str(tmp_path)]) == 0
    (tmp_path / "reports/scorecard.yaml").write_text(SCORECARD + "# mine\n", encoding="utf-8")
    assert main(["init", str(tmp_path)]) == 4
    assert "there is a scorecard already" in capsys.readouterr().err
    assert (tmp_path / "reports/scorecard.yaml").read_text(encoding="utf-8").endswith("# mine\n")
