"""Every id of the specification is a claim's, and every claim is of the specification."""

from __future__ import annotations

import re

import pytest
from harness.sample_scorecard import ROOT

from readiness.judge.profile import load_profile, profile_names
from readiness.judge.profile_model import Claim

DOCUMENT = (ROOT / "docs" / "specification.md").read_text(encoding="utf-8")
IDS = re.findall(r"^\| ([A-K]\d*b?) \|", DOCUMENT, flags=re.MULTILINE)
CLAIMS: dict[str, Claim] = {
    claim.id: claim for name in profile_names(ROOT) for claim in load_profile(ROOT, name).claims
}


def test_the_specification_has_its_ids() -> None:
    """The list is whole: eleven chapters, each id once."""
    assert len(IDS) == 63
    assert len(set(IDS)) == len(IDS)
    assert {name[0] for name in IDS} == set("ABCDEFGHIJK")


@pytest.mark.parametrize("name", IDS)
def test_each_id_is_mapped_to_a_claim(name: str) -> None:
    """At least one claim of some profile says that it is evidence for this id."""
    assert [claim.id for claim in CLAIMS.values() if name in claim.spec], f"no claim has {name} in its `spec`"


def test_claims_name_ids_that_exist() -> None:
    """No claim is evidence for an id that the specification does not have."""
    assert {claim.id: claim.spec for claim in CLAIMS.values() if not set(claim.spec) <= set(IDS)} == {}
