"""Start the mail and chat sinks as a part of the stack. What they keep is `simulators.sinks`."""

from __future__ import annotations

import sys
from pathlib import Path

from readiness import __version__
from readiness.judge.model import Part, PartState, Text
from readiness.simulators.sinks import SLACK_PREFIX, WEBHOOK_PREFIX
from readiness.stack.ports import LOOPBACK
from readiness.stack.processes import ManagedProcess, clean_environment, spawn

READY_SECONDS = 20.0
"""A Python process imports and listens within a second; on a machine with every core busy it takes longer."""

LOG = Path("logs") / "sink-arrivals.jsonl"
"""Everything that arrived, in the run folder."""


class SinksPart:
    """The sinks' process and addresses."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._process: ManagedProcess | None = None
        self.url = ""
        self.smarthost = ""

    @property
    def slack_url(self) -> str:
        """Where Slack messages go."""
        return self.url + SLACK_PREFIX

    @property
    def webhook_url(self) -> str:
        """Where webhooks go."""
        return self.url + WEBHOOK_PREFIX

    def begin(self) -> None:
        """Spawn them; `await_ready` waits for them."""
        argv = [sys.executable, "-m", "readiness.simulators.sinks", "--mail-port", "0", "--http-port", "0"]
        argv += ["--log", str(self._run_dir / LOG)]
        self._process = spawn(self._run_dir, "sinks", argv, env=clean_environment())

    def await_ready(self) -> None:
        """Wait until both listen; StackError when they do not."""
        assert self._process is not None
        event = self._process.wait_event("simulator.ready", READY_SECONDS)
        self.url = f"http://{LOOPBACK}:{event['http_port']}"
        self.smarthost = f"{LOOPBACK}:{event['mail_port']}"

    def terminate(self) -> None:
        """Ask them to end; returns at once."""
        if self._process is not None:
            self._process.terminate()

    def await_end(self, deadline: float) -> None:
        """Wait until they ended, insist at the monotonic moment `deadline`."""
        if self._process is not None:
            self._process.await_end(deadline)


def sinks_part() -> Part:
    """The part as the report shows it."""
    return Part(
        name="sinks",
        state=PartState.SIMULATED,
        provider="simulator",
        version=__version__,
        note=Text(
            en="mail and Slack sinks on loopback that keep what arrives and send nothing on",
            ko="도착한 메일과 Slack 메시지를 보관만 하고 외부로 보내지 않는 루프백 수신기입니다.",
        ),
    )
