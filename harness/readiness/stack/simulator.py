"""A simulator of ours as a part of the stack: a Python module in a process of its own that says when it listens."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from readiness.stack.processes import ManagedProcess, clean_environment, spawn

READY_SECONDS = 20.0
"""A Python process imports and listens within a second; on a machine with every core busy it takes longer."""


class SimulatorPart:
    """The process of `python -m <module>`; subclasses say which, and what its ready event means."""

    def __init__(self, run_dir: Path, *, name: str, module: str, arguments: Sequence[str], log: Path) -> None:
        self._run_dir = run_dir
        self._name = name
        self._argv = [sys.executable, "-m", module, *arguments, "--log", str(run_dir / log)]
        self._process: ManagedProcess | None = None

    def begin(self) -> None:
        """Spawn it; `await_ready` waits for it."""
        self._process = spawn(self._run_dir, self._name, self._argv, env=clean_environment())

    def ready_event(self) -> Mapping[str, object]:
        """Wait until it listens and return what it says then; StackError when it does not."""
        assert self._process is not None
        return self._process.wait_event("simulator.ready", READY_SECONDS)

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        if self._process is not None:
            self._process.terminate()

    def await_end(self, deadline: float) -> None:
        """Wait until it ended, insist at the monotonic moment `deadline`."""
        if self._process is not None:
            self._process.await_end(deadline)
