"""`readiness plan` says beforehand what a run can prove."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from harness.sample_run import write_json
from harness.sample_scorecard import proven_scorecard

from readiness.cli import main
from readiness.judge.profile import load_profile
from readiness.planning import LAST_RUN, outlooks
from readiness.root import find_root

ROOT = find_root().path


def test_short_runs_say_what_they_cannot_prove(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Twenty seconds never prove a day between failures; the last line says so, and the status is 0."""
    assert main(["plan", "--reports", str(tmp_path)]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("plan: ")
    assert "H8.mtbf" in last
    assert "H3.failure_rate" not in last


def test_a_chance_is_the_exact_one_for_the_planned_size(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """340 planned jobs prove fewer than 3 % when the truth is 1.5 % in 42 % of runs."""
    assert main(["plan", "--json", "--reports", str(tmp_path)]) == 0
    rows = {row["claim"]: row for row in json.loads(capsys.readouterr().out)}
    assert [claim.id for claim in load_profile(ROOT, "quick").claims] == list(rows)
    rate = rows["H3.failure_rate"]
    assert (rate["n"], rate["source"], rate["flawless"]) == (340, "profile", True)
    assert rate["proven"] == pytest.approx(0.42, abs=0.005)
    assert rows["A5.kill"]["notices"] == pytest.approx(0.0295, abs=1e-4)
    assert rows["H7.recovery"]["n"] == 20


def test_the_last_run_of_the_profile_says_how_much_there_will_be(tmp_path: Path) -> None:
    """Sizes that no knob decides, and how alike they were, come from the last run of this profile, and of no other."""
    profile = load_profile(ROOT, "quick")
    card = proven_scorecard()
    claims = tuple(
        replace(one, n=700, n_eff=140, runs=1) if one.id == "H6.api_p95" else one for one in card.claims
    )
    run = replace(card.run, profile_hash=profile.content_hash, argv=("readiness", "run"))
    folder = tmp_path / "20261123T160000Z-quick-0001"
    folder.mkdir()
    write_json(folder / "scorecard.json", replace(card, run=run, claims=claims))
    found = {one.claim: one for one in outlooks(profile, tmp_path)}["H6.api_p95"]
    assert (found.n, found.n_eff, found.source) == (700, 140, LAST_RUN)
    write_json(
        folder / "scorecard.json", replace(card, run=replace(run, profile_hash="0" * 64), claims=claims)
    )
    assert {one.claim: one for one in outlooks(profile, tmp_path)}["H6.api_p95"].source != LAST_RUN
