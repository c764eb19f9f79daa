"""The fault ledger: from the evidence of the fault step into every face of the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from harness.sample_scorecard import sample_scorecard

from readiness.evidence import read_all
from readiness.faults.result import Played
from readiness.faults.step import FaultPlan, write_evidence
from readiness.judge.ledger import FaultLine, read_ledger
from readiness.judge.model import Scorecard, Verdict
from readiness.render import render_html, render_json, render_markdown
from readiness.render.ledger import ledger_rows, ledger_sum

HOSTILE = "<script>alert(1)</script>"
PLAYED = [
    Played(
        name="kill_worker",
        title_en="A worker dies",
        title_ko="워커 종료",
        row=1,
        seed=7,
        outcome="survived",
        active=("3 workers killed with 9 jobs in hand",),
        healed=("2 workers are up",),
        acknowledged=1234,
        recovery_seconds=4.25,
        recovery_limit_seconds=15,
    ),
    Played("dns", "No names", "이름 해석 실패", 19, 7, "not_run", reason=f"needs namespaces {HOSTILE}"),
    Played(
        name="freeze_worker",
        title_en="A worker sleeps",
        title_ko="워커 정지",
        row=4,
        seed=7,
        outcome="failed",
        reason="repeated: job-1: 2 effects",
        acknowledged=30,
        repeated=1,
        recovery_limit_seconds=10,
    ),
]


def card_of(tmp_path: Path) -> Scorecard:
    """A scorecard with the ledger that the step wrote."""
    write_evidence(FaultPlan(Path(), "ragworker", 7, "readiness run"), tmp_path, PLAYED, seconds=1)
    return replace(sample_scorecard(), ledger=read_ledger(read_all(tmp_path)))


def test_the_ledger_is_read_from_the_evidence_of_the_step(tmp_path: Path) -> None:
    """Every line as it was written; a fault that was not run is in it by its reason."""
    lines = card_of(tmp_path).ledger
    assert [line.name for line in lines] == ["kill_worker", "dns", "freeze_worker"]
    assert lines[0] == FaultLine(
        name="kill_worker",
        title_en="A worker dies",
        title_ko="워커 종료",
        row=1,
        outcome="survived",
        reason="",
        proof="3 workers killed with 9 jobs in hand",
        healed="2 workers are up",
        jobs=1234,
        lost=0,
        repeated=0,
        recovery_seconds=4.25,
        limit_seconds=15,
        seed=7,
    )
    assert lines[1].reason.startswith("needs namespaces")
    assert read_ledger({}) == ()


def test_failures_come_first_and_what_was_not_run_has_no_figures(tmp_path: Path) -> None:
    """The engineer sees what broke; an empty cell is no zero."""
    rows = ledger_rows(card_of(tmp_path))
    assert [row.verdict for row in rows] == [Verdict.FAILED, Verdict.PROVEN, Verdict.NOT_RUN]
    assert (rows[0].recovered.en, rows[0].recovered.ko) == ("never (at most 10)", "복구 안 됨 (최대 10)")
    assert (rows[1].jobs, rows[1].recovered.en) == ("1,234", "4.2 (at most 15)")
    assert (rows[2].jobs, rows[2].lost, rows[2].recovered.en) == ("", "", "")


def test_the_sum_counts_faults_and_jobs(tmp_path: Path) -> None:
    """In both languages."""
    total = ledger_sum(card_of(tmp_path))
    assert total.en == (
        "3 faults planned, 2 proven active, 1 survived, 1 not run: 1,264 jobs acknowledged, 0 lost,"
        " 1 effects repeated."
    )
    assert "1,264" in total.ko


def test_page_json_and_markdown_have_the_ledger(tmp_path: Path) -> None:
    """One model, the same words; foreign text is harmless."""
    card = card_of(tmp_path)
    page = render_html(card, lang="en")
    assert 'id="fault-kill_worker"' in page
    assert "3 workers killed with 9 jobs in hand" in page
    assert HOSTILE not in page.replace(json.dumps(HOSTILE), "")
    markdown = render_markdown(card, lang="ko")
    assert "워커 정지" in markdown
    assert "장애 3건 계획" in markdown
    read = Scorecard.from_json(json.loads(render_json(card)))
    assert read.ledger == card.ledger


def test_without_a_fault_step_the_page_says_so() -> None:
    """No ledger is no empty table."""
    card = sample_scorecard()
    assert card.ledger == ()
    assert "No fault step ran" in render_html(card, lang="en")
    assert "Fault ledger" not in render_markdown(card, lang="en")
