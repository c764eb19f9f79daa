"""Run folders that leave no process behind, and the parts of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from readiness.stack.strays import MARK

TOP_CONFTEST = Path(__file__).resolve().parents[2] / "conftest.py"


@pytest.fixture
def require_part(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """`require_part` of tests/conftest.py, by its plugin: several files of that name cannot be imported."""
    found: Callable[[str], Path] = pytestconfig.pluginmanager.get_plugin(str(TOP_CONFTEST)).require_part
    return found


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
