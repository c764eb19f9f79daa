"""A Redis that is killed and started again on its append-only file costs no acknowledged document."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Submission

DOCUMENTS = 120
RESTARTS = 2
LATENCY_MS = 40
SUBMIT_SECONDS = 40.0
FINISH_SECONDS = 40.0
FAULT = "Redis killed with SIGKILL and restarted on its append-only file"


@pytest.mark.claim("A5.redis_restart")
def test_killed_redis_costs_no_acknowledged_document(
    outage_lane: Any,
    evidence: ClaimEvidence,
    seed: int,
) -> None:
    """Documents acknowledged before, during and after two kills of Redis all end done, each with one
    effect.
    """
    alone, redis = outage_lane.lane, outage_lane.redis
    alone.script_embedding([], latency_ms=LATENCY_MS)
    answers: list[Submission] = []

    def submit_all() -> None:
        for number in range(DOCUMENTS):
            text = f"restart {seed} {number}"
            document = Document(name=f"{number}.txt", media_type="text/plain", content=text.encode())
            answers.append(alone.enqueue(document))

    # Given documents on their way in, when Redis is killed twice in between and comes back each time.
    stream = threading.Thread(target=submit_all)
    stream.start()
    in_flight: list[int] = []
    down_seconds: list[float] = []
    try:
        for restart in range(RESTARTS):
            mark = (restart + 1) * DOCUMENTS // (RESTARTS + 1)
            wait_until(
                lambda mark=mark: len(answers) >= mark or not stream.is_alive(),
                seconds=SUBMIT_SECONDS,
                what=f"{mark} submissions",
            )
            in_flight.append(alone.in_flight() + alone.depth())
            killed = time.monotonic()
            redis.kill()
            redis.start()
            down_seconds.append(round(time.monotonic() - killed, 3))
    finally:
        stream.join(timeout=SUBMIT_SECONDS)

    # Then every acknowledged document is done, with one effect in SQL.
    acknowledged = [one.job_id for one in answers if one.accepted]
    statuses = ends_of(alone, acknowledged, seconds=FINISH_SECONDS)
    effects = [effect.job_id for effect in alone.effects()]
    lost = [
        f"{job}: {state_of(statuses[job])}, {effects.count(job)} effects"
        for job in acknowledged
        if state_of(statuses[job]) != "done" or effects.count(job) != 1
    ]
    evidence.trials(len(acknowledged), len(lost), "jobs", examples=lost, fault=FAULT)
    evidence.facts(
        submitted=len(answers),
        refused=len(answers) - len(acknowledged),
        background=sum(1 for one in answers if one.mode == "background"),
        jobs_inside_at_kill=in_flight,
        down_seconds=down_seconds,
        redis=f"{redis.provider} {redis.version}",
        not_shown="SIGKILL keeps the page cache: nothing is said about a power cut (appendfsync everysec)",
    )
    assert not stream.is_alive(), f"submissions did not end within {SUBMIT_SECONDS:g} s"
    assert any(in_flight), "Redis was killed while no job was inside: the check showed nothing"
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged documents lost or repeated: {lost[0]}"
