"""Without Redis the API goes on with background tasks; with Redis back it is durable again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Submission

EACH = 10  # submissions in each of the three phases
ANSWER_SECONDS = 10.0  # an answer may take the client's patience with Redis, not more
BACK_SECONDS = 15.0
FINISH_SECONDS = 25.0
FAULT = "Redis stopped, then started again"
AT_ONCE = 6
SILENCE = "Redis frozen: connections stay open, nobody answers"


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


@pytest.mark.claim("A2.fallback")
def test_submissions_survive_a_redis_that_says_nothing(
    outage_lane: Any,
    evidence: ClaimEvidence,
    seed: int,
) -> None:
    """With Redis frozen every submission is accepted in time; what Redis finds when it wakes is not done twice."""
    alone, redis = outage_lane.lane, outage_lane.redis
    documents = [
        Document(f"silent-{number}.txt", "text/plain", f"silence {seed} {number}".encode())
        for number in range(AT_ONCE)
    ]
    alone.http()  # one client, made before the threads
    redis.pause()
    try:
        asked = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(alone.enqueue, documents))
        took = time.monotonic() - asked
    finally:
        redis.resume()
    statuses = ends_of(alone, [one.job_id for one in answers if one.accepted], seconds=FINISH_SECONDS)
    again = [alone.enqueue(document) for document in documents]
    effects = [effect.job_id for effect in alone.effects()]

    wrong = [
        f"while Redis said nothing: expected 202 background, got {one.status_code} {one.mode}"
        for one in answers
        if (one.status_code, one.mode) != (202, "background")
    ]
    if took > ANSWER_SECONDS:
        wrong.append(
            f"while Redis said nothing: expected answers within {ANSWER_SECONDS:g} s, they took {took:.1f} s"
        )
    wrong += [
        f"{job}: expected done with one effect, got {state_of(status)} with {effects.count(job)}"
        for job, status in statuses.items()
        if state_of(status) != "done" or effects.count(job) != 1
    ]
    wrong += [
        f"submitted again: expected the job that was there, got {one.status_code} {one.job_id}"
        for one, first in zip(again, answers, strict=True)
        if one.job_id != first.job_id
    ]
    n = 3 * AT_ONCE + 1
    what = "submissions to an API whose Redis is frozen"
    evidence.cases(n, min(len(wrong), n), wrong, what, fault=SILENCE)
    evidence.facts(answered_seconds=round(took, 2), modes=[one.mode for one in answers])
    assert not wrong, wrong[0]
