"""Where the jobs of a queue are, read from its keys: everything in its place is nothing to tell, anything else is."""

from __future__ import annotations

import pytest

from readiness.targets.ragworker_keys import PLACES, Snapshot


@pytest.mark.parametrize(
    ("state", "place"), [(state, place) for state in PLACES for place in sorted(PLACES[state])]
)
def test_a_job_in_the_place_of_its_state_is_in_order(state: str, place: str) -> None:
    """Every state has its places; a job there, and nowhere else, is no complaint."""
    assert Snapshot(states={"job-1": state}, places={"job-1": (place,)}, document_bytes={}).misplaced() == []


@pytest.mark.parametrize(
    ("state", "held"),
    [
        ("queued", ()),
        ("queued", ("ready:high", "claimed")),
        ("queued", ("ready:high", "ready:high")),
        ("running", ("ready:normal",)),
        ("done", ("finished", "claimed")),
        ("dead", ("finished",)),
        ("dead", ()),
        ("unheard of", ("finished",)),
    ],
)
def test_a_job_in_no_place_in_two_or_in_a_wrong_one_is_told(state: str, held: tuple[str, ...]) -> None:
    """A lost job, a doubled one and one in the wrong place are each told with the places found."""
    places = {"job-1": held} if held else {}
    (problem,) = Snapshot(states={"job-1": state}, places=places, document_bytes={}).misplaced()
    assert problem.startswith(f"job-1 is {state}: expected it in one of")


def test_what_stays_behind_is_told() -> None:
    """A document of a job that is done, an id without a record, and an upload that nobody took are leftovers."""
    snapshot = Snapshot(
        states={"job-1": "done"},
        places={"job-1": ("finished",), "job-2": ("dlq",)},
        document_bytes={"job-1": 7},
        leftovers=("upload:abc",),
    )
    problems = snapshot.misplaced()
    assert [problem.split()[0] for problem in problems] == ["job-1", "job-2:", "upload:abc:"]
