"""`verify` finds and names whatever was changed in a run folder, and recomputes every figure from raw evidence."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from harness.sample_run import write_json, write_run

from readiness.errors import BadInput
from readiness.evidence import EvidenceWriter
from readiness.evidence.records import FIRST_PREV, make_record
from readiness.evidence.sealing import seal
from readiness.evidence.verify import judge_run, verify_run
from readiness.judge.model import Verdict

FLIPS_PER_FILE = 3


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test writes to."""
    folder = tmp_path_factory.mktemp("run") / "20261123T162233Z-quick-ab12"
    write_run(folder)
    return folder


@pytest.fixture
def run(pristine: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to tamper with."""
    folder = tmp_path / pristine.name
    shutil.copytree(pristine, folder)
    return folder


def test_untouched_run_has_no_finding(pristine: Path) -> None:
    """A run that nobody touched verifies."""
    assert verify_run(pristine) == []


def test_one_changed_byte_in_any_protected_file_is_named(run: Path) -> None:
    """Any single byte of any file under evidence/, of plan, profile or context: the file is named."""
    draw = random.Random(20261123)
    protected = sorted(path for path in (run / "evidence").rglob("*") if path.is_file())
    protected += [run / "plan.json", run / "profile.json", run / "context.json"]
    assert len(protected) > 40
    for path in protected:
        content = path.read_bytes()
        # The big files are flipped more often: every kind of place in them should be hit.
        for _ in range(FLIPS_PER_FILE if path.name != "manifest.json" else 30):
            position, mask = draw.randrange(len(content)), draw.randrange(1, 256)
            changed = bytearray(content)
            changed[position] ^= mask
            path.write_bytes(bytes(changed))
            named = [finding.where for finding in verify_run(run)]
            name = path.relative_to(run).as_posix()
            assert name in named, f"byte {position} of {name} ^ {mask}: {named}"
        path.write_bytes(content)
    assert verify_run(run) == []


@pytest.mark.parametrize(
    "name", ["evidence/A5.once.jsonl", "evidence/raw/worker.log", "evidence/manifest.json"]
)
def test_missing_file_is_named(run: Path, name: str) -> None:
    """A file that was sealed and is gone is named."""
    (run / name).unlink()
    assert name in [finding.where for finding in verify_run(run)]


@pytest.mark.parametrize("name", ["evidence/E1.scraped.jsonl", "evidence/raw/more.log", "stack.json"])
def test_added_file_is_named(run: Path, name: str) -> None:
    """A file that was not sealed is named, empty or not."""
    (run / name).write_bytes(b"")
    assert name in [finding.where for finding in verify_run(run)]


def test_symbolic_link_in_place_of_evidence_is_named(run: Path) -> None:
    """A link to a file of the same content is no evidence: what it points to can change tomorrow."""
    path = run / "evidence" / "raw" / "worker.log"
    elsewhere = run / "elsewhere.log"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert "evidence/raw/worker.log" in [finding.where for finding in verify_run(run)]


def test_deleted_evidence_turns_the_claim_not_run_and_the_score_falls(run: Path) -> None:
    """No evidence is no pass: the claim is NOT_RUN and its points are gone."""
    before = judge_run(run)
    assert before.claim("A5.once").verdict == Verdict.PROVEN
    (run / "evidence" / "A5.once.jsonl").unlink()
    after = judge_run(run)
    assert after.claim("A5.once").verdict == Verdict.NOT_RUN
    assert after.score.reliability < before.score.reliability
    assert after.score.band.proven < before.score.band.proven


def test_evidence_added_after_sealing_earns_nothing(run: Path) -> None:
    """A claim cannot be proven by records that were appended to a finished run, however well chained."""
    writer = EvidenceWriter(run, command="forged")
    writer.record("H1.job_p95", "samples", {"values": [0.1] * 500, "unit": "s"})
    assert judge_run(run).claim("H1.job_p95").verdict == Verdict.INVALID


@pytest.mark.parametrize(
    ("claim", "field", "value"),
    [
        ("A5.kill", "verdict", "PROVEN"),
        ("A5.kill", "failures", 0),
        ("H1.job_p95", "bound", 41.2),
        ("H3.failure_rate", "value", 0.001),
        ("H6.api_p95", "n", 10_000),
    ],
)
def test_edited_figure_in_the_scorecard_is_named(run: Path, claim: str, field: str, value: object) -> None:
    """A figure of scorecard.json that does not follow from the evidence is named with its claim."""
    card = json.loads((run / "scorecard.json").read_bytes())
    next(entry for entry in card["claims"] if entry["id"] == claim)[field] = value
    write_json(run / "scorecard.json", card)
    assert [finding.where for finding in verify_run(run)] == [f"scorecard.json claims[{claim}] {field}"]


@pytest.mark.parametrize(
    ("path", "value"), [("overall", 97), ("reliability", 100), ("letter", "A+"), ("struck", False)]
)
def test_edited_score_is_named(run: Path, path: str, value: object) -> None:
    """The score is recomputed too."""
    card = json.loads((run / "scorecard.json").read_bytes())
    card["score"][path] = value
    write_json(run / "scorecard.json", card)
    assert [finding.where for finding in verify_run(run)] == [f"scorecard.json score {path}"]


def test_forger_who_reseals_is_found_by_the_scorecard(run: Path) -> None:
    """Evidence rewritten with a good chain and a new manifest still does not give the recorded figures."""
    path = run / "evidence" / "A5.kill.jsonl"
    lines, prev = [], FIRST_PREV
    for line in path.read_text(encoding="utf-8").splitlines():
        body = json.loads(line)
        body.pop("hash")
        body["prev"] = prev
        if body["kind"] == "trials":
            body["data"]["failures"] = 0
        if body["kind"] == "outcome":
            body["data"] = {"outcome": "passed"}
        record, forged = make_record(body)
        lines.append(forged)
        prev = record.hash
    path.write_bytes(b"".join(lines))
    seal(run)
    named = [finding.where for finding in verify_run(run)]
    assert "evidence/manifest.json" in named
    assert "scorecard.json claims[A5.kill] verdict" in named


def test_judging_again_uses_the_recorded_profile(run: Path) -> None:
    """Loosening a target in the recorded profile is found, and judging from it is refused."""
    profile = json.loads((run / "profile.json").read_bytes())
    next(claim for claim in profile["claims"] if claim["id"] == "H3.failure_rate")["estimator"]["limit"] = 0.5
    write_json(run / "profile.json", profile)
    assert "profile.json" in [finding.where for finding in verify_run(run)]
    with pytest.raises(BadInput, match=r"profile\.json: expected the file that was sealed"):
        judge_run(run)


def test_torn_line_in_a_sealed_run_is_named_and_proves_nothing(tmp_path: Path) -> None:
    """A run whose writer was killed inside a record says so, and the claim is not PROVEN."""
    folder = tmp_path / "run"
    write_run(folder)
    path = folder / "evidence" / "A5.once.jsonl"
    path.write_bytes(path.read_bytes() + b'{"claim":"A5.on')
    seal(folder)
    card = judge_run(folder)
    write_json(folder / "scorecard.json", card)
    assert card.claim("A5.once").verdict == Verdict.INCONCLUSIVE
    assert [finding.where for finding in verify_run(folder)] == ["evidence/A5.once.jsonl"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"evidence": 3}', b"[" * 100_000])
def test_ruined_scorecard_is_a_finding_not_a_crash(run: Path, content: bytes) -> None:
    """Whatever is in scorecard.json, verify answers with a finding about it."""
    (run / "scorecard.json").write_bytes(content)
    assert "scorecard.json" in [finding.where for finding in verify_run(run)]


def test_folder_that_is_no_run_is_bad_input(tmp_path: Path) -> None:
    """A wrong folder is the person's mistake, in one line."""
    with pytest.raises(BadInput, match="expected a run folder") as caught:
        verify_run(tmp_path)
    assert "\n" not in str(caught.value)
