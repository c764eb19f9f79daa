"""A finished run folder on disk: evidence written by the real writer, sealed, judged, scorecard.json beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.sample_scorecard import Entry, sample_charts, sample_context, sample_evidence, sample_profile

from readiness.evidence import EvidenceWriter
from readiness.evidence.sealing import seal
from readiness.evidence.verify import judge_run
from readiness.judge.codec import to_json
from readiness.judge.model import Scorecard

COMMAND = "readiness run --profile quick --seed 8231"


def write_run(folder: Path, evidence: Mapping[str, Sequence[Entry]] | None = None) -> Scorecard:
    """Write a whole run into `folder` (default: the sample's evidence) and return its scorecard."""
    folder.mkdir(parents=True, exist_ok=True)
    profile = sample_profile()
    writer = EvidenceWriter(folder, command=COMMAND)
    if evidence is None:
        evidence = {
            name: [(record.kind, record.data) for record in file.records]
            for name, file in sample_evidence().items()
        }
    for claim, entries in evidence.items():
        for kind, data in entries:
            writer.record(claim, kind, data, check=f"checks/sample.py::test_{claim}")
    log = folder / "worker.log"
    log.write_text('{"message": "job.claimed"}\n' * 20, encoding="utf-8")
    writer.attach("A5.once", log)
    write_json(folder / "evidence" / "raw" / "series.json", sample_charts())
    write_json(folder / "plan.json", {"seed": 8231, "profile": "quick", "profile_hash": profile.content_hash})
    write_json(folder / "profile.json", profile)
    write_json(folder / "context.json", sample_context(profile))
    seal(folder)
    card = judge_run(folder)
    write_json(folder / "scorecard.json", card)
    return card


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(to_json(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
