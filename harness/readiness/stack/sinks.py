"""Start the mail and chat sinks as a part of the stack. What they keep is `simulators.sinks`."""

from __future__ import annotations

from pathlib import Path

from readiness import __version__
from readiness.judge.model import Part, PartState, Text
from readiness.simulators.sinks import SLACK_PREFIX, WEBHOOK_PREFIX
from readiness.stack.ports import LOOPBACK
from readiness.stack.simulator import SimulatorPart

LOG = Path("logs") / "sink-arrivals.jsonl"
"""Everything that arrived, in the run folder."""


class SinksPart(SimulatorPart):
    """The sinks' process and addresses."""

    def __init__(self, run_dir: Path) -> None:
        module, ports = "readiness.simulators.sinks", ("--mail-port", "0", "--http-port", "0")
        super().__init__(run_dir, name="sinks", module=module, arguments=ports, log=LOG)
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

    def await_ready(self) -> None:
        """Wait until both listen; StackError when they do not."""
        event = self.ready_event()
        self.url = f"http://{LOOPBACK}:{event['http_port']}"
        self.smarthost = f"{LOOPBACK}:{event['mail_port']}"


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
