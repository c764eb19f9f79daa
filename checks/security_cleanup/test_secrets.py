"""No secret and no sentence of a document is in any log, metric or evidence file."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import wait_until
from readiness.documents import Document

FINISH_SECONDS = 20.0
LARGEST_BYTES = 64 * 1024 * 1024  # of one file; a log above it would be a finding of its own
FOLDERS = ("logs", "evidence")


@pytest.mark.claim("SEC.secrets")
def test_canaries_are_in_no_file_of_the_run(
    secured_lane: Any, run_dir: Path, evidence: ClaimEvidence, seed: int
) -> None:
    """Signing secret, bearer token, keys, webhook and a document's sentence are searched in all that the run has
    written.
    """
    secured = secured_lane
    lane, client = secured.lane, secured.lane.http()
    sentence = f"canary-sentence-{secrets.token_hex(16)}"
    token = secured.headers()["Authorization"].removeprefix("Bearer ")
    canaries = {
        "signing secret": secured.secret,
        "bearer token": token,
        "signature of a token": token.rpartition(".")[2],
        "embedding API key": lane.embedding_key,
        "address of the alert webhook": lane.settings["ALERTMANAGER_WEBHOOK_URL"].rpartition("/")[2],
        "key of the span collector": lane.settings["OTEL_EXPORTER_OTLP_HEADERS"].partition("=")[2],
        "sentence of a document": sentence,
    }

    # Given documents with the canary that succeed, fail for good, and fail with every kind of answer.
    lane.script_embedding(
        [
            {"contains": "canary-refused", "status": 401},
            {"contains": "canary-rejected", "status": 400},
            {"contains": "canary-garbage", "times": 1, "garbage": "json"},
        ]
    )
    texts = [sentence, *(f"canary-{kind} {sentence}" for kind in ("refused", "rejected", "garbage"))]
    jobs = [
        lane.enqueue(
            Document(name=f"canary-{index}.txt", media_type="text/plain", content=text.encode()),
            headers=secured.headers(),
        ).job_id
        for index, text in enumerate(texts)
    ]
    broken = Document(
        name="canary.pdf", media_type="application/pdf", content=f"%PDF-1.4 {sentence}".encode()
    )
    jobs.append(lane.enqueue(broken, headers=secured.headers()).job_id)
    wait_until(
        lambda: all(ended(client, secured, job) for job in jobs),
        seconds=FINISH_SECONDS,
        what="the end of the canaries",
    )
    # And requests that carry secrets where a careless log line or error message would repeat them.
    answers = [
        client.get(f"/rag/jobs/{jobs[0]}", headers={"Authorization": f"Bearer {token}x"}),
        client.get("/rag/jobs/none", params={"access_token": token}, headers=secured.headers()),
        client.post(
            "/rag/jobs", json={"text": sentence, "priority": "none of ours"}, headers=secured.headers()
        ),
        client.post("/rag/jobs", content=sentence.encode(), headers=secured.headers()),
        *(client.get(f"/rag/jobs/{job}", headers=secured.headers()) for job in jobs),
        client.get("/rag/dlq", headers=secured.headers()),
        *(client.get(f"/rag/dlq/{job}", headers=secured.headers()) for job in jobs),
    ]
    lane.script_embedding([])

    # When everything that was written is searched, then none of it holds a canary.
    scanned = 0
    found: list[str] = []
    texts_by_place = {f"answer {index}": answer.text for index, answer in enumerate(answers)}
    texts_by_place["metrics"] = lane.metrics()
    for place, text in [*texts_by_place.items(), *files(run_dir)]:
        scanned += 1
        found += [f"{name} in {place}" for name, canary in canaries.items() if canary and canary in text]
    assert all(canaries.values()), (
        f"a canary is empty: {[name for name, canary in canaries.items() if not canary]}"
    )
    evidence.trials(scanned, len({where.partition(" in ")[2] for where in found}), "files", examples=found)
    evidence.facts(canaries=sorted(canaries), folders=FOLDERS, answers=len(answers))
    assert not found, f"expected no canary anywhere, got: {found[0]}"


def ended(client: Any, secured: Any, job: str) -> bool:
    answer = client.get(f"/rag/jobs/{job}", headers=secured.headers())
    return answer.status_code == 200 and answer.json()["state"] in ("done", "dead", "cancelled")


def files(run_dir: Path) -> Iterator[tuple[str, str]]:
    """Every log and evidence file with its text, the simulators' own logs included."""
    for folder in FOLDERS:
        for path in sorted((run_dir / folder).rglob("*")):
            if path.is_file() and path.stat().st_size <= LARGEST_BYTES:
                yield str(path.relative_to(run_dir)), path.read_text(encoding="utf-8", errors="replace")
