"""A job marked high is served before every normal one that waits, and within a priority the first comes first."""

from __future__ import annotations

from itertools import pairwise

import pytest

from readiness.checking.fates import Fates
from readiness.checking.recorder import ClaimEvidence


@pytest.mark.claim("PRI.order")
def test_high_before_normal_under_backlog(fates: Fates, evidence: ClaimEvidence) -> None:
    """Four normal jobs wait when three high ones come; one slot becomes free: fences tell in which order it served."""
    normal, high = fates.jobs["normal"], fates.jobs["high"]
    fences = {effect.job_id: effect.fence for effect in fates.effects}
    line = [*high, *normal]
    wrong = [f"{job}: expected it done, it has no effect" for job in line if job not in fences]
    for first, second in pairwise(line):
        if fences.get(first, 0) >= fences.get(second, 1):
            kinds = ["high" if job in high else "normal" for job in (first, second)]
            wrong.append(f"{kinds[0]} {first} was served after {kinds[1]} {second}, expected before")
    for job in line:
        status = fates.statuses.get(job)
        wanted = "high" if job in high else "normal"
        if status is None or status.body.get("priority") != wanted:
            wrong.append(
                f"{job}: expected the priority {wanted}, got {status.body.get('priority') if status else None}"
            )
    n = 3 * len(line)
    evidence.cases(
        n, min(n, len(wrong)), wrong, "jobs of two priorities in the order in which they were served"
    )
    assert not wrong, wrong[0]
