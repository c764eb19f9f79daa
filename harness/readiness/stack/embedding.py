"""Start the embedding API simulator as a part of the stack. What it does is `simulators.embedding`."""

from __future__ import annotations

from pathlib import Path

from readiness import __version__
from readiness.judge.model import Part, PartState, Text
from readiness.stack.ports import LOOPBACK
from readiness.stack.simulator import SimulatorPart

LOG = Path("logs") / "embedding-requests.jsonl"
"""The true log of every request, in the run folder."""


class EmbeddingPart(SimulatorPart):
    """The simulator's process and address."""

    def __init__(self, run_dir: Path) -> None:
        module = "readiness.simulators.embedding"
        super().__init__(run_dir, name="embedding", module=module, arguments=("--port", "0"), log=LOG)
        self.url = ""

    def await_ready(self) -> None:
        """Wait until it listens; StackError when it does not."""
        self.url = f"http://{LOOPBACK}:{self.ready_event()['port']}/v1"


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
