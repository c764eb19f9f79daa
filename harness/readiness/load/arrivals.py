"""Decide when which user submits. Pure: a plan and a seed in, moments out.

Arrivals are open: they are decided beforehand and do not wait for answers, so a slow system cannot make its
own load lighter (coordinated omission). `planned_arrivals` draws the moments of a fixed number of arrivals
uniformly, which is a Poisson process given its count: no two users march in step, and the planned number of
streams is met exactly. `endless_arrivals` is the same process without an end, for Locust started by hand.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from readiness.load.plan import LoadPlan

LEAD_SECONDS = 1.0
"""Locust spawns its users within the first second; nobody is due before."""


def planned_arrivals(plan: LoadPlan) -> list[list[float]]:
    """For each user the seconds after the start at which it submits, ascending; `plan.streams` in all."""
    source = random.Random(plan.seed)  # noqa: S311 - load, not secrets
    lead = min(LEAD_SECONDS, plan.seconds / 4)
    moments: list[list[float]] = [[] for _ in range(plan.users)]
    for _ in range(plan.streams):
        moments[source.randrange(plan.users)].append(source.uniform(lead, plan.seconds))
    return [sorted(of_user) for of_user in moments]


def endless_arrivals(*, per_second: float, seed: int, user: int) -> Iterator[float]:
    """The moments of one user's Poisson process, in seconds after its start."""
    source = random.Random(seed * 1_000_003 + user)  # noqa: S311 - load, not secrets
    moment = 0.0
    while True:
        moment += source.expovariate(per_second)
        yield moment
