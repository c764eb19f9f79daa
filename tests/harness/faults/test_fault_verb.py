"""`readiness fault`: what it lists, what it refuses, and one fault played for real, to its end and interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from readiness.cli import main
from readiness.stack.binaries import embedded_redis_program, find_program

REPOSITORY = Path(__file__).resolve().parents[3]
PLAY_SECONDS = 120
FREEZE_SECONDS = 60


@pytest.fixture
def redis_server() -> None:
    """A real Redis, or the reason why the test says nothing here."""
    if not (find_program("redis-server", "valkey-server") or embedded_redis_program()):
        pytest.skip("no real redis-server here: it adds faults for real; `make services` installs it")


def children_of(folder: Path) -> list[psutil.Process]:
    """Every process whose working folder or command line is below a run's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        told = " ".join(process.info["cmdline"] or ()) + f" {process.info['cwd'] or ''}"
        if str(folder) in told and process.pid != os.getpid():
            found.append(process)
    return found


def wait_for(look: Callable[[], bool], seconds: float, what: str) -> None:
    """A deadline on what must come true."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"expected within {seconds:g} s: {what}"
        time.sleep(0.05)


def test_the_list_names_every_fault_and_ends_with_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    """Name, title and row of each, in the order of the catalogue; what is missing here is said."""
    assert main(["fault", "list", "--root", str(REPOSITORY)]) == 0
    *rows, last = capsys.readouterr().out.strip().splitlines()
    names = [path.stem for path in (REPOSITORY / "checks" / "faults").glob("*.yaml")]
    assert len(rows) == len(names)
    assert {row.split()[1] for row in rows} == set(names)
    assert last.startswith("fault: this machine can do ")


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for machines, both languages."""
    assert main(["fault", "list", "--json", "--root", str(REPOSITORY)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "row", "title", "can", "why_not"} <= set(rows[0])
    assert all(row["title"]["ko"] for row in rows)
    assert all(row["can"] is not bool(row["why_not"]) for row in rows)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "freez_worker"], "Did you mean 'freeze_worker'?"),
        (["run", "kill_api", "--seed", "-1"], "--seed -1: expected a whole number from 0"),
        (["run", "kill_api", "--redis", "mine"], "--redis: expected auto"),
    ],
)
def test_bad_words_start_nothing(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 4, no folder."""
    assert main(["fault", *words, "--root", str(REPOSITORY), "--reports", str(tmp_path)]) == 4
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_broken_scenario_is_named_by_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A content root of one's own, with a slip in a file."""
    for room in ("checks/faults", "loadtests", "rules", "dashboards", "reports"):
        (tmp_path / room).mkdir(parents=True)
    (tmp_path / "reports" / "scorecard.yaml").write_text("version: 1\n", encoding="utf-8")
    (tmp_path / "checks" / "faults" / "mine.yaml").write_text("row: 99\n", encoding="utf-8")
    assert main(["fault", "list", "--root", str(tmp_path)]) == 4
    assert "checks/faults/mine.yaml:1" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """What it does, examples, statuses, how to make one."""
    with pytest.raises(SystemExit):
        main(["fault", "--help"])
    told = capsys.readouterr().out
    for words in ("readiness fault run freeze_worker", "proven active", "exit status", "checks/faults/"):
        assert words in told


@pytest.mark.usefixtures("redis_server")
def test_a_fault_is_played_for_real(tmp_path: Path) -> None:
    """The last line is the verdict with its figures; the history is there; nothing is left running."""
    done = subprocess.run(
        [*command("run", "kill_api", "--seed", "5"), "--reports", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        cwd=REPOSITORY,
        check=False,
    )
    last = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 0, done.stderr
    assert last.startswith("fault kill_api: survived: ")
    assert " 0 lost, 0 repeated, recovered in " in last
    assert "proven active: no answer from the API" in done.stderr
    histories = list(tmp_path.glob("faults/*/faults/kill_api/history.jsonl"))
    assert len(histories) == 1
    assert children_of(tmp_path) == []


@pytest.mark.usefixtures("redis_server")
def test_an_interrupted_fault_is_healed_and_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while a worker is frozen: thawed, ended, status 3."""
    words = [*command("run", "freeze_worker", "--seed", "5"), "--reports", str(tmp_path)]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True
    )
    try:
        told: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            told.append(line)
            if "injecting freeze_worker" in line:
                break
        wait_for(lambda: bool(frozen(tmp_path)), FREEZE_SECONDS, "a frozen worker")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 3, told
        wait_for(lambda: children_of(tmp_path) == [], 10, "no process left")
    finally:
        process.kill()
        process.wait(timeout=10)


def command(*words: str) -> list[str]:
    """The command as a person types it."""
    return [sys.executable, "-m", "readiness", "fault", *words]


def frozen(folder: Path) -> list[psutil.Process]:
    """Stopped processes of a play."""
    stopped = []
    for process in children_of(folder):
        try:
            if process.status() == psutil.STATUS_STOPPED:
                stopped.append(process)
        except psutil.NoSuchProcess:
            continue
    return stopped
