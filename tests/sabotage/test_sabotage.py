"""`readiness sabotage` for real: a few defects of different kinds, in copies of this checkout, with real runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from readiness.sabotage.detection import tree_digest

TOP = Path(__file__).resolve().parent.parent.parent
# One of the harness, one of a dashboard, one of the system: cheap ones, which show each way of being noticed.
SAMPLE = {"H2": "self-test", "G2": "E2.panels", "J2": "G4.jwt"}
SECONDS = 420
START_SECONDS = 90


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "readiness", "sabotage", "--root", str(TOP), *words]


def test_a_sample_is_killed_and_the_checkout_stays_as_it_is(tmp_path: Path) -> None:
    """Each of the sample is noticed by its expected check for its expected reason, and the clean copies pass."""
    out = tmp_path / "detection.json"
    before = tree_digest(TOP / "system"), tree_digest(TOP / "dashboards")
    done = subprocess.run(
        command(*SAMPLE, "--no-whole", "--out", str(out)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.splitlines()[-1].startswith(
        "sabotage: 3 of 3 killed by their expected check (≥ 36.8 % at 95 %), "
    )
    assert "0 false alarms in" in done.stdout
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {entry["id"]: entry["noticed_by"][0] for entry in found["sabotages"]} == SAMPLE
    assert {entry["outcome"] for entry in found["sabotages"]} == {"killed"}
    assert set(found["checks"]) == {"E2.panels", "G4.jwt"}
    assert (tree_digest(TOP / "system"), tree_digest(TOP / "dashboards")) == before


def test_a_defect_that_nothing_looks_for_is_missed(tmp_path: Path) -> None:
    """A catalogue of one's own: an edit without any effect is a miss, status 1, written nowhere but where one says."""
    catalogue = tmp_path / "mine"
    catalogue.mkdir()
    (catalogue / "Z1.yaml").write_text(
        "id: Z1\n"
        "title: another word in a docstring\n"
        "symptom: none\n"
        'expect: {claim: E2.panels, reason: "expected"}\n'
        "edits:\n"
        '  - {file: system/ragworker/retry.py, old: "from __future__ import annotations", '
        'new: "from __future__ import annotations  # sabotaged"}\n',
        encoding="utf-8",
    )
    done = subprocess.run(
        command("--catalogue", str(catalogue), "--no-whole"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-4000:]
    assert "0 of 1 killed" in done.stdout
    assert "1 missed: Z1" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by their environment")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Interrupted in the middle of a run: status 3, one line, no process and no copy left."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        command("J2", "--out", str(tmp_path / "detection.json")),
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + START_SECONDS
    while not list(temporary.glob("readiness-sabotage-*/*/runs/*/logs/checks.log")):
        assert time.monotonic() < deadline, "no run began"
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors[-2000:]
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("readiness sabotage: interrupted")
    assert list(temporary.glob("readiness-sabotage-*")) == []
    assert not (tmp_path / "detection.json").exists()
    assert [one.cmdline() for one in psutil.process_iter() if str(temporary) in " ".join(_words(one))] == []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
