"""A stack starts whole or not at all, describes itself, and leaves no process and no port behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from readiness.doctor import diagnose
from readiness.errors import HarnessFailure
from readiness.stack import assembly, redis
from readiness.stack.assembly import Stack
from readiness.stack.base import StackInfo, StackPlan
from readiness.stack.processes import StackError
from readiness.stack.strays import LEDGER

PARTS = ("redis", "sql", "prometheus", "promtool", "alertmanager", "amtool", "embedding", "sinks")


def listening(run_dir: Path) -> list[int]:
    """Ports on which a process of the ledger listens now."""
    ports = []
    for line in (run_dir / LEDGER).read_text().splitlines():
        try:
            connections = psutil.Process(json.loads(line)["pid"]).net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        ports += [connection.laddr.port for connection in connections if connection.status == "LISTEN"]
    return ports


def test_a_stack_describes_itself_and_ends_whole(run_dir: Path) -> None:
    """Every part is there or says that it is missing; stop within 4 s closes every port, twice is harmless."""
    stack = Stack.start(StackPlan(), run_dir)
    ports = listening(run_dir)
    assert len(ports) >= 4  # Redis, embedding API, mail, chat
    assert tuple(part.name for part in stack.info.parts) == PARTS
    assert all(part.note.en and part.note.ko for part in stack.info.parts)
    assert StackInfo.read(run_dir) == stack.info
    began = time.monotonic()
    stack.stop()
    stack.stop()
    assert time.monotonic() - began < 4
    assert listening(run_dir) == []
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_machine_without_anything_still_has_a_stack(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty PATH monitoring is missing by name, with what it adds, and Redis comes from a wheel."""
    monkeypatch.setenv("PATH", "")
    with Stack.start(StackPlan(), run_dir) as stack:
        assert stack.info.redis_provider in ("embedded", "fakeredis")
        assert stack.info.prometheus_url is None
        missing = {part.name: part for part in stack.info.parts if part.state == "missing"}
    assert set(missing) == {"prometheus", "promtool", "alertmanager", "amtool"}
    assert all("apt install" in part.note.en and "apt install" in part.note.ko for part in missing.values())


def test_monitoring_can_be_left_out(run_dir: Path) -> None:
    """A plan without monitoring starts neither server, and does not tell people to install what they have."""
    with Stack.start(StackPlan(redis="fakeredis", monitoring=False), run_dir) as stack:
        assert (stack.info.prometheus_url, stack.info.alertmanager_url) == (None, None)
        parts = [stack.info.part("prometheus"), stack.info.part("alertmanager")]
    for part, is_here in zip(
        parts, (assembly.prometheus_is_here(), assembly.alertmanager_is_here()), strict=True
    ):
        assert part
        assert part.state == "missing"
        assert ("the plan of this run left it out" in part.note.en) == is_here


@pytest.mark.parametrize("moment", ["starting the embedding API simulator and the sinks", "starting Redis"])
def test_ctrl_c_while_starting_leaves_nothing(run_dir: Path, moment: str) -> None:
    """An interrupt in the middle of the start ends what was started before it goes on its way."""

    def interrupt(message: str) -> None:
        if message == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stack.start(StackPlan(redis="fakeredis", monitoring=False), run_dir, notify=interrupt)
    assert not (run_dir / "stack.json").exists()


def test_a_part_that_does_not_start_ends_the_others(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis program that fails is a StackError with its last words, and the simulators are gone."""
    broken = run_dir / "redis-server"
    broken.write_text("#!/bin/sh\necho disk is on fire\nexit 9\n")
    broken.chmod(0o755)
    monkeypatch.setattr(redis, "_programs", lambda: {"local": (broken, "7.0.0")})
    with pytest.raises(
        StackError, match=r"^redis: ended with status 9 before PONG on port \d+\. .*disk is on fire"
    ):
        Stack.start(StackPlan(monitoring=False), run_dir)
    assert listening(run_dir) == []


def test_ctrl_c_in_a_terminal_ends_a_run_in_order(run_dir: Path) -> None:
    """SIGINT to a harness that runs a stack ends with KeyboardInterrupt and no process or port."""
    program = f"""
import time
from pathlib import Path
from readiness.stack import Stack, StackPlan
with Stack.start(StackPlan(), Path({str(run_dir)!r})):
    print("up", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == b"up\n"
        assert listening(run_dir)
        os.killpg(harness.pid, signal.SIGINT)
        assert harness.wait(timeout=10) == -signal.SIGINT
    assert listening(run_dir) == []


def test_a_second_ctrl_c_while_stopping_leaves_nobody(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt of the stop shortens it and ends every part all the same."""
    stack = Stack.start(StackPlan(redis="fakeredis", monitoring=False), run_dir)
    part = stack._started[-1]
    wait, impatient = part.await_end, iter([True])

    def await_end(deadline: float) -> None:
        if next(impatient, False):
            raise KeyboardInterrupt
        wait(deadline)

    monkeypatch.setattr(part, "await_end", await_end)
    with pytest.raises(KeyboardInterrupt):
        stack.stop()
    assert listening(run_dir) == []


def test_a_stack_description_that_is_none_is_said(run_dir: Path) -> None:
    """A missing or torn stack.json is one line that names it."""
    with pytest.raises(HarnessFailure, match=r"expected stack\.json, found none"):
        StackInfo.read(run_dir)
    (run_dir / "stack.json").write_text('{"run_dir": "x", "redis_url": 5')
    with pytest.raises(HarnessFailure, match=r"stack\.json: expected a stack description"):
        StackInfo.read(run_dir)


def test_the_doctor_names_every_part_in_both_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty PATH every program is missing, and each part says what it adds and how to get it."""
    monkeypatch.setenv("PATH", "")
    found = {item.part: item for item in diagnose()}
    programs = (
        "redis-server",
        "prometheus",
        "promtool",
        "alertmanager",
        "amtool",
        "docker",
        "chromium",
        "chromedriver",
    )
    assert not any(found[name].found for name in programs)
    assert found["fakeredis"].found
    assert all(item.adds.en and item.adds.ko and item.get for item in found.values())
    assert set(found) == {*programs, "embedded redis", "fakeredis", "postgres", "korean fonts"}


def test_old_programs_do_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Prometheus older than the specification asks for is not started and the doctor calls it missing."""
    old = tmp_path / "prometheus"
    old.write_text("#!/bin/sh\necho 'prometheus, version 2.39.2 (branch: x)'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert not next(item for item in diagnose() if item.part == "prometheus").found
    assert not assembly.prometheus_is_here()
