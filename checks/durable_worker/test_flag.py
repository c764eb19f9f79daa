"""USE_DURABLE_WORKER selects the path of each job, at run time, without an interrupted request or a lost
job.
"""

from __future__ import annotations

import threading
import time

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.targets.base import Lane, Submission

DURABLE = ("true", "TRUE", "True", "tRuE", "1", "yes", "YES", "on", "On")
BACKGROUND = ("false", "FALSE", "False", "0", "no", "No", "off", "OFF", "", "maybe", "2")
FLIPS = 8
FLIP_EVERY_SUBMISSIONS = 5
FINISH_SECONDS = 20.0


def numbered(name: str) -> Document:
    return Document(name=f"{name}.txt", media_type="text/plain", content=f"flag {name}".encode(), path=None)


@pytest.mark.claim("A1.flag")
def test_flag_is_read_at_run_time_in_any_case(retry_lane: Lane, evidence: ClaimEvidence, seed: int) -> None:
    """Every spelling selects its path at once, both ways, while submissions go on; every accepted job is
    done once.
    """
    flagged = retry_lane
    flagged.script_embedding([])
    problems: list[str] = []
    answers: list[Submission] = []

    # Given each spelling in turn, when a document is submitted, then the answer names the path.
    spelled = [(value, "durable") for value in DURABLE] + [(value, "background") for value in BACKGROUND]
    order = [pair for both in zip(spelled, reversed(spelled), strict=True) for pair in both][: len(spelled)]
    for number, (value, expected) in enumerate(order):
        flagged.set_flag(value)
        answer = flagged.enqueue(numbered(f"spelling-{seed}-{number}"))
        answers.append(answer)
        if answer.status_code != 202 or answer.mode != expected:
            problems.append(f"{value!r}: expected 202 {expected}, got {answer.status_code} {answer.mode}")

    # Given a stream of submissions, when the flag flips both ways, then no request fails.
    stop = threading.Event()
    streamed: list[Submission] = []

    def submit_on() -> None:
        while not stop.is_set():
            streamed.append(flagged.enqueue(numbered(f"stream-{seed}-{len(streamed)}")))

    stream = threading.Thread(target=submit_on)
    stream.start()
    try:
        for flip in range(FLIPS):
            flagged.set_flag(("true", "false")[flip % 2])
            so_far = len(streamed)
            wait_until(
                lambda now=so_far: len(streamed) >= now + FLIP_EVERY_SUBMISSIONS or not stream.is_alive(),
                seconds=FINISH_SECONDS,
                what=f"{FLIP_EVERY_SUBMISSIONS} more submissions after flip {flip}",
            )
    finally:
        stop.set()
        stream.join(timeout=FINISH_SECONDS)
        flagged.set_flag("true")
    problems += [
        f"while flipping: got status {one.status_code}" for one in streamed if one.status_code != 202
    ]
    modes = {one.mode for one in streamed}
    if modes != {"durable", "background"}:
        problems.append(f"while flipping: expected jobs on both paths, got {sorted(modes)}")

    # Then every accepted job is done, on the path that its answer named, with exactly one effect.
    everything = {one.job_id: one for one in [*answers, *streamed] if one.accepted}
    statuses = flagged.wait_all(list(everything), seconds=FINISH_SECONDS)
    effects = [effect.job_id for effect in flagged.effects()]
    for job, status in statuses.items():
        if (status.state, status.mode, effects.count(job)) != ("done", everything[job].mode, 1):
            problems.append(
                f"{job}: expected done, {everything[job].mode}, 1 effect,"
                f" got {status.state}, {status.mode}, {effects.count(job)}"
            )

    n = len(order) + len(streamed) + 1 + len(everything)
    evidence.cases(n, min(len(problems), n), problems, "spellings, submissions while flipping, ends of jobs")
    evidence.facts(
        spellings=len(order), flips=FLIPS, submissions_while_flipping=len(streamed), at=time.time()
    )
    assert not problems, problems[0]
