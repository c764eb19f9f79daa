"""A campaign over made-up runs: clean first, each defect on its own, everything taken back, interrupts obeyed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from readiness.errors import HarnessFailure, Interrupted
from readiness.judge.profile import load_profile
from readiness.sabotage import campaign
from readiness.sabotage.campaign import Bench, quick_checks, run_campaign
from readiness.sabotage.catalogue import Edit, Sabotage
from readiness.sabotage.judging import Outcome
from readiness.sabotage.tree import ROOMS, Tree
from readiness.sabotage.trial import Seen

TOP = Path(__file__).resolve().parent.parent.parent.parent
CLAIMS = ("C1.backoff", "A5.kill")


def defect(name: str, claim: str = "C1.backoff", new: str = "broken") -> Sabotage:
    edit = Edit("system/part.py", f"{name} = fine", f"{name} = {new}")
    return Sabotage(name, name, "s", claim, re.compile("is broken"), "quick", (edit,))


DEFECTS = tuple(defect(name, CLAIMS[number % 2]) for number, name in enumerate("ABCDEF"))


class Runs:
    """Stands in for `run_copy`: a claim fails when a line of the copy is broken, and says which."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[str, ...], str]] = []
        self.flaky_after_all = False
        self.lock = threading.Lock()

    def __call__(
        self, copy: Path, reports: Path, *, profile: str, only: Sequence[str], stop: threading.Event
    ) -> Seen:
        text = (copy / "system" / "part.py").read_text(encoding="utf-8")
        broken = [line for line in text.splitlines() if "broken" in line]
        with self.lock:
            self.seen.append((reports.name, tuple(only), ",".join(broken)))
        bad = bool(broken) or (self.flaky_after_all and "reverted" in reports.name)
        verdicts = dict.fromkeys(only, "FAILED" if bad else "PROVEN")
        return Seen(int(bad), verdicts, dict.fromkeys(only, f"{broken} is broken"), "", 0.1)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in = Runs()
    monkeypatch.setattr(campaign, "run_copy", stand_in)
    return stand_in


@pytest.fixture
def trees(tmp_path: Path) -> list[Tree]:
    """Two copies of a small checkout."""
    found = []
    for number in range(2):
        top = tmp_path / f"copy-{number}"
        for room in ROOMS:
            (top / room).mkdir(parents=True)
        text = "".join(f"{name} = fine\n" for name in "ABCDEF")
        (top / "system" / "part.py").write_text(text, encoding="utf-8")
        found.append(Tree(top))
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    profile = load_profile(TOP, "quick")
    return Bench(tmp_path / "work", {"quick": profile}, lambda kind, line: None, whole_on_miss=False)


def test_each_defect_meets_its_claim_alone(runs: Runs, trees: list[Tree], bench: Bench) -> None:
    """One clean run first, then each defect on an otherwise clean copy, at last each copy unbroken once more."""
    found = run_campaign(DEFECTS, trees, bench)
    assert [one.sabotage.id for one in found.judged] == list("ABCDEF")
    assert {one.outcome for one in found.judged} == {Outcome.KILLED}
    assert runs.seen[0] == ("001-clean-quick", CLAIMS, "")
    tried = [(only, broken) for name, only, broken in runs.seen if broken]
    assert sorted(tried) == sorted(((one.claim,), f"{one.id} = broken") for one in DEFECTS)
    assert sum("reverted" in name for name, _, _ in runs.seen) == 2
    assert (found.clean_runs, found.false_alarms) == (3, ())
    assert all(tree.digest() == tree.clean_digest for tree in trees)


def test_a_claim_that_fails_anyway_judges_nothing(runs: Runs, trees: list[Tree], bench: Bench) -> None:
    """Not on the clean copy, and not after everything was taken back: both are false alarms too."""
    part = trees[0].path / "system" / "part.py"
    clean = part.read_text(encoding="utf-8")
    part.write_text(clean + "Z = broken\n", encoding="utf-8")
    found = run_campaign(DEFECTS, [Tree(trees[0].path), trees[1]], bench)
    assert {one.outcome for one in found.judged} == {Outcome.NOT_JUDGED}
    assert len(runs.seen) == 1
    assert len(found.false_alarms) == 2
    part.write_text(clean, encoding="utf-8")
    runs.flaky_after_all = True
    found = run_campaign(DEFECTS[:2], trees[:1], bench)
    assert {one.outcome for one in found.judged} == {Outcome.NOT_JUDGED}
    assert all("after it was taken back" in one.reason for one in found.judged)


def test_clean_runs_leave_out_load_and_faults(runs: Runs, trees: list[Tree], bench: Bench) -> None:
    """The quick checks without the steps that take long; their runs add up."""
    found = run_campaign((), trees, bench, clean=5)
    assert found.clean_runs == 5
    only = runs.seen[0][1]
    assert only == quick_checks(load_profile(TOP, "quick"))
    assert "C1.backoff" in only
    assert not {"H1.job_p95", "H4.sse"} & set(only)


def test_one_failure_stops_everybody_and_is_the_one_told(
    trees: list[Tree], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A harness that fails in one thread ends the runs of the others; their interruption is not what is told."""

    def run(copy: Path, reports: Path, *, profile: str, only: Sequence[str], stop: threading.Event) -> Seen:
        if "clean" in reports.name:
            return Seen(0, dict.fromkeys(only, "PROVEN"))
        if reports.name.endswith("A"):
            raise HarnessFailure("disk full")
        if stop.wait(20):
            raise Interrupted
        raise AssertionError("nobody said stop")

    monkeypatch.setattr(campaign, "run_copy", run)
    began = time.monotonic()
    with pytest.raises(HarnessFailure, match="disk full"):
        run_campaign(DEFECTS, trees, bench)
    assert time.monotonic() - began < 10
    assert all(tree.digest() == tree.clean_digest for tree in trees)


def test_ctrl_c_ends_the_runs_and_takes_everything_back(
    trees: list[Tree], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt of the main thread reaches both runs; the copies are clean afterwards."""
    begun = threading.Barrier(3)

    def run(copy: Path, reports: Path, *, profile: str, only: Sequence[str], stop: threading.Event) -> Seen:
        if "clean" in reports.name:
            return Seen(0, dict.fromkeys(only, "PROVEN"))
        begun.wait(10)
        assert stop.wait(20)
        raise Interrupted

    def interrupted_wait(*args: object, **how: object) -> object:
        begun.wait(10)
        raise Interrupted

    monkeypatch.setattr(campaign, "run_copy", run)
    monkeypatch.setattr(campaign, "wait", interrupted_wait)
    with pytest.raises(Interrupted):
        run_campaign(DEFECTS, trees, bench)
    assert all(tree.digest() == tree.clean_digest for tree in trees)
