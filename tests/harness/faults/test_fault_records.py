"""What a fault leaves: its history, its result, and the evidence of the step."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from readiness.errors import HarnessFailure
from readiness.evidence import read_all
from readiness.faults.history import KINDS, End, History, Note, Story, Submit, read_story
from readiness.faults.result import Played
from readiness.faults.scenario import load_scenarios
from readiness.faults.step import (
    FAULT_CLAIMS,
    LEDGER,
    LOST_CLAIM,
    ONCE_CLAIM,
    RECOVERY_CLAIM,
    SURVIVED_CLAIM,
    FaultPlan,
    summary,
    write_evidence,
)
from readiness.judge.observations import observe

SURVIVED = Played(
    name="kill_worker",
    title_en="A worker dies",
    title_ko="워커 종료",
    row=1,
    seed=7,
    outcome="survived",
    acts=({"act": "kill_worker", "times": 1},),
    active=("killed",),
    healed=("up",),
    submitted=41,
    acknowledged=40,
    recovery_seconds=4.2,
    recovery_limit_seconds=15,
    injected_ms=1000,
    healed_ms=2000,
    recovered_ms=6200,
)
FAILED = Played(
    name="freeze_worker",
    title_en="A worker sleeps",
    title_ko="워커 정지",
    row=4,
    seed=7,
    outcome="failed",
    reason="repeated: job-1: 2 effects",
    acknowledged=30,
    submitted=30,
    lost=1,
    lost_jobs=("job-2: gone",),
    repeated=2,
    repeated_jobs=("job-1: 2 effects", "job-3: 2 effects"),
    recovery_seconds=None,
    recovery_limit_seconds=10,
    injected_ms=1000,
    healed_ms=2000,
    violations=("repeated: job-1: 2 effects",),
)
NOT_RUN = Played("dns", "No names", "이름 해석 실패", 19, 7, "not_run", reason="needs namespaces")
ERROR = Played("stall", "Redis stalls", "Redis 정지", 8, 7, "error", reason="no PONG")
PLAN = FaultPlan(root=Path(), target="ragworker", seed=7, command="readiness run --profile release --seed 7")


def test_a_history_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Every kind of record, in order, from any number of threads."""
    history = History(tmp_path / "history.jsonl")
    end = End(5, "j", "done", 1, 2, 4, "", ((1, "claimed", "w"), (2, "done", "w")))
    history.add(Submit(1, "k", "acknowledged", "j", "durable", False, "d"))
    history.add(end)
    threads = [threading.Thread(target=history.note, args=("step",), kwargs={"n": n}) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history.harm(pid=3, seconds=2)
    history.close()
    read = read_story(history.path)
    assert read == history.story()
    assert read.ends == (end,)
    assert sorted(note.facts["n"] for note in read.notes) == list(range(20))
    assert read.harms[0].until_ms - read.harms[0].at_ms == 2000


def test_every_kind_has_a_shelf() -> None:
    """A story holds each kind of record that can be written."""
    assert len(KINDS) == len(Story.__slots__)  # type: ignore[attr-defined]  # slots=True makes them
    assert Story.of([Note(1, "x")]).notes == (Note(1, "x"),)


@pytest.mark.parametrize("line", ["{}", "nonsense", '{"kind": "submit"}', '{"kind": "wish", "at_ms": 1}'])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    """A cut or edited history is no evidence."""
    path = tmp_path / "history.jsonl"
    path.write_text(f'{{"kind": "note", "at_ms": 1, "what": "x"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(HarnessFailure, match=r"history\.jsonl:2"):
        read_story(path)


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """The line of the ledger, through its file."""
    for played in (SURVIVED, FAILED, NOT_RUN):
        played.write(tmp_path)
        assert Played.read(tmp_path) == played
    with pytest.raises(HarnessFailure, match="expected the result of a fault"):
        Played.read(tmp_path / "nowhere")


def test_the_verdict_has_its_figures() -> None:
    """One line a person can act on."""
    assert SURVIVED.verdict == (
        "kill_worker: survived: 40 jobs acknowledged of 41 submitted, 0 lost, 0 repeated, recovered in 4.2 s"
        " (at most 15 s)"
    )
    assert "recovered in never" in FAILED.verdict
    assert FAILED.verdict.endswith("1 violations, first: repeated: job-1: 2 effects")
    assert NOT_RUN.verdict == "dns: not run: needs namespaces"
    line = "faults: 1 of 3 survived, 1 not run; 70 jobs, 1 lost, 2 repeated, the slowest recovery 4.2 s"
    assert summary([SURVIVED, FAILED, NOT_RUN]) == line


def test_evidence_counts_what_was_proven_active_only(tmp_path: Path) -> None:
    """A fault that was not run is in the ledger and in no figure; a failed one fails every claim it concerns."""
    write_evidence(PLAN, tmp_path, [SURVIVED, FAILED, NOT_RUN], seconds=3)
    files = read_all(tmp_path)
    seen = {claim: observe(files[claim].records, claim=claim, unit="s") for claim in FAULT_CLAIMS}
    assert all(one.problem == "" for one in seen.values())
    assert (seen[SURVIVED_CLAIM].cases, seen[SURVIVED_CLAIM].case_failures) == (2, 1)
    assert (seen[LOST_CLAIM].trials, seen[LOST_CLAIM].trial_failures) == (70, 1)
    assert (seen[ONCE_CLAIM].trials, seen[ONCE_CLAIM].trial_failures) == (70, 2)
    assert seen[RECOVERY_CLAIM].values == (4.2,)
    assert (seen[RECOVERY_CLAIM].cases, seen[RECOVERY_CLAIM].case_failures) == (2, 1)
    assert [one.outcome for one in seen[SURVIVED_CLAIM].outcomes] == ["failed"]
    assert {one.outcome for claim in FAULT_CLAIMS[1:] for one in seen[claim].outcomes} == {"passed"}
    ledger = [record.data[LEDGER] for record in files[SURVIVED_CLAIM].records if LEDGER in record.data]
    assert [line["name"] for line in ledger[0]] == ["kill_worker", "freeze_worker", "dns"]  # type: ignore[union-attr, index]  # JSON of our own


def test_a_fault_that_could_not_be_played_proves_no_claim(tmp_path: Path) -> None:
    """Silence of the harness is an error of the step, for every claim."""
    write_evidence(PLAN, tmp_path, [SURVIVED, ERROR], seconds=3)
    for claim, file in read_all(tmp_path).items():
        outcomes = observe(file.records, claim=claim, unit="s").outcomes
        assert [one.outcome for one in outcomes] == ["error"], claim
        assert "no PONG" in outcomes[0].reason


def test_a_fault_that_was_not_proven_leaves_the_claim_about_faults_open(tmp_path: Path) -> None:
    """What the others showed of jobs still counts; that every fault was survived does not."""
    unproven = replace(NOT_RUN, outcome="unproven")
    write_evidence(PLAN, tmp_path, [SURVIVED, unproven], seconds=3)
    outcomes = {
        claim: observe(file.records, claim=claim, unit="s").outcomes[0].outcome
        for claim, file in read_all(tmp_path).items()
    }
    assert outcomes.pop(SURVIVED_CLAIM) == "error"
    assert set(outcomes.values()) == {"passed"}


def test_without_scenarios_nothing_is_claimed(tmp_path: Path) -> None:
    """An empty folder is skipped, never passed."""
    write_evidence(PLAN, tmp_path, [], seconds=0)
    outcomes = [
        outcome
        for claim, file in read_all(tmp_path).items()
        for outcome in observe(file.records, claim=claim, unit="s").outcomes
    ]
    assert len(outcomes) == len(FAULT_CLAIMS)
    assert {one.outcome for one in outcomes} == {"skipped"}


def test_each_history_is_attached_under_the_name_of_its_fault(tmp_path: Path) -> None:
    """An auditor finds what was seen."""
    history = tmp_path / "faults" / "kill_worker" / "history.jsonl"
    history.parent.mkdir(parents=True)
    history.write_text(json.dumps({"kind": "note", "at_ms": 1, "what": "x"}) + "\n", encoding="utf-8")
    played = replace(SURVIVED, history="faults/kill_worker/history.jsonl")
    write_evidence(PLAN, tmp_path, [played], seconds=1)
    assert (tmp_path / "evidence" / "raw" / "fault-kill_worker.jsonl").read_bytes() == history.read_bytes()


def test_scenarios_have_seeds_of_their_own() -> None:
    """From the run's seed, the same every time."""
    scenarios = load_scenarios(Path(__file__).resolve().parents[3])
    seeds = [PLAN.seed_of(one) for one in scenarios]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [PLAN.seed_of(one) for one in scenarios]
