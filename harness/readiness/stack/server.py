"""One server of a single binary with a port of ours: Prometheus and Alertmanager start and end alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from readiness.stack.ports import LOOPBACK, answers_http, free_port, listens
from readiness.stack.processes import ManagedProcess, Probe, StackError, clean_environment, spawn

PORT_ATTEMPTS = 5
"""How often a port may be taken by somebody else between choosing and using it."""

READY_SECONDS = 20.0
"""Both are ready in 70 to 250 ms on a quiet machine; the rest is for one with every core busy."""


class HttpServer:
    """A server that is ready when GET /-/ready is answered by the process we started."""

    def __init__(self, run_dir: Path, *, name: str, command: Callable[[int], Sequence[str]]) -> None:
        self._run_dir = run_dir
        self._name = name
        self._command = command
        self._process: ManagedProcess | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Base URL without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start on a free port and wait until it is ready. StackError shows the end of its log."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self._start_on(free_port())
                return
            except StackError:
                taken = self._process is not None and "ddress already in use" in " ".join(
                    self._process.tail()
                )
                if not taken or attempt == PORT_ATTEMPTS:
                    raise

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        if self._process is not None:
            self._process.terminate()

    def await_end(self, deadline: float) -> None:
        """Wait until it ended, insist at the monotonic moment `deadline`."""
        if self._process is not None:
            self._process.await_end(deadline)

    def _start_on(self, port: int) -> None:
        process = spawn(self._run_dir, self._name, self._command(port), env=clean_environment())
        self._process = process
        url = f"http://{LOOPBACK}:{port}/-/ready"
        ready = Probe(
            f"GET /-/ready on port {port}", lambda: listens(process.pid, port) and answers_http(url)
        )
        try:
            process.wait_ready(ready, READY_SECONDS)
        except BaseException:
            process.kill()
            raise
        self.port = port
