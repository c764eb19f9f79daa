"""The load plan is bounded and travels by the environment; arrivals are exact in number and never in step."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readiness.errors import BadInput
from readiness.load.arrivals import endless_arrivals, planned_arrivals
from readiness.load.plan import DRAIN_SECONDS, LoadPlan, plan_of


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"users": 0},
        {"users": 5000},
        {"streams": 0},
        {"streams": 100_000},
        {"drain_seconds": -1},
    ],
    ids=str,
)
def test_a_plan_without_bounds_is_refused(change: dict[str, float]) -> None:
    """Zero requests, no end, or more than one generator can send: refused before anything starts."""
    good = {"seconds": 12, "users": 20, "streams": 320, "seed": 1}
    with pytest.raises(BadInput, match="load plan: expected"):
        LoadPlan(**{**good, **change})


def test_a_plan_survives_the_environment() -> None:
    """What the step decides is what the generator reads; without the variables there is no plan."""
    plan = LoadPlan(seconds=12.5, users=20, streams=320, seed=99, drain_seconds=3)
    assert plan_of(plan.environment(log="x")) == plan
    assert plan_of({}) is None
    with pytest.raises(BadInput, match="READINESS_LOAD"):
        plan_of({"READINESS_LOAD_STREAMS": "many"})


def test_the_generator_has_a_limit_beyond_its_plan() -> None:
    """However it behaves, the generator is ended after a bounded time."""
    plan = LoadPlan(seconds=12, users=20, streams=320, seed=1)
    assert 12 + DRAIN_SECONDS < plan.limit_seconds < 120


@given(
    seconds=st.floats(1, 600),
    users=st.integers(1, 50),
    streams=st.integers(1, 400),
    seed=st.integers(0, 2**31),
)
def test_planned_arrivals_are_exact_bounded_and_repeatable(
    seconds: float, users: int, streams: int, seed: int
) -> None:
    """As many arrivals as planned, within the time, ascending for each user, the same for the same seed."""
    plan = LoadPlan(seconds=seconds, users=users, streams=streams, seed=seed)
    moments = planned_arrivals(plan)
    assert len(moments) == users
    assert sum(map(len, moments)) == streams
    assert all(0 < moment <= seconds for of_user in moments for moment in of_user)
    assert all(of_user == sorted(of_user) for of_user in moments)
    assert moments == planned_arrivals(plan)


def test_arrivals_do_not_march_in_step() -> None:
    """No tenth of a second holds a burst, as users that start together would send (research, section 2)."""
    plan = LoadPlan(seconds=12, users=20, streams=320, seed=5)
    tenths = [int(moment * 10) for of_user in planned_arrivals(plan) for moment in of_user]
    fullest = max(tenths.count(tenth) for tenth in set(tenths))
    assert fullest <= 12  # mean 2.9; a Poisson count above 12 has a chance below 1 in 10,000
    assert planned_arrivals(plan) != planned_arrivals(LoadPlan(seconds=12, users=20, streams=320, seed=6))


def test_endless_arrivals_keep_their_rate_and_differ_between_users() -> None:
    """By hand: a Poisson process of the wanted rate for each user, not the same one for all."""
    first = list(islice(endless_arrivals(per_second=0.5, seed=1, user=0), 2000))
    assert 2000 / first[-1] == pytest.approx(0.5, rel=0.1)
    assert first != list(islice(endless_arrivals(per_second=0.5, seed=1, user=1), 2000))
