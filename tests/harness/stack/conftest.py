"""Run folders that leave no process behind, and the parts of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from docker_daemon import IMAGES, docker_daemon, why_no_docker

from readiness.stack.docker import IMAGE_VARIABLES
from readiness.stack.strays import MARK

TOP_CONFTEST = Path(__file__).resolve().parents[2] / "conftest.py"


@pytest.fixture
def require_part(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """`require_part` of tests/conftest.py, by its plugin: several files of that name cannot be imported."""
    found: Callable[[str], Path] = pytestconfig.pluginmanager.get_plugin(str(TOP_CONFTEST)).require_part
    return found


@pytest.fixture(scope="session")
def docker_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a daemon with our images is; skipped with the reason where there can be none, a failure where CI=true."""
    reason = why_no_docker()
    base = tmp_path_factory.getbasetemp()
    with ExitStack() as cleanup:
        address = ""
        if not reason:
            try:
                address = cleanup.enter_context(
                    docker_daemon(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
                )
            except RuntimeError as error:  # root without the rights of root, as in a container
                reason = str(error)
        if reason:
            if os.environ.get("CI") == "true":
                pytest.fail(f"CI must have every part: {reason}")
            pytest.skip(f"{reason}: it adds parts in containers")
        yield address


@pytest.fixture
def docker(docker_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a person with that daemon, who has named our images."""
    if docker_address:
        monkeypatch.setenv("DOCKER_HOST", docker_address)
    for part, image in IMAGES.items():
        monkeypatch.setenv(IMAGE_VARIABLES[part], image)
    return docker_address


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """A run folder below `runs`. After the test no process of it may be left: that is part of every promise here."""
    folder = tmp_path / "runs" / "20261123T162233Z-test-0000"
    folder.mkdir(parents=True)
    yield folder
    left = processes_of(folder)
    for process in left:
        process.kill()
    assert not left, f"processes left behind: {left}"


def processes_of(folder: Path) -> list[psutil.Process]:
    """Living processes that carry our mark and work in (or below) a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = MARK in process.environ() and str(folder) in " ".join([process.cwd(), *process.cmdline()])
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
