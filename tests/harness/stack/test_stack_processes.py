"""Children can always be ended: in order, by force, and after a crash of the harness."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from readiness.checking.waiting import wait_until
from readiness.stack.processes import (
    ManagedProcess,
    Probe,
    StackError,
    clean_environment,
    spawn,
    stop_all,
)
from readiness.stack.strays import LEDGER, sweep_stray

DEAF = "trap '' TERM; echo deaf; while :; do sleep 0.2; done"
linux_only = pytest.mark.skipif(
    sys.platform != "linux",
    reason="PR_SET_PDEATHSIG is Linux only: it adds the death of children with the harness",
)


def shell(run_dir: Path, script: str, *, name: str = "child") -> ManagedProcess:
    """A child that runs a shell script."""
    return spawn(run_dir, name, ["sh", "-c", script], env=clean_environment())


def says(process: ManagedProcess, word: str) -> Probe:
    """True once a word is in its log."""
    return Probe(f"the word {word}", lambda: word in process.log.read_text())


def is_gone(pid: int) -> bool:
    """True when there is no such process, or only its remains."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def harness_that_is_killed(run_dir: Path, script: str) -> int:
    """Kill -9 another harness process after it has spawned `script`; the pid that the script printed last."""
    program = f"""
    import sys, time
    from pathlib import Path
    from readiness.stack.processes import clean_environment, spawn
    spawn(Path({str(run_dir)!r}), "orphan", ["sh", "-c", {script!r}], env=clean_environment())
    print("spawned", flush=True)
    time.sleep(60)
    """
    argv = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == b"spawned\n"
        log = run_dir / "logs" / "orphan.log"
        pid = int(
            wait_until(lambda: log.read_text().strip(), seconds=10, what="the pid in the log").split()[-1]
        )
        harness.kill()
    return pid


@linux_only
def test_children_end_when_the_harness_is_killed(run_dir: Path) -> None:
    """kill -9 of the harness takes its children along."""
    child = harness_that_is_killed(run_dir, "echo $$; exec sleep 60")
    wait_until(lambda: is_gone(child), seconds=5, what="the end of the child")


def test_sweep_ends_what_a_killed_harness_left_behind(run_dir: Path) -> None:
    """A grandchild of a killed harness is ended by the next start, once, and counted."""
    grandchild = harness_that_is_killed(run_dir, "sleep 60 & echo $!; wait")
    assert not is_gone(grandchild)
    assert sweep_stray(run_dir.parent) >= 1
    wait_until(lambda: is_gone(grandchild), seconds=5, what="the end of the grandchild")
    assert sweep_stray(run_dir.parent) == 0


def test_sweep_leaves_the_processes_of_a_living_harness_alone(run_dir: Path) -> None:
    """A run that goes on beside this one keeps its processes."""
    process = shell(run_dir, "exec sleep 60")
    assert sweep_stray(run_dir.parent) == 0
    assert process.alive
    process.stop()


def test_sweep_leaves_a_stranger_with_a_reused_pid_alone(run_dir: Path) -> None:
    """A pid in an old ledger that belongs to somebody else now is not touched."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        started = psutil.Process(stranger.pid).create_time()
        line = {
            "pid": stranger.pid,
            "create_time": started - 60,
            "name": "x",
            "mark": "m",
            "owner_pid": 1 << 22,
            "owner_create_time": 0.0,
        }
        (run_dir / LEDGER).write_text(json.dumps(line) + '\n{"pid": 12, torn', encoding="utf-8")
        assert sweep_stray(run_dir.parent) == 0
        assert stranger.poll() is None
        stranger.kill()


def test_stop_ends_a_deaf_child_and_its_children(run_dir: Path) -> None:
    """A child that ignores SIGTERM is killed after the grace, its own children with it."""
    process = shell(run_dir, f"sleep 60 & echo $!; {DEAF}")
    process.wait_ready(says(process, "deaf"), 5)
    grandchild = int(process.log.read_text().split()[0])
    began = time.monotonic()
    process.stop(0.3)
    assert time.monotonic() - began < 3
    assert process.poll() == -signal.SIGKILL
    wait_until(lambda: is_gone(grandchild), seconds=5, what="the end of the grandchild")


def test_stop_reaches_grandchildren_whose_parent_has_ended(run_dir: Path) -> None:
    """A child that ended by itself and left a process running does not leave it behind after stop."""
    process = shell(run_dir, "sleep 60 & echo $!")
    wait_until(lambda: not process.alive, seconds=5, what="the end of the child")
    grandchild = int(process.log.read_text().split()[0])
    assert not is_gone(grandchild)
    process.stop()
    wait_until(lambda: is_gone(grandchild), seconds=5, what="the end of the grandchild")


def test_stopping_twice_is_harmless_and_frozen_children_hear(run_dir: Path) -> None:
    """A paused child ends in order at SIGTERM, and a second stop changes nothing."""
    process = shell(run_dir, "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done")
    process.wait_ready(says(process, "up"), 5)
    process.pause()
    process.stop(5)
    process.stop(5)
    assert process.poll() == 7
    assert process.tail()[-1] == "bye"


def test_many_deaf_children_share_one_grace(run_dir: Path) -> None:
    """Four deaf children take one grace period, not four, and a polite one among them ends in order."""
    children = [shell(run_dir, DEAF, name=f"deaf-{number}") for number in range(4)]
    children.append(
        shell(run_dir, "trap 'exit 7' TERM; echo deaf-not; while :; do sleep 0.05; done", name="polite")
    )
    for child in children:
        child.wait_ready(says(child, "deaf"), 5)
    began = time.monotonic()
    stop_all(children, grace=1.0)
    assert time.monotonic() - began < 2.5
    assert not any(child.alive for child in children)
    assert children[-1].poll() == 7


def test_wait_ready_names_the_probe_and_shows_the_log(run_dir: Path) -> None:
    """A child that ends too early, or never gets ready, is explained in one line with the end of its log."""
    early = shell(run_dir, "for n in 1 2 3 4 5 6 7; do echo line-$n; done; exit 3", name="early")
    with pytest.raises(
        StackError, match=r"^early: ended with status 3 before PONG\. .*early\.log: line-3 \|"
    ) as caught:
        early.wait_ready(Probe("PONG", lambda: False), 5)
    assert "line-2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    late = shell(run_dir, "exec sleep 60", name="late")
    with pytest.raises(StackError, match=r"^late: no PONG within 0\.1 s\. logs/late\.log is empty\.$"):
        late.wait_ready(Probe("PONG", lambda: False), 0.1)
    late.stop()


def test_events_of_an_earlier_process_of_that_name_do_not_count(run_dir: Path) -> None:
    """A restarted process is ready by its own event, not by the one its predecessor logged."""
    first = shell(run_dir, """echo '{"message": "api.ready", "port": 1}'""")
    assert first.wait_event("api.ready", 5)["port"] == 1
    first.stop()
    second = shell(
        run_dir, """echo 'not json api.ready'; sleep 0.2; echo '{"message": "api.ready", "port": 2}'"""
    )
    assert second.find_event("api.ready") is None
    assert second.wait_event("api.ready", 5)["port"] == 2
    second.stop()


def test_the_users_settings_do_not_leak_into_children(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child sees what it is given, PATH and HOME, and none of the user's RAG_* or USE_DURABLE_WORKER."""
    monkeypatch.setenv("RAG_MAX_RETRIES", "99")
    monkeypatch.setenv("USE_DURABLE_WORKER", "true")
    process = spawn(run_dir, "env", ["env"], env=clean_environment({"RAG_QUEUE": "mine"}))
    wait_until(lambda: not process.alive, seconds=5, what="the end of env")
    seen = dict(line.split("=", 1) for line in process.log.read_text().splitlines() if "=" in line)
    assert seen["RAG_QUEUE"] == "mine"
    assert seen["PATH"] == os.environ["PATH"]
    assert not {"RAG_MAX_RETRIES", "USE_DURABLE_WORKER"} & set(seen)


def test_a_program_that_cannot_start_is_one_line(run_dir: Path) -> None:
    """A missing program is a StackError that names part and program."""
    with pytest.raises(StackError, match=r"^ghost: no-such-program could not be started: No such file"):
        spawn(run_dir, "ghost", ["no-such-program"], env=clean_environment())
