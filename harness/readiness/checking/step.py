"""The run's step that executes the checks: pytest in a process of its own, watched through the evidence it
writes.

The outcome of each check is told as it settles. What the outcomes mean is left to the judge: this step
fails only when pytest itself could not do its work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from readiness.checking.session import DOCUMENTS_VARIABLE, RUN_VARIABLE
from readiness.errors import HarnessFailure
from readiness.evidence import read_all
from readiness.stack.docker import step_environment
from readiness.stack.processes import ManagedProcess, clean_environment, read_tail, spawn

LOG_NAME = "checks"
POLL_SECONDS = 1.0
# Checks mostly wait for the system; more of them at once would only make it late.
PROCESSES = 5
# pytest: 0 all passed, 1 some failed, 5 nothing collected (every claim chosen by --only lives in another step).
_ORDERLY = (0, 1, 5)


@dataclass(frozen=True, slots=True)
class Settled:
    """One outcome record that came in while the checks ran."""

    claim: str
    outcome: str
    seconds: float
    reason: str


def run_checks(
    run_dir: Path,
    *,
    checks: Path,
    documents: Path | None,
    only: Sequence[str],
    deadline_seconds: float,
    tell: Callable[[Settled], None],
) -> None:
    """Run the checks below ``checks`` against the started stack of ``run_dir``.

    Raises HarnessFailure when pytest crashes, cannot collect, or is not done after ``deadline_seconds``.
    """
    process = spawn(
        run_dir, LOG_NAME, _command(checks, only), env=_environment(run_dir, documents), cwd=checks.parent
    )
    try:
        _watch(process, run_dir, deadline_seconds=deadline_seconds, tell=tell)
    finally:
        process.stop()


def _watch(
    process: ManagedProcess, run_dir: Path, *, deadline_seconds: float, tell: Callable[[Settled], None]
) -> None:
    deadline = time.monotonic() + deadline_seconds
    told: set[tuple[str, int]] = set()
    while (status := process.poll()) is None:
        if time.monotonic() > deadline:
            raise HarnessFailure(
                f"checks: expected them to be done within {deadline_seconds:.0f} s; they were ended."
                f" logs/{LOG_NAME}.log ends with: {' | '.join(read_tail(process.log))}"
            )
        _tell_new(run_dir, told, tell)
        time.sleep(POLL_SECONDS)
    _tell_new(run_dir, told, tell)
    if status not in _ORDERLY:
        raise HarnessFailure(
            f"checks: pytest ended with status {status}. logs/{LOG_NAME}.log ends with:"
            f" {' | '.join(read_tail(process.log))}"
        )


def _tell_new(run_dir: Path, told: set[tuple[str, int]], tell: Callable[[Settled], None]) -> None:
    for claim, file in read_all(run_dir).items():
        for record in file.records:
            if record.kind != "outcome" or (claim, record.seq) in told:
                continue
            told.add((claim, record.seq))
            seconds = record.data.get("duration_seconds", 0.0)
            tell(
                Settled(
                    claim=claim,
                    outcome=str(record.data.get("outcome", "")),
                    seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
                    reason=str(record.data.get("reason", "")),
                )
            )


def _command(checks: Path, only: Sequence[str]) -> list[str]:
    # An empty configuration file: a pytest.ini of the folder that the person stands in is none of ours.
    chosen = [word for claim in only for word in ("--claim", claim)]
    plugin = ["-p", "readiness.pytest_plugin", "-p", "no:cacheprovider"]
    workers = ["-p", "xdist.plugin", "-n", str(PROCESSES), "--dist", "loadgroup"]
    common = ["-c", os.devnull, "--rootdir", str(checks), "--import-mode=importlib", "-ra", "--tb=short"]
    return [sys.executable, "-m", "pytest", str(checks), *common, *plugin, *workers, *chosen]


def _environment(run_dir: Path, documents: Path | None) -> dict[str, str]:
    settings = {
        RUN_VARIABLE: str(run_dir),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(run_dir / "data" / "hypothesis"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **step_environment(),
    }
    if documents is not None:
        settings[DOCUMENTS_VARIABLE] = str(documents.resolve())
    return clean_environment(settings)
