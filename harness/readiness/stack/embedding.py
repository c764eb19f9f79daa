"""Start the embedding API simulator as a part of the stack. What it does is `simulators.embedding`."""

from __future__ import annotations

import sys
from pathlib import Path

from readiness import __version__
from readiness.judge.model import Part, PartState, Text
from readiness.stack.ports import LOOPBACK
from readiness.stack.processes import ManagedProcess, clean_environment, spawn

READY_SECONDS = 20.0
"""A Python process imports and listens within a second; on a machine with every core busy it takes longer."""

LOG = Path("logs") / "embedding-requests.jsonl"
"""The true log of every request, in the run folder."""


class EmbeddingPart:
    """The simulator's process and address."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._process: ManagedProcess | None = None
        self.url = ""

    def begin(self) -> None:
        """Spawn it; `await_ready` waits for it."""
        argv = [sys.executable, "-m", "readiness.simulators.embedding", "--port", "0"]
        argv += ["--log", str(self._run_dir / LOG)]
        self._process = spawn(self._run_dir, "embedding", argv, env=clean_environment())

    def await_ready(self) -> None:
        """Wait until it listens; StackError when it does not."""
        assert self._process is not None
        event = self._process.wait_event("simulator.ready", READY_SECONDS)
        self.url = f"http://{LOOPBACK}:{event['port']}/v1"

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        if self._process is not None:
            self._process.terminate()

    def await_end(self, deadline: float) -> None:
        """Wait until it ended, insist at the monotonic moment `deadline`."""
        if self._process is not None:
            self._process.await_end(deadline)


def embedding_part() -> Part:
    """The part as the report shows it."""
    return Part(
        name="embedding",
        state=PartState.SIMULATED,
        provider="simulator",
        version=__version__,
        note=Text(
            en="an OpenAI-compatible API that keeps a true log; no model is asked",
            ko="모든 요청을 그대로 기록하는 OpenAI 호환 API이며 실제 모델은 호출하지 않습니다.",
        ),
    )
