"""A Docker daemon for the tests: one of their own for a whole session where they are root, else the person's.

An own daemon keeps everything in the session's temporary folder, has a bridge of its own and touches neither
iptables nor sysctls. Processes of pytest-xdist share it: who comes first starts it, who goes last ends it, and a shell
that watches the session ends it when pytest was killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from build_images import IMAGES, build_all, missing_programs

START_SECONDS = 60.0
END_SECONDS = 30.0

_WATCHED = """
ip link add "$BRIDGE" type bridge && ip addr add "$SUBNET" dev "$BRIDGE" && ip link set "$BRIDGE" up || exit 1
dockerd --data-root "$ROOT/data" --exec-root "$ROOT/exec" --pidfile "$ROOT/pid" --host "unix://$ROOT/sock" \
  --bridge "$BRIDGE" --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false &
daemon=$!
trap 'kill $daemon' TERM
while kill -0 "$SESSION" 2>/dev/null && kill -0 $daemon 2>/dev/null; do sleep 0.5 & wait $!; done
kill $daemon 2>/dev/null
wait $daemon; wait $daemon
ip link del "$BRIDGE"
for space in "$ROOT"/exec/netns/*; do umount "$space"; done  # dockerd leaves that of the host
"""


def why_no_docker() -> str:
    """Why this machine cannot run the tests with containers; "" when it can."""
    if lacking := missing_programs():
        return f"no {', '.join(lacking)} to make images of; `make services` installs them"
    if shutil.which("docker") is None:
        return "no docker; `make services` installs Debian's docker.io"
    if not _may_start() and not _answers(os.environ.get("DOCKER_HOST", "")):
        return "no Docker daemon answers, and only root with dockerd and ip can start one for the tests"
    return ""


@contextmanager
def docker_daemon(shared: Path) -> Iterator[str]:
    """The daemon's address; `shared` is a folder that all processes of the session see. It has `IMAGES`."""
    if not _may_start():
        address = os.environ.get("DOCKER_HOST", "")
        _build(address)
        yield address
        return
    root = shared / "docker"
    root.mkdir(exist_ok=True)
    with _counted(root) as first:
        if first:
            _start(root)
    try:
        yield f"unix://{root / 'sock'}"
    finally:
        with _counted(root, step=-1) as last:
            if last:
                _end(root)


def _may_start() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("dockerd", "ip"))


def _answers(address: str) -> bool:
    done = subprocess.run(["docker", "info"], env=_environment(address), capture_output=True, check=False)
    return done.returncode == 0


def _environment(address: str) -> dict[str, str]:
    return {**os.environ, **({"DOCKER_HOST": address} if address else {})}


def _build(address: str) -> None:
    before = os.environ.get("DOCKER_HOST")
    os.environ.update(_environment(address))
    try:
        build_all()
    finally:
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = before


@contextmanager
def _counted(root: Path, step: int = 1) -> Iterator[bool]:
    """Count the processes that use the daemon, one at a time; true for the one that is first, or last."""
    with (root / "users").open("a+") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        users.seek(0)
        count = int(users.read() or 0)
        yield (count == 0) if step > 0 else (count == 1)
        users.truncate(0)
        users.write(str(count + step))


def _start(root: Path) -> None:
    number = os.getpid()
    session = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else number
    settings = {
        "ROOT": str(root),
        "BRIDGE": f"rd{number}",
        "SUBNET": f"172.31.{number % 250 + 1}.1/24",
        "SESSION": str(session),
    }
    with (root / "log").open("ab") as log:
        watcher = subprocess.Popen(
            ["sh", "-c", _WATCHED],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (root / "watcher").write_text(str(watcher.pid))
    address = f"unix://{root / 'sock'}"
    deadline = time.monotonic() + START_SECONDS
    while not _answers(address):
        if watcher.poll() is not None or time.monotonic() > deadline:
            tail = (root / "log").read_text(errors="replace")[-800:]
            watcher.terminate()
            raise RuntimeError(f"expected dockerd to answer within {START_SECONDS:g} s, its log ends: {tail}")
        time.sleep(0.2)
    _build(address)


def _end(root: Path) -> None:
    watcher = int((root / "watcher").read_text())
    os.kill(watcher, signal.SIGTERM)
    deadline = time.monotonic() + END_SECONDS
    while _lives(watcher) and time.monotonic() < deadline:
        time.sleep(0.1)
    for name in ("data", "exec"):
        shutil.rmtree(root / name, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:  # another process of the session started it
        return Path(f"/proc/{pid}").exists()


__all__ = ["IMAGES", "docker_daemon", "why_no_docker"]
