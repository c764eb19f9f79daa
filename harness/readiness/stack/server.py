"""One server of a single binary with a port of ours: Prometheus and Alertmanager start and end alike, as a process
of this machine or in a container on its network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from readiness.stack.docker import Image
from readiness.stack.ports import LOOPBACK, answers_http, free_port, text_of
from readiness.stack.processes import Child, Probe, StackError, clean_environment, spawn

PORT_ATTEMPTS = 5
"""How often a port may be taken by somebody else between choosing and using it."""

READY_SECONDS = 20.0
"""Both are ready in 70 to 250 ms on a quiet machine; the rest is for one with every core busy."""


class HttpServer:
    """A server that is ready when GET /-/ready is answered by the process we started."""

    def __init__(
        self,
        run_dir: Path,
        *,
        name: str,
        program: Callable[[], Path],
        flags: Callable[[int], Sequence[str]],
        image: Image | None = None,
        folder: Path | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._name = name
        self._program = program
        self._flags = flags
        self._image = image
        self._folder = folder or run_dir
        self._process: Child | None = None
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
        process = self._launch(port)
        url = f"http://{LOOPBACK}:{port}/-/ready"
        ready = Probe(f"GET /-/ready on port {port}", lambda: process.holds(port) and answers_http(url))
        try:
            process.wait_ready(ready, READY_SECONDS)
        except BaseException:
            process.kill()
            raise
        self.port = port

    def _launch(self, port: int) -> Child:
        if self._image is None:
            argv = [str(self._program()), *self._flags(port)]
            self._process = process = spawn(self._run_dir, self._name, argv, env=clean_environment())
            return process
        # Imported here: it needs the extra `docker`.
        from readiness.stack.container import Container, Recipe  # noqa: PLC0415 - see above

        if self._process is not None:
            self._process.stop()
        self._process = container = Container(self._run_dir, self._name)
        # On the host's network: it watches and calls processes that listen on loopback only, as it does itself.
        recipe = Recipe(self._image.name, tuple(self._flags(port)), port, folders=(self._folder,))
        container.start(recipe)
        return container


def ask_version(url: str, under: str) -> str:
    """The version that a server tells at `url`: `version` in the object `under`; "" when it does not say."""
    try:
        answer = json.loads(text_of(url))
        return str(answer[under]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
