"""Our end of the keeper: it is started with the first container of this process and ends after the last one.

The keeper reads names from a pipe. When this process is gone, however it went, the pipe closes and the keeper
removes what is left. It has a session of its own: neither Ctrl-C nor a signal to our group reaches it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

from readiness.stack.docker import step_environment
from readiness.stack.processes import clean_environment

END_SECONDS = 10.0
"""How long a keeper with nothing to do may take to end on a busy machine."""


class Watch:
    """Names that shall be removed when we are gone. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._keeper: subprocess.Popen[bytes] | None = None

    def remember(self, name: str) -> None:
        """From now on this container does not outlive us. Called before it is made."""
        with self._lock:
            self._names.add(name)
            if self._keeper is None:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-m", "readiness.stack.keeper"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=clean_environment(step_environment()),
                    start_new_session=True,
                )
            self._tell(f"+{name}")

    def forget(self, name: str) -> None:
        """It has been removed. After the last one the keeper ends."""
        with self._lock:
            self._names.discard(name)
            self._tell(f"-{name}")
            if not self._names and self._keeper is not None:
                keeper, self._keeper = self._keeper, None
                assert keeper.stdin is not None
                with contextlib.suppress(OSError):
                    keeper.stdin.close()
                try:
                    keeper.wait(timeout=END_SECONDS)
                except subprocess.TimeoutExpired:
                    keeper.kill()
                    keeper.wait()

    def _tell(self, words: str) -> None:
        if self._keeper is not None and self._keeper.stdin is not None:
            with contextlib.suppress(OSError):  # somebody killed it: the sweep at the next start is left
                self._keeper.stdin.write(words.encode() + b"\n")
                self._keeper.stdin.flush()
