"""The catalogue of sabotages: complete, well-formed, and each edit fits the tree of today."""

from __future__ import annotations

from pathlib import Path

import pytest

from readiness.judge.profile import load_profile
from readiness.sabotage.catalogue import CATALOGUE, NUMBERED, PROFILES, Sabotage, load_catalogue
from readiness.sabotage.tree import check_applies

TOP = Path(__file__).resolve().parent.parent.parent
SABOTAGES = load_catalogue(TOP / CATALOGUE)
# Beyond the sixty: what the authors of the checks tried to get past each other's.
MORE = load_catalogue(TOP / "tests" / "sabotage" / "more")
CLAIMS = {name: {claim.id for claim in load_profile(TOP, name).claims} for name in PROFILES}
# What the system is made of; only H1 to H4 break the examiner, and nothing breaks a check.
BREAKABLE = ("system/", "rules/", "dashboards/", "deploy/")
HARNESS = "harness/readiness/"


def test_all_sixty_are_there() -> None:
    """The sixty of the research's table, each once."""
    assert [sabotage.id for sabotage in SABOTAGES] == list(NUMBERED)
    assert len(NUMBERED) == 60


@pytest.mark.parametrize("sabotage", [*SABOTAGES, *MORE], ids=lambda sabotage: sabotage.id)
def test_each_fits_the_tree_and_expects_a_claim(sabotage: Sabotage) -> None:
    """Every edit's text stands exactly once in its file, and the profile that is run has the expected claim."""
    check_applies(sabotage, TOP)
    if not sabotage.of_the_harness:
        assert sabotage.claim in CLAIMS[sabotage.profile]
    allowed = (HARNESS,) if sabotage.of_the_harness else BREAKABLE
    assert all(edit.file.startswith(allowed) for edit in sabotage.edits)
    assert sabotage.of_the_harness is sabotage.id.startswith("H")
    assert sabotage.profile in PROFILES


def test_titles_tell_them_apart() -> None:
    """Two sabotages with one title would be one line in the report."""
    every = [*SABOTAGES, *MORE]
    assert len({sabotage.title for sabotage in every}) == len(every)
    assert len({sabotage.id for sabotage in every}) == len(every)
