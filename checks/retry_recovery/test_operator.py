"""What an operator can do with the queue: hold it, fill it, let it go, wait for its end; in which order it works."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.exposition import parse
from readiness.checking.history import attempts_on, requests_of
from readiness.checking.recorder import ClaimEvidence
from readiness.targets.base import JobStatus, Lane
from readiness.targets.ragworker_keys import QueueKeys, operate

NORMAL, HIGH = 10, 4
FINISH_SECONDS = 20.0


@pytest.mark.claim("C5.operate")
def test_a_queue_is_held_filled_and_drained(
    lease_lane: Lane, evidence: ClaimEvidence, seed: int, tmp_path: Path
) -> None:
    """A paused queue accepts and gives out nothing; resumed, it works high before normal, each in order, to the end."""
    lane = lease_lane
    lane.script_embedding([])
    for number in range(NORMAL):
        text = f"operated {seed} {number}"
        (tmp_path / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    cases: list[tuple[str, object, object]] = []
    with QueueKeys(lane) as keys:
        # Given a paused queue with many normal jobs, a few urgent ones, and two whose documents were spoilt.
        cases.append(("pause: exit status", 0, operate(lane, "queue", "pause")[0]))
        status, told = operate(lane, "jobs", "submit", str(tmp_path))
        normal = [str(one["job_id"]) for one in told] if status == 0 else []
        high = [submit(lane, f"urgent {seed} {number}", priority="high") for number in range(HIGH)]
        spoilt = [submit(lane, f"spoilt {seed} {number}") for number in range(2)]
        keys.tamper(spoilt[0], payload="")
        replaced = f"spoilt {seed} 1"[::-1]  # of the same length: only its digest tells
        keys.tamper(spoilt[1], payload=replaced)
        everything = [*normal, *high, *spoilt]
        snapshot = keys.snapshot()
        cases += [
            ("bulk submit: jobs", NORMAL, len(normal)),
            ("states while paused", {"queued"}, {snapshot.states.get(job) for job in everything}),
            ("misplaced while paused", [], snapshot.misplaced()),
            ("rag_queue_paused", 1.0, parse(lane.metrics()).total("rag_queue_paused")),
            ("rag_queue_length", float(len(everything)), parse(lane.metrics()).total("rag_queue_length")),
        ]

        # When it is resumed and drained.
        resumed_ms = time.time_ns() // 1_000_000
        cases.append(("resume: exit status", 0, operate(lane, "queue", "resume")[0]))
        cases.append(
            (
                "drain: exit status",
                0,
                operate(lane, "queue", "drain", "--seconds", str(int(FINISH_SECONDS)))[0],
            )
        )
        ends = ends_of(lane, everything, seconds=FINISH_SECONDS)
        fences = {job: keys.fence(job) for job in everything}
        cases.append(("misplaced after the drain", [], keys.snapshot().misplaced()))
    status, again = operate(lane, "jobs", "submit", str(tmp_path))
    figures = operate(lane, "queue", "stats")[1]

    # Then all is done in the promised order, and what was spoilt is refused once and for all.
    effects = [effect.job_id for effect in lane.effects()]
    asked = requests_of(lane.embedding_log())
    good = [*normal, *high]
    cases += [
        ("ends", {"done"}, {state_of(ends[job]) for job in good}),
        ("effects", {1}, {effects.count(job) for job in good}),
        ("claimed while paused", [], [job for job in everything if claimed_ms(ends[job]) < resumed_ms]),
        ("high before normal, each in order", [*high, *normal], sorted(good, key=lambda job: fences[job])),
        (
            "spoilt ends",
            {("dead", "PAYLOAD_MISSING")},
            {(state_of(ends[job]), code_of(ends[job])) for job in spoilt},
        ),
        ("spoilt effects", 0, sum(effects.count(job) for job in spoilt)),
        ("replaced bytes embedded", 0, len(attempts_on(asked, replaced))),
        (
            "the same folder again: new jobs",
            0,
            sum(not one["duplicate"] for one in again) if status == 0 else -1,
        ),
        (
            "the same folder again: the same jobs",
            normal,
            [str(one["job_id"]) for one in again] if status == 0 else [],
        ),
        ("unfinished in the figures", 0, figures.get("unfinished") if isinstance(figures, dict) else figures),
    ]
    wrong = [f"{what}: expected {want!r}, got {have!r}" for what, want, have in cases if want != have]
    evidence.cases(len(cases), len(wrong), wrong, "facts of a queue that was held, filled and drained")
    assert not wrong, wrong[0]


def submit(lane: Lane, text: str, *, priority: str = "normal") -> str:
    """Submit a text with a priority; the job's id."""
    body = {"text": text, "name": "operated.txt", "priority": priority}
    answer = lane.http().post("/rag/jobs", json=body)
    assert answer.status_code == 202, f"expected 202, got {answer.status_code}: {answer.text[:200]}"
    return str(answer.json()["job_id"])


def claimed_ms(status: JobStatus | None) -> int:
    """When the job was first claimed, in ms since the epoch; far in the future when it never was."""
    moments = [event.at_ms for event in status.history if event.event == "claimed"] if status else []
    return min(moments, default=2**62)


def code_of(status: JobStatus | None) -> str:
    return status.error_code if status is not None else ""
