"""Without Redis the API goes on with background tasks; with Redis back it is durable again."""

from __future__ import annotations

from typing import Any

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Submission

EACH = 10  # submissions in each of the three phases
ANSWER_SECONDS = 10.0  # an answer may take the client's patience with Redis, not more
BACK_SECONDS = 15.0
FINISH_SECONDS = 25.0
FAULT = "Redis stopped, then started again"


@pytest.mark.claim("A2.fallback")
def test_submissions_survive_the_loss_of_redis(
    outage_lane: Any,
    evidence: ClaimEvidence,
    seed: int,
) -> None:
    """With Redis gone every submission is accepted as a background job, none answers 5xx, and all jobs
    complete.
    """
    alone, redis = outage_lane.lane, outage_lane.redis
    count = 0

    def submit() -> Submission:
        nonlocal count
        count += 1
        text = f"fallback {seed} {count}"
        return alone.enqueue(Document(name=f"{count}.txt", media_type="text/plain", content=text.encode()))

    before = [submit() for _ in range(EACH)]

    redis.stop()
    during = [submit() for _ in range(EACH)]
    background = [one.job_id for one in during if one.accepted]
    ended_without_redis = alone.wait_all(background, seconds=FINISH_SECONDS)

    redis.start()
    after: list[Submission] = []

    def durable_again() -> bool:
        after.append(submit())
        return after[-1].mode == "durable"

    wait_until(
        durable_again, seconds=BACK_SECONDS, what="a durable job after Redis came back", every_seconds=0.2
    )
    after += [submit() for _ in range(EACH)]

    everything = {one.job_id: one for one in [*before, *during, *after] if one.accepted}
    statuses = alone.wait_all(list(everything), seconds=FINISH_SECONDS)
    effects = [effect.job_id for effect in alone.effects()]

    answers = [*((one, "durable") for one in before), *((one, "background") for one in during)]
    wrong = [
        f"expected 202 {mode}, got {one.status_code} {one.mode}"
        for one, mode in answers
        if (one.status_code, one.mode) != (202, mode)
    ]
    wrong += [
        f"after Redis came back: expected 202, got {one.status_code}"
        for one in after
        if one.status_code != 202
    ]
    wrong += [
        f"without Redis: expected done, got {one.state}"
        for one in ended_without_redis.values()
        if one.state != "done"
    ]
    wrong += [
        f"{job}: expected done with one effect, got {status.state} with {effects.count(job)}"
        for job, status in statuses.items()
        if status.state != "done" or effects.count(job) != 1
    ]
    n = count + len(ended_without_redis) + len(everything)
    evidence.cases(
        n, min(len(wrong), n), wrong, "submissions around an outage of Redis, and their ends", fault=FAULT
    )
    evidence.facts(before=len(before), during=len(during), after=len(after), redis=redis.provider)
    assert not wrong, wrong[0]
