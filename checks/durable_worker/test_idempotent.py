"""The same work submitted many times at once is one job with one effect."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence
from readiness.documents import Document

AT_ONCE = 50
ROUNDS = 2
FINISH_SECONDS = 20.0


def small(name: str, text: str) -> Document:
    return Document(name=name, media_type="text/plain", content=text.encode(), path=None)


@pytest.mark.claim("A4.idempotent")
def test_same_key_at_once_is_one_job(ingested: Ingested, evidence: ClaimEvidence, seed: int) -> None:
    """Fifty submissions with one key, all at the same time, give one job id, one creation and one committed
    effect.
    """
    lane = ingested.lane
    problems: list[str] = []
    jobs: dict[str, str] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(ROUNDS):
            key = f"idempotent-{seed}-{number}"
            document = small(f"{key}.txt", f"the same work, round {number} of seed {seed}")
            answers = list(pool.map(lambda _, d=document, k=key: lane.enqueue(d, key=k), range(AT_ONCE)))
            ids = {answer.job_id for answer in answers}
            created = [answer for answer in answers if not answer.duplicate]
            statuses = sorted(answer.status_code for answer in answers)
            jobs[key] = answers[0].job_id
            if len(ids) != 1:
                problems.append(f"{key}: expected one job, got {len(ids)}")
            if len(created) != 1:
                problems.append(f"{key}: expected one answer with duplicate=false, got {len(created)}")
            if statuses != [200] * (AT_ONCE - 1) + [202]:
                problems.append(f"{key}: expected one 202 and {AT_ONCE - 1} times 200, got {statuses}")

    # The default key is the content: the same file again is the same job, other content is another one.
    plain = [lane.enqueue(small("same.txt", f"content {seed}")).job_id for _ in range(2)]
    other = lane.enqueue(small("same.txt", f"content {seed} and more")).job_id
    if plain[0] != plain[1] or other == plain[0]:
        problems.append(f"default key: expected ids a, a, b, got {plain[0]}, {plain[1]}, {other}")

    everything = [*jobs.values(), plain[0], other]
    statuses_now = lane.wait_all(everything, seconds=FINISH_SECONDS)
    effects = [effect.job_id for effect in lane.effects()]
    problems += [
        f"{job}: expected state done with one effect, got {status.state} with {effects.count(job)}"
        for job, status in statuses_now.items()
        if status.state != "done" or effects.count(job) != 1
    ]

    late = lane.enqueue(small("late.txt", "whatever"), key=f"idempotent-{seed}-0")
    if late.job_id != jobs[f"idempotent-{seed}-0"] or late.state != "done" or late.status_code != 200:
        problems.append(
            f"after the end: expected 200 with the finished job, got {late.status_code} {late.state}"
        )

    n = ROUNDS * 3 + 1 + len(everything) + 1
    evidence.cases(n, min(len(problems), n), problems, "answers and effects of repeated submissions")
    evidence.facts(submissions=ROUNDS * AT_ONCE + 4, at_once=AT_ONCE)
    assert not problems, problems[0]
